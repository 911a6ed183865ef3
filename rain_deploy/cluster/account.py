"""Whether a cluster's machines are in the account that is asked: another account does not know them."""

from __future__ import annotations

from rain_deploy.cluster.seeing import look_at
from rain_deploy.core.cluster import Cluster
from rain_deploy.core.machine import ResourceRef
from rain_deploy.errors import InputError
from rain_deploy.providers.base import Cloud


def in_account(cloud: Cloud, cluster: Cluster, known: tuple[ResourceRef, ...]) -> tuple[ResourceRef, ...]:
    """Those of the recorded resources that exist; all of them where the cloud does not answer.

    Raises InputError where none does and the cluster was made with another key: it lives in another account,
    where it costs.
    """
    made = tuple(ref for ref in known if ref.ref)
    sight = look_at(cloud) if made else None
    if sight is None or sight.silent:
        return known
    there = {(found.resource.kind, found.resource.ref) for found in sight.found}
    existing = tuple(ref for ref in made if (ref.kind, ref.ref) in there)
    if not existing and cluster.account not in {"", cloud.account}:
        raise InputError(
            f"nothing of cluster {cluster.name} is in this account: it was made with API key "
            f"{cluster.account}, and this one is {cloud.account}; its {len(made)} resources are not touched",
            next_step="the same command with the credentials of that account (EXOSCALE_ACCOUNT=NAME)",
        )
    return existing


def refuse_another_account(cloud: Cloud, cluster: Cluster, known: tuple[ResourceRef, ...]) -> None:
    """As ``in_account``; asks nobody while the key is that of the cluster."""
    if cluster.account not in {"", cloud.account}:
        in_account(cloud, cluster, known)
