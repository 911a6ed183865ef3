"""Undo an ``up`` that was stopped or failed: what it made goes, what was there before stays."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.destroy import delete, delete_unrecorded, destroy, end_nodes
from rain_deploy.cluster.nodes.stages import run_stages
from rain_deploy.cluster.plan import Plan
from rain_deploy.core.cluster import Cluster, Node
from rain_deploy.core.events import Notice
from rain_deploy.core.machine import Resource
from rain_deploy.errors import RainDeployError, StateError
from rain_deploy.fleet.fanout import Outcomes
from rain_deploy.parts.services import start_stage
from rain_deploy.state.store import Record


@contextlib.contextmanager
def undone(ctx: Context, record: Record, plan: Plan, *, keep: bool) -> Iterator[None]:
    """Undo what happens inside when it fails.  A second failure is reported and never hides the first.

    ``keep`` (--keep-partial): everything stays, and the error says so.
    """
    try:
        yield
    except BaseException as error:
        if keep:
            _report_what_stays(ctx, record, plan, error)
        else:
            _undo(ctx, record, plan, error)
        raise


def _undo(ctx: Context, record: Record, plan: Plan, error: BaseException) -> None:
    name, recorded = plan.cluster.name, plan.seen.recorded
    made = f"what up made of {name}"
    kept = plan.seen.resources if recorded else ()
    try:
        if recorded:
            _shrink(ctx, record, plan, {(resource.kind, resource.name) for resource in kept})
        else:
            ctx.emit(Notice(f"up failed; removing {made}"))
            destroy(ctx, record)
    except RainDeployError as second:
        next_step, why = f"rain-deploy down -c {name}", second.message
        if isinstance(second, StateError) and plan.cluster.bill:
            why = _end_cost(ctx, plan.cluster, kept, why)
        if isinstance(error, RainDeployError):
            error.still_running, error.next_step = f"{made}: {why}", next_step
        else:
            ctx.emit(Notice(f"not everything is removed of {made}: {why}; next: {next_step}"))


def _end_cost(ctx: Context, cluster: Cluster, kept: tuple[Resource, ...], why: str) -> str:
    """Delete machines although nothing can be recorded any more; return what is left, in words."""
    try:
        provider = ctx.provider_for(cluster.provider)
        names = delete_unrecorded(provider, cluster, {resource.name for resource in kept})
    except RainDeployError as error:
        return f"{why}; {error.message}"
    return f"{why}; everything that costs is deleted ({', '.join(names) or 'there was no machine'})"


def _shrink(ctx: Context, record: Record, plan: Plan, kept: set[tuple[str, str]]) -> None:
    """Leave the cluster without the machines that this ``up`` added; its server stops waiting for them."""
    now, was = record.cluster, plan.seen.cluster
    added = tuple(r for r in record.resources if (r.kind, r.name) not in kept)
    names = {resource.name for resource in added if resource.is_machine}
    before = _as_before(was.without({machine.name for machine in plan.delete}), now, names)
    record.save(before)
    if not added:
        return
    ctx.emit(Notice(f"up failed; removing {', '.join(sorted(names))} of {was.name}"))
    fresh = tuple(node for node in now.nodes if node.name in names)
    if not plan.cluster.bill:  # a rented machine that goes needs no more
        end_nodes(ctx, now, fresh)
    _, failed = delete(ctx, record, added)
    Outcomes({}, failed).require()
    if fresh and before.up:
        server = start_stage(before, before.server, probe=False)
        run_stages(ctx, before, "start", {before.server.name: server})


def _as_before(before: Cluster, now: Cluster, added: set[str]) -> Cluster:
    """Return the cluster as it was, with its machines as they are: keys, addresses and meters may be new."""
    if not before.up:
        return now.without(added)
    nodes = {node.name: node for node in now.every_node}

    def with_host(node: Node) -> Node:
        known = nodes.get(node.name, node)
        return replace(node, host=known.host, cluster_address=known.cluster_address)

    bill = before.bill and now.bill and replace(before.bill, meters=now.bill.meters)
    return replace(before.with_nodes(with_host), bill=bill or now.bill)


def _report_what_stays(ctx: Context, record: Record, plan: Plan, error: BaseException) -> None:
    name = plan.cluster.name
    made = ", ".join(resource.label for resource in record.resources) or "nothing"
    stays = f"what up made of {name} (--keep-partial): {made}"
    next_step = f"rain-deploy up -c {name} to go on, or rain-deploy down -c {name}"
    if isinstance(error, RainDeployError):
        error.still_running, error.next_step = stays, next_step
    else:
        ctx.emit(Notice(f"{stays}; next: {next_step}"))
