"""The undo of an ``up`` that was stopped or failed: what it made goes, what was there before stays."""

from __future__ import annotations

from rain_deploy.core.events import Notice
from rain_deploy.core.model import Cluster, ResourceRef
from rain_deploy.errors import RainDeployError
from rain_deploy.flows.context import Context
from rain_deploy.flows.down import tear_down
from rain_deploy.flows.stages import run_stages, try_stages
from rain_deploy.ops.services import start_stage
from rain_deploy.ops.teardown import remove_stage, stop_stage
from rain_deploy.providers.base import Provider


def undo(
    ctx: Context,
    provider: Provider,
    before: Cluster,
    error: BaseException,
    kept: tuple[ResourceRef, ...] | None,
) -> None:
    """Take away what ``up`` made.  A second error is told and never hides the first.

    ``kept``: resources that the cluster had before; None for a new cluster, which goes as a whole.
    """
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
    names = tuple(resource.name for resource in added)
    ctx.emit(Notice(f"up did not end well; removing {', '.join(names)} of {before.name}"))
    now = ctx.store.cluster(before.name) or before
    fresh = [node for node in now.nodes if node.name in names]
    stages = [("stop", {node.name: stop_stage(now, node) for node in fresh})]
    if not provider.traits.shared_machine:
        remove = remove_stage(now, wall=provider.traits.needs_wall)
        stages.append(("remove", {node.name: remove for node in fresh}))
    for name, of_nodes in stages:
        try_stages(ctx, now, name, of_nodes).require()
    for resource in added:
        provider.delete(resource)
        ctx.store.forget_resource(resource)
    ctx.store.save_cluster(before)
    if fresh:
        server = start_stage(before, before.server, probe=False)
        run_stages(ctx, before, "start", {before.server.name: server})
