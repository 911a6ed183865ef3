"""A stage on some nodes of a cluster: what ties ops, fleet and transport together."""

from __future__ import annotations

from collections.abc import Mapping

from rain_deploy.core.model import Cluster
from rain_deploy.core.plan import Stage
from rain_deploy.fleet.execute import StageReport, StageWork, run_stage
from rain_deploy.fleet.fanout import Outcomes
from rain_deploy.flows.context import Context
from rain_deploy.ops.stage import stage_command


def try_stages(
    ctx: Context, cluster: Cluster, name: str, stages: Mapping[str, Stage]
) -> Outcomes[StageReport]:
    """One stage on the nodes that have one; every outcome is kept."""
    if not stages:
        return Outcomes({}, {})
    hosts = {node.name: node.host for node in cluster.nodes}
    works = {
        node: StageWork(
            hosts[node],
            stage_command(stage, cluster.base, hosts[node].installer_env),
            tuple(step.name for step in stage.steps),
        )
        for node, stage in stages.items()
    }
    return run_stage(ctx.transport, name, works, ctx.emit)


def run_stages(
    ctx: Context, cluster: Cluster, name: str, stages: Mapping[str, Stage]
) -> Mapping[str, StageReport]:
    """One stage on the nodes that have one; any that fails ends the command, all are told."""
    return try_stages(ctx, cluster, name, stages).require()
