"""The last part of ``up``: the wall, then services, then the proof through Rain itself."""

from __future__ import annotations

from dataclasses import replace

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.install import facts_of
from rain_deploy.cluster.stages import run_stages
from rain_deploy.core.cluster import Cluster, Node
from rain_deploy.core.events import Notice
from rain_deploy.core.machine import Facts
from rain_deploy.core.step import Stage
from rain_deploy.parts.services import layout_of, node_config_sha256, start_stage
from rain_deploy.parts.wall import needs_wall, wall_steps
from rain_deploy.providers.base import Provider


def start(ctx: Context, cluster: Cluster, *, grown: bool) -> tuple[int, tuple[str, ...]]:
    """Configuration and services where they are not as they should be, with the proof through Rain.

    Returns how many processes were started, and a sentence for each.
    """
    active = facts_of(cluster)[cluster.server.name].active_run
    if active:
        ctx.emit(Notice(f"run {active} is active: nothing is restarted, new nodes join after it"))
    reports = run_stages(ctx, cluster, "start", start_stages(cluster, grown=grown))
    lines = tuple(
        f"{name}: started {service}"
        for name, report in reports.items()
        for service in report.values("started")
    )
    return len(lines), lines


def started(cluster: Cluster) -> Cluster:
    """The cluster with facts that know what ``start`` has left: a later dry run plans by them."""

    def told(node: Node, facts: Facts) -> Facts:
        sha256, running = node_config_sha256(cluster, node), _services(cluster, node)
        return replace(facts, node_config_sha256=sha256, running=running)

    nodes = (replace(node, facts=told(node, node.facts) if node.facts else None) for node in cluster.nodes)
    return replace(cluster, nodes=tuple(nodes))


def start_stages(cluster: Cluster, *, grown: bool) -> dict[str, Stage]:
    """By node, for those that are not as they should be; the server's, with the probe, whenever any is."""
    facts = facts_of(cluster)
    stale = [node for node in cluster.nodes if _is_stale(cluster, node, facts[node.name])]
    if (stale or grown) and cluster.server not in stale:
        stale.insert(0, cluster.server)
    probe = not facts[cluster.server.name].active_run
    return {node.name: start_stage(cluster, node, probe=probe) for node in stale}


def _is_stale(cluster: Cluster, node: Node, facts: Facts) -> bool:
    configured = facts.node_config_sha256 == node_config_sha256(cluster, node)
    return not configured or not set(_services(cluster, node)) <= set(facts.running)


def _services(cluster: Cluster, node: Node) -> tuple[str, ...]:
    return ("governor", "supervisor") if node is cluster.server else ("governor",)


def wall_stages(provider: Provider, cluster: Cluster, trust: tuple[str, ...]) -> dict[str, Stage]:
    """What closes the Rain ports before anything listens there.  Raises InputError where that cannot be."""
    addresses = {node.name: node.cluster_address for node in cluster.nodes}
    if not provider.traits.needs_wall or not needs_wall(addresses, facts_of(cluster), trust):
        return {}
    return {node.name: Stage("wall", wall_steps(layout_of(cluster), addresses)) for node in cluster.nodes}
