"""Destroy: end what runs, delete everything of a cluster, look again, and certify that nothing is left."""

import contextlib
import itertools
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from rain_deploy import errors
from rain_deploy.cluster.context import Context
from rain_deploy.cluster.hosts import run_stages
from rain_deploy.cluster.plan import Plan, plan_down
from rain_deploy.core.cluster import Cluster, Node
from rain_deploy.core.events import Notice
from rain_deploy.core.machine import ASLEEP, Resource, by_number
from rain_deploy.core.text import hour
from rain_deploy.fleet.fanout import Outcomes, connect_all, fan_out
from rain_deploy.parts.services import remove_stage, start_stage, stop_stage
from rain_deploy.providers.base import Provider
from rain_deploy.state.store import Record

Gone = tuple[tuple[Resource, ...], Mapping[str, errors.RainDeployError]]
"""Resources that are gone, and why others are not, by name."""


def destroy(ctx: Context, record: Record) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Delete the cluster and forget it; return what was deleted, and what was then looked at and absent.

    Raises what could not be deleted or proved to be gone.
    """
    cluster = record.cluster.whole
    provider = ctx.provider_for(cluster.provider)
    absent = list[str]()
    if provider.cloud is None and cluster.nodes:  # a rented machine takes everything with it
        try:
            absent = _end_everything(ctx, provider, record)
        except errors.RainDeployError:
            if not provider.traits.owned:  # a machine of ours takes everything with it too
                raise
    gone, verified = forget(ctx, record)
    return gone, (*absent, verified)


def forget(ctx: Context, record: Record) -> tuple[tuple[str, ...], str]:
    """Delete the resources of a cluster on which nothing runs, and forget it; return which, and the proof."""
    cluster = record.cluster.whole
    provider = ctx.provider_for(cluster.provider)
    everything = plan_down(cluster, record.resources, provider.list(cluster.owner))
    record.change(up=False)  # from here on it does not live, also when this command is killed
    gone, failed = delete(ctx, record, everything)
    left = [resource.label for resource in _listed(provider, cluster)]
    if failed or left:
        reasons = "; ".join([*(error.message for error in failed.values()), *left])
        raise errors.DownIncomplete(
            f"down of {cluster.name} is not complete: {reasons}",
            still_running=", ".join(left) or None,
            next_step=f"rain-deploy down -c {cluster.name}",
        )
    forget_record(ctx, record)
    verified = f"{cluster.provider}: listed again, no resource of {cluster.name} is left"
    return tuple(resource.label for resource in gone), verified


def forget_record(ctx: Context, record: Record) -> None:
    """Forget a cluster, and the private keys of its machines."""
    keys = ctx.home / "clusters" / record.cluster.id
    record.end()
    shutil.rmtree(keys, ignore_errors=True)


def start_everything(ctx: Context, record: Record) -> None:
    """Start what does not run of machines that are not rented; raise HostKeyError for a wrong host key."""
    cluster = record.cluster.whole
    if cluster.bill or (provider := ctx.provider_for(cluster.provider)).cloud:
        return  # without a look at the account, whose key may be gone
    machines = tuple(resource for resource in record.resources if resource.ref)
    for machine in machines:
        provider.start(machine)
    with contextlib.suppress(errors.Unreachable):  # the stages say which node does not answer
        provider.hosts(cluster, machines)
    connect_all(ctx.transport, tuple(node.host for node in cluster.nodes))


def delete(ctx: Context, record: Record, resources: tuple[Resource, ...]) -> Gone:
    """Delete resources, and forget each once it is observed to be gone."""
    provider = ctx.provider_for(record.cluster.provider)

    def delete_one(resource: Resource) -> None:
        provider.delete(resource)
        record.forget(resource)

    return by_kind(resources, delete_one)


def by_kind(resources: tuple[Resource, ...], delete_one: Callable[[Resource], None]) -> Gone:
    """Delete resources, the last made first.

    A kind is tried once all of those made after it are gone: a group cannot go before its machines.
    """
    gone: list[Resource] = []
    failed: Mapping[str, errors.RainDeployError] = {}
    for _, of_kind in itertools.groupby(reversed(resources), key=lambda resource: resource.kind):
        group = tuple(of_kind)[::-1]
        failed = fan_out(group, delete_one, finish=True).errors
        gone += [resource for resource in group if resource.name not in failed]
        if failed:
            break
    return tuple(gone), failed


def end_nodes(ctx: Context, cluster: Cluster, nodes: tuple[Node, ...]) -> None:
    """End what runs on nodes of a cluster that continues without them.

    A rented machine is deleted next, so it need not answer; others must.
    """
    provider, cluster = ctx.provider_for(cluster.provider), cluster.whole
    stop = {node.name: stop_stage(cluster, node) for node in nodes}
    if provider.cloud:
        with contextlib.suppress(errors.RainDeployError):
            run_stages(ctx, cluster, stop)
        return
    run_stages(ctx, cluster, stop).require()
    if not provider.traits.shared_machine:
        files = remove_stage(cluster, wall=provider.traits.needs_wall)
        run_stages(ctx, cluster, dict.fromkeys(stop, files)).require()


def _end_everything(ctx: Context, provider: Provider, record: Record) -> list[str]:
    """End all services and remove all files; return what was found absent.

    There are two barriers: nothing of the cluster runs anywhere before its files are removed.
    """
    cluster = record.cluster.whole
    start_everything(ctx, record)
    stop = {node.name: stop_stage(cluster, node) for node in cluster.nodes}
    remove = remove_stage(cluster, wall=provider.traits.needs_wall)
    absent: list[str] = []
    for stages in (stop, dict.fromkeys(stop, remove)):
        outcomes = run_stages(ctx, cluster, stages)
        if outcomes.errors:
            name, first = next(iter(outcomes.errors.items()))
            if isinstance(first, errors.HostKeyError):
                raise first
            names = ", ".join(outcomes.errors)
            raise (errors.NotVerified if isinstance(first, errors.Unreachable) else errors.DownIncomplete)(
                f"down of {cluster.name} is not complete on {names}: {first.message}",
                node=name,
                details=first.details,
                still_running=f"what rain-deploy started on {names}",
                next_step=f"rain-deploy down -c {cluster.name}",
            )
        reports = ((name, outcomes.values[name]) for name in stop)
        absent += [f"{name}: no {line}" for name, report in reports for line in report.values("absent")]
    return absent


def _listed(provider: Provider, cluster: Cluster) -> tuple[Resource, ...]:
    return tuple(r for r in provider.list(cluster.owner) if r.cluster_id == cluster.id)


@contextlib.contextmanager
def undone(ctx: Context, record: Record, plan: Plan, *, keep: bool) -> Iterator[None]:
    """Undo an ``up`` inside that is stopped or fails: what it made goes, what was there before stays.

    A second failure is reported and never hides the first.  ``keep`` (--keep-partial): everything stays, and
    the error says so.
    """
    try:
        yield
    except BaseException as error:
        name = plan.cluster.name
        made, next_step = f"what up created for {name}", f"rain-deploy down -c {name}"
        if keep and record.known:
            left = f"{made} (--keep-partial): {', '.join(r.label for r in record.resources) or 'nothing'}"
            notice, next_step = left, f"rain-deploy up -c {name} to continue, or {next_step}"
        elif why := _undo(ctx, record, plan):
            left, notice = f"{made}: {why}", f"not all of {made} could be deleted: {why}"
        else:
            raise
        if isinstance(error, errors.RainDeployError):
            error.still_running, error.next_step = left, next_step
        else:
            ctx.emit(Notice(f"{notice}; next: {next_step}"))
        raise


def _undo(ctx: Context, record: Record, plan: Plan) -> str:
    """Undo what was done of the plan; return why not all of it is undone, empty where it is."""
    try:
        if plan.seen.recorded:
            _take_back(ctx, record, plan)
        elif record.known:
            ctx.emit(Notice(f"deleting what up created for {plan.cluster.name}: up did not finish"))
            destroy(ctx, record)
    except errors.RainDeployError as error:
        if not (isinstance(error, errors.StateError) and plan.cluster.bill):
            return error.message
        # Nothing can be recorded any more, and machines cost: they are deleted all the same.
        provider = ctx.provider_for(plan.cluster.provider)
        kept = {resource.name for resource in plan.seen.resources}
        try:
            listed = _listed(provider, plan.cluster)
            machines = tuple(found for found in listed if found.is_machine and found.name not in kept)
            fan_out(machines, provider.delete, finish=True).require()
        except errors.RainDeployError as second:
            return f"{error.message}; {second.message}"
        names = ", ".join(machine.name for machine in machines)
        return f"{error.message}; everything that costs is deleted ({names or 'there was no machine'})"
    return ""


def _take_back(ctx: Context, record: Record, plan: Plan) -> None:
    """Leave the cluster without the machines that this ``up`` added; its server stops waiting for them.

    It is recorded as it was, with its machines as they are: keys, addresses and meters may be new.
    """
    now, was = record.cluster, plan.seen.cluster
    kept = {(resource.kind, resource.name) for resource in plan.seen.resources}
    added = tuple(r for r in record.resources if (r.kind, r.name) not in kept)
    names = {resource.name for resource in added if resource.is_machine}
    nodes = {node.name: node for node in now.every_node}

    def as_now(node: Node) -> Node:
        known = nodes.get(node.name, node)
        return replace(node, host=known.host, cluster_address=known.cluster_address)

    before = now.without(names)
    started = [machine.name for machine in plan.start if machine.state in ASLEEP]
    if was.up:
        bill = replace(was.bill, meters=now.bill.meters) if was.bill and now.bill else now.bill
        if started and now.bill:  # they have the new time limit
            bill = replace(now.bill, moving=True)
        gone = {machine.name for machine in plan.delete}
        before = replace(was.without(gone).with_nodes(as_now), bill=bill)
    record.save(before)
    if started:
        limit_s = before.limit_s
        until = f"stays on until {hour(limit_s, time.time())}" if limit_s else "has no time limit"
        ctx.emit(Notice(f"{', '.join(by_number(started))} of {was.name} was started and {until}"))
    if not added:
        return
    ctx.emit(Notice(f"deleting {', '.join(by_number(names))} of {was.name} again: up did not finish"))
    fresh = tuple(node for node in now.nodes if node.name in names)
    if not plan.cluster.bill:  # a rented machine that goes needs no more
        end_nodes(ctx, now, fresh)
    _, failed = delete(ctx, record, added)
    Outcomes({}, failed).require()
    if fresh and before.up:
        server = before.server
        run_stages(ctx, before, {server.name: start_stage(before, server, probe=False)}).require()
