"""``scale``: a living cluster with more or fewer nodes; those that stay are not touched by a failure."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.install import wall_stages
from rain_deploy.cluster.limits import move_limit
from rain_deploy.cluster.lookup import NodeLine, living, node_lines
from rain_deploy.cluster.machines import remembering
from rain_deploy.cluster.removing import end_nodes, remove
from rain_deploy.cluster.stages import run_stages, try_stages
from rain_deploy.core.cluster import Cluster, Node
from rain_deploy.core.events import Notice
from rain_deploy.core.result import Result
from rain_deploy.core.spec import ClusterSpec
from rain_deploy.errors import (
    DownIncomplete,
    InputError,
    RainDeployError,
)
from rain_deploy.parts.services import start_stage
from rain_deploy.parts.teardown import stop_stage
from rain_deploy.providers.base import Provider
from rain_deploy.runs.states import run_states, unfinished
from rain_deploy.verbs.up import converge


@dataclass(frozen=True, slots=True)
class ScaleResult(Result):
    """``scale``: ``added`` and ``removed`` empty mean that the cluster had this size."""

    cluster: str
    before: int
    after: int
    added: tuple[str, ...]
    removed: tuple[str, ...]
    nodes: tuple[NodeLine, ...]
    seconds: float
    per_hour: float | None = None
    """Of all machines of the cluster while they run; None where nothing is priced."""
    currency: str = ""
    limit_s: float | None = None
    """When they power themselves off; None: never."""


def scale(ctx: Context, spec: ClusterSpec, n: int) -> ScaleResult:
    """``n`` nodes: the highest go, or new ones come as by ``up``.

    Raises InputError while a run waits or runs and nodes would go; DownIncomplete where one did not.
    """
    started_s = time.monotonic()
    before = living(ctx, spec.name)
    spec = replace(spec, provider=before.provider, nodes=n)
    provider = ctx.provider_for(before.provider)
    with ctx.store.lock(spec.name, "scale"):
        cluster = _shrunk(ctx, provider, spec, n)
    if len(cluster.nodes) < n:
        converge(ctx, spec)
    with ctx.store.lock(spec.name, "scale"):
        cluster = _follow_cost(ctx, provider, spec.name)
    names, had = ({node.name: None for node in one.nodes} for one in (cluster, before))
    return ScaleResult(
        cluster=spec.name,
        before=len(before.nodes),
        after=len(cluster.nodes),
        added=tuple(name for name in names if name not in had),
        removed=tuple(name for name in had if name not in names),
        nodes=node_lines(cluster, "ready"),
        seconds=time.monotonic() - started_s,
        per_hour=cluster.bill.per_hour if cluster.bill else None,
        currency=cluster.bill.currency if cluster.bill else "",
        limit_s=cluster.limit_s,
    )


def _shrunk(ctx: Context, provider: Provider, spec: ClusterSpec, n: int) -> Cluster:
    """Without the nodes above ``n``, also those that an earlier ``scale`` left half removed."""
    cluster = living(ctx, spec.name)
    trust = remembering(spec, cluster).machines.trust_networks
    leaving = tuple(node for node in cluster.every_node if node.host.index > n)
    machines = tuple(r for r in ctx.store.resources(cluster.id) if r.is_machine and r.index > n)
    if not (leaving or machines):
        return cluster
    _refuse_while_it_runs(ctx, cluster)
    names = sorted({*(node.name for node in leaving), *(machine.name for machine in machines)})
    ctx.emit(Notice(f"removing {', '.join(names)} of {cluster.name}"))
    _end(ctx, provider, cluster, leaving)
    kept = replace(
        cluster,
        nodes=tuple(node for node in cluster.nodes if node.host.index <= n),
        left_out=tuple({node.name: node for node in (*cluster.left_out, *leaving)}.values()),
    )
    ctx.store.save_cluster(kept)
    gone, failed = remove(ctx, provider, machines)
    left_out = tuple(node for node in kept.left_out if node.host.index <= n or node.name in failed)
    kept = replace(kept.closed(gone, time.time()), left_out=left_out)
    ctx.store.save_cluster(kept)
    run_stages(ctx, kept, "wall", wall_stages(provider, kept, trust))
    run_stages(ctx, kept, "start", {kept.server.name: start_stage(kept, kept.server, probe=True)})
    if failed:
        raise _incomplete(kept, n, failed)
    return kept


def _refuse_while_it_runs(ctx: Context, cluster: Cluster) -> None:
    """Rain ends a run that loses a governor."""
    active = unfinished(run_states(ctx, cluster))
    if active:
        raise InputError(
            f"{', '.join(active)} is not finished on {cluster.name}, and would be lost with a node",
            next_step=f"rain-deploy cancel {active[0]} -c {cluster.name}",
        )


def _end(ctx: Context, provider: Provider, cluster: Cluster, leaving: tuple[Node, ...]) -> None:
    """End what runs on the nodes that go.  A machine that is deleted need not answer for that."""
    known = replace(cluster, nodes=cluster.every_node)
    if provider.cloud is None:
        end_nodes(ctx, provider, known, leaving)
        return
    with contextlib.suppress(RainDeployError):
        try_stages(ctx, known, "stop", {node.name: stop_stage(known, node) for node in leaving})


def _incomplete(cluster: Cluster, n: int, failed: Mapping[str, RainDeployError]) -> DownIncomplete:
    reasons = "; ".join(error.message for error in failed.values())
    return DownIncomplete(
        f"{cluster.name} has {len(cluster.nodes)} nodes, but not all others could be deleted: {reasons}",
        still_running=", ".join(failed),
        next_step=f"rain-deploy scale {n} -c {cluster.name}",
    )


def _follow_cost(ctx: Context, provider: Provider, name: str) -> Cluster:
    """Fewer or more machines spend --max-cost at another hour: every node is told."""
    cluster = living(ctx, name)
    if provider.cloud is not None and cluster.bill and cluster.bill.max_cost is not None:
        cluster = replace(cluster, bill=replace(cluster.bill, limit_s=cluster.bill.limit_at(time.time())))
        move_limit(ctx, provider.cloud, cluster)
    return cluster
