"""Whether a cluster's machines are in the account that is asked: another account does not know them."""

from __future__ import annotations

from rain_deploy.cluster.seeing import look_at
from rain_deploy.core.cluster import Cluster
from rain_deploy.core.machine import Resource
from rain_deploy.errors import InputError
from rain_deploy.providers.base import Cloud


def in_account(cloud: Cloud, cluster: Cluster, known: tuple[Resource, ...]) -> tuple[Resource, ...]:
    """Those of the recorded resources that exist; all of them where the cloud does not answer.

    Raises InputError where none does and the cluster was made with another key: it lives in another account,
    where it costs.
    """
    made = tuple(ref for ref in known if ref.ref)
    sight = look_at(cloud) if made else None
    if sight is None or sight.silent:
        return known
    there = {(found.kind, found.ref) for found in sight.found}
    existing = tuple(ref for ref in made if (ref.kind, ref.ref) in there)
    if not existing and not _same_key(cloud, cluster):
        raise InputError(
            f"nothing of cluster {cluster.name} is in this account: it was made with API key "
            f"{_key(cluster)}, and this one is {cloud.account}; its {len(made)} resources are not touched",
            next_step="the same command with the credentials of that account (EXOSCALE_ACCOUNT=NAME)",
        )
    return existing


def refuse_another_account(cloud: Cloud, cluster: Cluster, known: tuple[Resource, ...]) -> None:
    """As ``in_account``; asks nobody while the key is that of the cluster."""
    if not _same_key(cloud, cluster):
        in_account(cloud, cluster, known)


def _key(cluster: Cluster) -> str:
    return cluster.bill.account if cluster.bill else ""


def _same_key(cloud: Cloud, cluster: Cluster) -> bool:
    return _key(cluster) in {"", cloud.account}
