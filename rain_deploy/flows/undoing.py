"""The undo of an ``up`` that was stopped or failed: what it made goes, what was there before stays."""

from __future__ import annotations

from dataclasses import replace

from rain_deploy.core.events import Notice
from rain_deploy.core.model import Cluster, ResourceRef
from rain_deploy.errors import RainDeployError
from rain_deploy.fleet.fanout import Outcomes
from rain_deploy.flows.context import Context
from rain_deploy.flows.down import tear_down
from rain_deploy.flows.machines import is_machine
from rain_deploy.flows.removing import end_nodes, remove, without
from rain_deploy.flows.stages import run_stages
from rain_deploy.ops.services import start_stage
from rain_deploy.providers.base import Provider


def undo(
    ctx: Context,
    provider: Provider,
    before: Cluster,
    error: BaseException,
    kept: tuple[ResourceRef, ...] | None,
    *,
    keep: bool,
) -> None:
    """Take away what ``up`` made.  A second error is told and never hides the first.

    ``kept``: resources that the cluster had before; None for a new cluster, which goes as a whole.
    ``keep`` (--keep-partial): all stays, and the error says so.
    """
    if keep:
        _say_what_stays(ctx, before, error)
        return
    ours = f"what up made of {before.name}"
    try:
        if kept is None:
            ctx.emit(Notice(f"up did not end well; removing {ours}"))
            tear_down(ctx, ctx.store.cluster(before.name) or before, discard_results=True)
        elif before.up:
            _shrink(ctx, provider, before, {resource.name for resource in kept})
    except RainDeployError as second:
        next_step = f"rain-deploy down -c {before.name}"
        if isinstance(error, RainDeployError):
            error.still_running = f"{ours}: {second.message}"
            error.next_step = next_step
        else:
            ctx.emit(Notice(f"not all is removed of {ours}: {second.message}; next: {next_step}"))


def _shrink(ctx: Context, provider: Provider, before: Cluster, kept: set[str]) -> None:
    """A living cluster without the nodes that this ``up`` added; its server no longer waits for them."""
    added = tuple(r for r in ctx.store.resources(before.id) if r.name not in kept)
    if not added:
        return
    names = tuple(resource.name for resource in added if is_machine(resource.name))
    ctx.emit(Notice(f"up did not end well; removing {', '.join(names)} of {before.name}"))
    now = ctx.store.cluster(before.name) or before
    fresh = tuple(node for node in now.nodes if node.name in names)
    end_nodes(ctx, provider, now, fresh)
    gone, failed = remove(ctx, provider, added)
    ctx.store.save_cluster(replace(before, meters=without(now, gone).meters))
    Outcomes({}, failed).require()
    if fresh:
        server = start_stage(before, before.server, probe=False)
        run_stages(ctx, before, "start", {before.server.name: server})


def _say_what_stays(ctx: Context, before: Cluster, error: BaseException) -> None:
    made = [f"{r.kind} {r.name}" for r in ctx.store.resources(before.id)]
    stays = f"what up made of {before.name} (--keep-partial): {', '.join(made) or 'nothing'}"
    next_step = f"rain-deploy up -c {before.name} to go on, or rain-deploy down -c {before.name}"
    if isinstance(error, RainDeployError):
        error.still_running, error.next_step = stays, next_step
    else:
        ctx.emit(Notice(f"{stays}; next: {next_step}"))
