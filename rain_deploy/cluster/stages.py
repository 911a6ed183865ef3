"""A stage on some nodes of a cluster: what ties ops, fleet and transport together."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from rain_deploy.cluster.context import Context
from rain_deploy.core.cluster import Cluster
from rain_deploy.core.events import Event, EventSink, Progress, StepDone
from rain_deploy.core.step import Stage
from rain_deploy.fleet.execute import StageReport, StageWork, run_stage
from rain_deploy.fleet.fanout import Outcomes
from rain_deploy.fleet.reach import meet
from rain_deploy.parts.stage import stage_command


def try_stages(
    ctx: Context, cluster: Cluster, name: str, stages: Mapping[str, Stage]
) -> Outcomes[StageReport]:
    """One stage on the nodes that have one; every outcome is kept.  HostKeyError: nothing was done."""
    if not stages:
        return Outcomes({}, {})
    hosts = {node.name: node.host for node in cluster.nodes}
    works = {
        node: StageWork(
            hosts[node],
            stage_command(stage, cluster.base, hosts[node].installer_env if stage.installs else ()),
            tuple(step.name for step in stage.steps),
        )
        for node, stage in stages.items()
    }
    meet(ctx.transport, tuple(work.host for work in works.values()))
    with _logged(ctx, cluster) as emit:
        return run_stage(ctx.transport, name, works, emit)


@contextlib.contextmanager
def _logged(ctx: Context, cluster: Cluster) -> Iterator[EventSink]:
    """Events of each host also go to its log here, which ``logs --install`` shows."""
    path = install_log(ctx, cluster)
    for directory in (path.parent.parent, path.parent):
        directory.mkdir(mode=0o700, exist_ok=True)
    with path.open("a", encoding="utf-8", errors="backslashreplace") as log:

        def emit(event: Event) -> None:
            if isinstance(event, Progress):
                log.write(f"{event.host} | {event.text}\n")
            elif isinstance(event, StepDone):
                log.write(f"{event.host} | == {event.stage}: {event.step}: {event.outcome}\n")
            ctx.emit(event)

        yield emit


def install_log(ctx: Context, cluster: Cluster) -> Path:
    """What stages printed on the cluster's nodes, each line with its node's name."""
    return ctx.home / "clusters" / cluster.id / "install.log"


def run_stages(
    ctx: Context, cluster: Cluster, name: str, stages: Mapping[str, Stage]
) -> Mapping[str, StageReport]:
    """One stage on the nodes that have one; any that fails ends the command, all are told."""
    return try_stages(ctx, cluster, name, stages).require()
