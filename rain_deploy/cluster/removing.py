"""Resources away: machines first and all at once, then what they stood on."""

from __future__ import annotations

import itertools
import time
from collections.abc import Collection
from dataclasses import replace

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.machines import is_machine
from rain_deploy.cluster.stages import try_stages
from rain_deploy.core.cluster import Cluster, Node
from rain_deploy.core.events import Notice
from rain_deploy.core.machine import ResourceRef
from rain_deploy.core.money import close_meters
from rain_deploy.errors import RainDeployError
from rain_deploy.fleet.fanout import Outcomes, fan_out
from rain_deploy.parts.teardown import remove_stage, stop_stage
from rain_deploy.providers.base import Provider


def remove(
    ctx: Context, provider: Provider, resources: tuple[ResourceRef, ...]
) -> tuple[tuple[ResourceRef, ...], dict[str, RainDeployError]]:
    """Delete them, the last made first.  What is gone, forgotten; and why the others are not.

    A kind is tried when all of those after it are gone: a group cannot go before its machines.
    """
    gone: list[ResourceRef] = []
    for _, of_kind in itertools.groupby(reversed(resources), key=lambda resource: resource.kind):
        group = tuple(of_kind)[::-1]
        outcomes = fan_out(group, lambda resource: _removed(ctx, provider, resource), finish=True)
        gone += [resource for resource in group if resource.name not in outcomes.errors]
        if outcomes.errors:
            return tuple(gone), dict(outcomes.errors)
    return tuple(gone), {}


def _removed(ctx: Context, provider: Provider, resource: ResourceRef) -> None:
    provider.delete(resource)
    ctx.store.forget_resource(resource)


def surplus(cluster: Cluster, known: tuple[ResourceRef, ...], nodes: int) -> tuple[ResourceRef, ...]:
    """Recorded machines above ``nodes`` that are no living node: a killed command made or ended them."""
    living = {node.name for node in cluster.nodes} if cluster.up else set()
    machines = (ref for ref in known if is_machine(ref.name) and ref.name not in living)
    return tuple(ref for ref in machines if int(ref.name.rpartition("-")[2]) > nodes)


def remove_surplus(
    ctx: Context, provider: Provider, cluster: Cluster, machines: tuple[ResourceRef, ...]
) -> Cluster:
    """The cluster, recorded, without these machines.  Raises why one of them is still there."""
    if not machines:
        return cluster
    names = ", ".join(machine.name for machine in machines)
    ctx.emit(Notice(f"removing {names} of {cluster.name}: not among the nodes asked for"))
    gone, failed = remove(ctx, provider, machines)
    cluster = shorn(without(cluster, gone), gone)
    ctx.store.save_cluster(cluster)
    Outcomes({}, failed).require()
    return cluster


def shorn(cluster: Cluster, gone: tuple[ResourceRef, ...]) -> Cluster:
    """The cluster without the nodes that these machines were."""
    names = {machine.name for machine in gone}
    return replace(
        cluster,
        nodes=tuple(node for node in cluster.nodes if node.name not in names),
        left_out=tuple(node for node in cluster.left_out if node.name not in names),
    )


def remove_unrecorded(provider: Provider, cluster: Cluster, kept: Collection[str]) -> tuple[str, ...]:
    """Delete the machines that the cloud lists of a cluster, but for those ``kept``; nothing is recorded.

    Their names.  Raises DownIncomplete, ApiError, CredentialsError.
    """
    listed = (resource for resource in provider.list(cluster.owner) if resource.cluster_id == cluster.id)
    machines = tuple(r for r in listed if is_machine(r.name) and r.name not in kept)
    fan_out(machines, provider.delete, finish=True).require()
    return tuple(resource.name for resource in machines)


def end_nodes(ctx: Context, provider: Provider, cluster: Cluster, nodes: tuple[Node, ...]) -> None:
    """End what runs on nodes of a cluster that goes on without them; a machine that goes needs no more."""
    if provider.cloud is not None:
        return
    stages = [("stop", {node.name: stop_stage(cluster, node) for node in nodes})]
    if not provider.traits.shared_machine:
        files = remove_stage(cluster, wall=provider.traits.needs_wall)
        stages.append(("remove", {node.name: files for node in nodes}))
    for name, of_nodes in stages:
        try_stages(ctx, cluster, name, of_nodes).require()


def without(cluster: Cluster, gone: tuple[ResourceRef, ...]) -> Cluster:
    """The cluster whose machines among ``gone`` cost nothing from now on."""
    names = frozenset(resource.name for resource in gone)
    return replace(cluster, meters=close_meters(cluster.meters, names, time.time()))
