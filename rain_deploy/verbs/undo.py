"""The undo of an ``up`` that was stopped or failed: what it made goes, what was there before stays."""

from __future__ import annotations

import time
from dataclasses import replace

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.removing import end_nodes, remove, remove_unrecorded
from rain_deploy.cluster.stages import run_stages
from rain_deploy.core.cluster import Cluster, Node
from rain_deploy.core.events import Notice
from rain_deploy.core.machine import Resource
from rain_deploy.errors import RainDeployError, StateError
from rain_deploy.fleet.fanout import Outcomes
from rain_deploy.parts.services import start_stage
from rain_deploy.providers.base import Provider
from rain_deploy.verbs.down import tear_down


def undo(
    ctx: Context,
    provider: Provider,
    before: Cluster,
    error: BaseException,
    kept: tuple[Resource, ...] | None,
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
        else:
            _shrink(ctx, provider, before, {resource.name for resource in kept})
    except RainDeployError as second:
        next_step, why = f"rain-deploy down -c {before.name}", second.message
        if isinstance(second, StateError) and provider.cloud is not None:
            why = _end_cost(provider, before, kept or (), why)
        if isinstance(error, RainDeployError):
            error.still_running = f"{ours}: {why}"
            error.next_step = next_step
        else:
            ctx.emit(Notice(f"not all is removed of {ours}: {why}; next: {next_step}"))


def _end_cost(provider: Provider, before: Cluster, kept: tuple[Resource, ...], why: str) -> str:
    """Where nothing can be recorded any more, machines go all the same; what is left then, in words."""
    try:
        names = remove_unrecorded(provider, before, {resource.name for resource in kept})
    except RainDeployError as error:
        return f"{why}; {error.message}"
    return f"{why}; of what costs all is deleted ({', '.join(names) or 'there was no machine'})"


def _shrink(ctx: Context, provider: Provider, before: Cluster, kept: set[str]) -> None:
    """A cluster without the machines that this ``up`` added; its server no longer waits for them."""
    now = ctx.store.cluster(before.name) or before
    added = tuple(r for r in ctx.store.resources(before.id) if r.name not in kept)
    names = tuple(resource.name for resource in added if resource.is_machine)
    before = _as_before(before, now, names)
    ctx.store.save_cluster(before)
    if not added:
        return
    ctx.emit(Notice(f"up did not end well; removing {', '.join(names)} of {before.name}"))
    fresh = tuple(node for node in now.nodes if node.name in names)
    end_nodes(ctx, provider, now, fresh)
    gone, failed = remove(ctx, provider, added)
    before = before.closed(gone, time.time())
    ctx.store.save_cluster(before)
    Outcomes({}, failed).require()
    if fresh and before.up:
        server = start_stage(before, before.server, probe=False)
        run_stages(ctx, before, "start", {before.server.name: server})


def _as_before(before: Cluster, now: Cluster, added: tuple[str, ...]) -> Cluster:
    """As recorded before ``up``, with its machines as they are: keys, addresses and meters may be new."""
    if not before.up:
        return replace(now, nodes=tuple(node for node in now.nodes if node.name not in added))
    hosts = {node.name: node for node in (*now.nodes, *now.left_out)}

    def with_host(node: Node) -> Node:
        known = hosts.get(node.name, node)
        return replace(node, host=known.host, cluster_address=known.cluster_address)

    nodes = tuple(map(with_host, before.nodes))
    return replace(before, nodes=nodes, left_out=tuple(map(with_host, before.left_out)), bill=now.bill)


def _say_what_stays(ctx: Context, before: Cluster, error: BaseException) -> None:
    made = [f"{r.kind} {r.name}" for r in ctx.store.resources(before.id)]
    stays = f"what up made of {before.name} (--keep-partial): {', '.join(made) or 'nothing'}"
    next_step = f"rain-deploy up -c {before.name} to go on, or rain-deploy down -c {before.name}"
    if isinstance(error, RainDeployError):
        error.still_running, error.next_step = stays, next_step
    else:
        ctx.emit(Notice(f"{stays}; next: {next_step}"))
