"""Resources away: machines first and all at once, then what they stood on."""

from __future__ import annotations

import itertools
import time
from collections.abc import Collection

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.stages import try_stages
from rain_deploy.core.cluster import Cluster, Node
from rain_deploy.core.events import Notice
from rain_deploy.core.machine import Resource
from rain_deploy.errors import RainDeployError
from rain_deploy.fleet.fanout import Outcomes, fan_out
from rain_deploy.parts.teardown import remove_stage, stop_stage
from rain_deploy.providers.base import Provider


def remove(
    ctx: Context, provider: Provider, resources: tuple[Resource, ...]
) -> tuple[tuple[Resource, ...], dict[str, RainDeployError]]:
    """Delete them, the last made first.  What is gone, forgotten; and why the others are not.

    A kind is tried when all of those after it are gone: a group cannot go before its machines.
    """
    gone: list[Resource] = []
    for _, of_kind in itertools.groupby(reversed(resources), key=lambda resource: resource.kind):
        group = tuple(of_kind)[::-1]
        outcomes = fan_out(group, lambda resource: _removed(ctx, provider, resource), finish=True)
        gone += [resource for resource in group if resource.name not in outcomes.errors]
        if outcomes.errors:
            return tuple(gone), dict(outcomes.errors)
    return tuple(gone), {}


def _removed(ctx: Context, provider: Provider, resource: Resource) -> None:
    provider.delete(resource)
    ctx.store.forget_resource(resource)


def surplus(cluster: Cluster, known: tuple[Resource, ...], nodes: int) -> tuple[Resource, ...]:
    """Recorded machines above ``nodes`` that are no living node: a killed command made or ended them."""
    living = {node.name for node in cluster.nodes} if cluster.up else set()
    machines = (ref for ref in known if ref.is_machine and ref.name not in living)
    return tuple(ref for ref in machines if ref.index > nodes)


def remove_surplus(
    ctx: Context, provider: Provider, cluster: Cluster, machines: tuple[Resource, ...]
) -> Cluster:
    """The cluster, recorded, without these machines.  Raises why one of them is still there."""
    if not machines:
        return cluster
    names = ", ".join(machine.name for machine in machines)
    ctx.emit(Notice(f"removing {names} of {cluster.name}: not among the nodes asked for"))
    gone, failed = remove(ctx, provider, machines)
    cluster = cluster.closed(gone, time.time()).without({machine.name for machine in gone})
    ctx.store.save_cluster(cluster)
    Outcomes({}, failed).require()
    return cluster


def remove_unrecorded(provider: Provider, cluster: Cluster, kept: Collection[str]) -> tuple[str, ...]:
    """Delete the machines that the cloud lists of a cluster, but for those ``kept``; nothing is recorded.

    Their names.  Raises DownIncomplete, ApiError, CredentialsError.
    """
    listed = (resource for resource in provider.list(cluster.owner) if resource.cluster_id == cluster.id)
    machines = tuple(r for r in listed if r.is_machine and r.name not in kept)
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
