"""The last part of ``up``: the wall, then services, then the proof through Rain itself."""

from __future__ import annotations

from rain_deploy.core.events import Notice
from rain_deploy.core.model import Cluster, Facts, Node
from rain_deploy.core.plan import Stage
from rain_deploy.flows.context import Context
from rain_deploy.flows.stages import run_stages
from rain_deploy.ops.services import layout_of, node_config_sha256, start_stage
from rain_deploy.ops.wall import needs_wall, wall_steps
from rain_deploy.providers.base import Provider


def start(
    ctx: Context, cluster: Cluster, facts: dict[str, Facts], *, grown: bool
) -> tuple[int, tuple[str, ...]]:
    """Wall, configuration and services where they are not as they should be; then the proof through Rain.

    Returns how many processes were started, and a sentence for each change.
    """
    active = facts[cluster.server.name].active_run
    if active:
        ctx.emit(Notice(f"run {active} is active: nothing is restarted, new nodes join after it"))
    stages = {
        node.name: start_stage(cluster, node, probe=not active)
        for node in cluster.nodes
        if _is_stale(cluster, node, facts[node.name]) or (grown and node is cluster.server)
    }
    if stages and cluster.server.name not in stages:
        stages[cluster.server.name] = start_stage(cluster, cluster.server, probe=not active)
    reports = run_stages(ctx, cluster, "start", stages)
    started = sum(len(report.values("started")) for report in reports.values())
    lines = tuple(
        f"{name}: started {service}"
        for name, report in reports.items()
        for service in report.values("started")
    )
    return started, lines


def _is_stale(cluster: Cluster, node: Node, facts: Facts) -> bool:
    services = {"governor", "supervisor"} if node is cluster.server else {"governor"}
    configured = facts.node_config_sha256 == node_config_sha256(cluster, node)
    return not configured or bool(services - set(facts.running))


def build_wall(
    ctx: Context, provider: Provider, cluster: Cluster, facts: dict[str, Facts], trust: tuple[str, ...]
) -> None:
    """Close the Rain ports before anything listens there."""
    if not provider.traits.needs_wall:
        return
    addresses = {node.name: node.cluster_address for node in cluster.nodes}
    if needs_wall(addresses, facts, trust):
        steps = wall_steps(layout_of(cluster), addresses)
        run_stages(ctx, cluster, "wall", {node.name: Stage("wall", steps) for node in cluster.nodes})
