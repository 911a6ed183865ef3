"""Destroy: end what runs, delete everything of a cluster, look again, and certify that nothing is left."""

from __future__ import annotations

import contextlib
import itertools
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.leftovers import Group, Key, groups
from rain_deploy.cluster.lookup import hosts_of
from rain_deploy.cluster.make import delete_one
from rain_deploy.cluster.nodes.stages import try_stages
from rain_deploy.cluster.plan import plan_down
from rain_deploy.cluster.seen import Account, Seen, ask, refuse_another_account
from rain_deploy.core.cluster import Cluster, Node
from rain_deploy.core.machine import Resource
from rain_deploy.core.spec import ClusterSpec
from rain_deploy.errors import DownIncomplete, HostKeyError, RainDeployError, Unproved, Unreachable
from rain_deploy.fleet.executor import StageReport
from rain_deploy.fleet.fanout import fan_out
from rain_deploy.fleet.reach import meet
from rain_deploy.parts.services import remove_stage, stop_stage
from rain_deploy.providers.base import Cloud, Provider
from rain_deploy.state.store import Record


@dataclass(frozen=True, slots=True)
class Destroyed:
    """What was deleted, and what was looked at afterwards."""

    deleted: tuple[str, ...]
    certificate: tuple[str, ...]


def destroy(ctx: Context, record: Record) -> Destroyed:
    """Delete the cluster and forget it.  Raises what could not be deleted or proved to be gone."""
    cluster = record.cluster.whole
    provider = ctx.provider_for(cluster.provider)
    absent: tuple[str, ...] = ()
    if provider.cloud is None and cluster.nodes:  # a rented machine takes everything with it
        absent = _end_everything(ctx, provider, record)
    plan = plan_down(replace(_seen(record), account=Account(_list(provider, cluster))))
    record.change(up=False)  # from here on it does not live, also when this command is killed
    gone, failed = delete(ctx, record, plan.delete)
    left = [resource.label for resource in _list(provider, cluster)]
    if failed or left:
        reasons = "; ".join([*(error.message for error in failed.values()), *left])
        raise DownIncomplete(
            f"down of {cluster.name} is not complete: {reasons}",
            still_running=", ".join(left) or None,
            next_step=f"rain-deploy down -c {cluster.name}",
        )
    record.end()
    shutil.rmtree(ctx.home / "clusters" / cluster.id, ignore_errors=True)
    verified = f"{cluster.provider}: listed again, no resource of {cluster.name} is left"
    return Destroyed(tuple(resource.label for resource in gone), (*absent, verified))


def start_everything(ctx: Context, record: Record) -> None:
    """Start what does not run of machines that are not rented; raise HostKeyError for a wrong host key."""
    cluster = record.cluster.whole
    provider = ctx.provider_for(cluster.provider)
    if provider.cloud:
        return
    machines = tuple(resource for resource in record.resources if resource.ref)
    for machine in machines:
        provider.start(machine)
    with contextlib.suppress(Unreachable):  # the stages say which node does not answer
        provider.hosts(cluster, machines)
    meet(ctx.transport, hosts_of(cluster))


def refuse_wrong_account(ctx: Context, record: Record) -> None:
    """Raise InputError where the cluster lives in another account.  Asks nobody while the key is the same."""
    cluster = record.cluster
    cloud = ctx.provider_for(cluster.provider).cloud
    if cloud and cluster.bill and cluster.bill.account not in {"", cloud.account}:
        refuse_another_account(replace(_seen(record), account=ask(cloud)))


def delete(
    ctx: Context, record: Record, resources: tuple[Resource, ...]
) -> tuple[tuple[Resource, ...], Mapping[str, RainDeployError]]:
    """Delete resources, the last made first.  Return what is gone, and why the others are not, by name.

    A kind is tried once all of those made after it are gone: a group cannot go before its machines.
    """
    provider = ctx.provider_for(record.cluster.provider)
    return _by_kind(resources, lambda one: delete_one(provider, record, one))


def delete_found(provider: Provider, resources: tuple[Resource, ...]) -> Mapping[str, RainDeployError]:
    """Delete resources that no record here knows, the last made first; return why some are not gone."""
    return _by_kind(resources, provider.delete)[1]


LAG_S = 60.0
"""How long a list may still show what was observed to be gone."""
PAUSE_S = 2.0


def still_listed(
    cloud: Cloud, deleted: Collection[Key], *, clock: Callable[[], float], pause: Callable[[float], None]
) -> Mapping[Key, Group]:
    """Return what the account lists, by group, once it no longer shows what was deleted or LAG_S are over."""
    deadline_s = clock() + LAG_S
    while True:
        listed = groups(cloud.survey())
        if clock() > deadline_s or not listed.keys() & set(deleted):
            return listed
        pause(PAUSE_S)


def _by_kind(
    resources: tuple[Resource, ...], delete_it: Callable[[Resource], None]
) -> tuple[tuple[Resource, ...], Mapping[str, RainDeployError]]:
    gone: list[Resource] = []
    errors: Mapping[str, RainDeployError] = {}
    for _, of_kind in itertools.groupby(reversed(resources), key=lambda resource: resource.kind):
        group = tuple(of_kind)[::-1]
        errors = fan_out(group, delete_it, finish=True).errors
        gone += [resource for resource in group if resource.name not in errors]
        if errors:
            break
    return tuple(gone), errors


def delete_unrecorded(provider: Provider, cluster: Cluster, kept: Collection[str]) -> tuple[str, ...]:
    """Delete the machines that the account lists of a cluster, except ``kept``; nothing is recorded.

    Returns their names.  Raises DownIncomplete, ApiError, CredentialsError.
    """
    listed = (resource for resource in provider.list(cluster.owner) if resource.cluster_id == cluster.id)
    machines = tuple(r for r in listed if r.is_machine and r.name not in kept)
    fan_out(machines, provider.delete, finish=True).require()
    return tuple(machine.name for machine in machines)


def end_nodes(ctx: Context, cluster: Cluster, nodes: tuple[Node, ...]) -> None:
    """End what runs on nodes of a cluster that goes on without them.

    A rented machine is deleted next, so it need not answer; others must.
    """
    provider = ctx.provider_for(cluster.provider)
    cluster = cluster.whole
    stop = {node.name: stop_stage(cluster, node) for node in nodes}
    if provider.cloud:
        with contextlib.suppress(RainDeployError):
            try_stages(ctx, cluster, "stop", stop)
        return
    try_stages(ctx, cluster, "stop", stop).require()
    if not provider.traits.shared_machine:
        files = remove_stage(cluster, wall=provider.traits.needs_wall)
        try_stages(ctx, cluster, "remove", {node.name: files for node in nodes}).require()


def _end_everything(ctx: Context, provider: Provider, record: Record) -> tuple[str, ...]:
    """End all services and remove all files; return what was found absent.

    There are two barriers: nothing of the cluster runs anywhere before its files are removed.
    """
    cluster = record.cluster.whole
    start_everything(ctx, record)
    stop = {node.name: stop_stage(cluster, node) for node in cluster.nodes}
    remove = remove_stage(cluster, wall=provider.traits.needs_wall)
    lines: list[str] = []
    for name, stages in (("stop", stop), ("remove", dict.fromkeys(stop, remove))):
        outcomes = try_stages(ctx, cluster, name, stages)
        if outcomes.errors:
            raise _incomplete(cluster, outcomes.errors)
        lines += [line for node in cluster.nodes for line in _absent(node, outcomes.values[node.name])]
    return tuple(lines)


def _absent(node: Node, report: StageReport) -> list[str]:
    return [f"{node.name}: no {line}" for line in report.values("absent")]


def _incomplete(cluster: Cluster, errors: Mapping[str, RainDeployError]) -> RainDeployError:
    name, first = next(iter(errors.items()))
    kind = Unproved if isinstance(first, Unreachable) else DownIncomplete
    if isinstance(first, HostKeyError):
        return first
    return kind(
        f"down of {cluster.name} is not complete on {', '.join(errors)}: {first.message}",
        node=name,
        details=first.details,
        still_running=f"what rain-deploy started on {', '.join(errors)}",
        next_step=f"rain-deploy down -c {cluster.name}",
    )


def _list(provider: Provider, cluster: Cluster) -> tuple[Resource, ...]:
    """What the provider itself finds of the cluster."""
    return tuple(r for r in provider.list(cluster.owner) if r.cluster_id == cluster.id)


def _seen(record: Record) -> Seen:
    cluster = record.cluster
    spec = ClusterSpec(cluster.name, cluster.provider, "as recorded")
    return Seen(spec, cluster, recorded=True, resources=record.resources, now_s=0.0)
