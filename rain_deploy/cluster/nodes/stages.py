"""Runs a stage on nodes of a cluster, and keeps a log of what it printed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from rain_deploy.cluster.context import Context
from rain_deploy.core.cluster import Cluster
from rain_deploy.core.events import Event, EventSink, Progress, StepDone
from rain_deploy.core.step import Stage
from rain_deploy.fleet.executor import StageReport
from rain_deploy.fleet.fanout import Outcomes


def try_stages(
    ctx: Context, cluster: Cluster, name: str, stages: Mapping[str, Stage]
) -> Outcomes[StageReport]:
    """Run stage ``name`` on the nodes that have one; every outcome is kept.

    Raises HostKeyError, before anything is done on any node, if one of them has a wrong key.
    """
    if not stages:
        return Outcomes({}, {})
    assert {stage.name for stage in stages.values()} == {name}
    hosts = {node.host: stages[node.name] for node in cluster.nodes if node.name in stages}
    with _logged(ctx, cluster) as emit:
        return ctx.executor.run(hosts, cluster.base, emit)


def run_stages(
    ctx: Context, cluster: Cluster, name: str, stages: Mapping[str, Stage]
) -> Mapping[str, StageReport]:
    """Run stage ``name`` on the nodes that have one.  Any failure ends the command; its error names all."""
    return try_stages(ctx, cluster, name, stages).require()


@contextlib.contextmanager
def _logged(ctx: Context, cluster: Cluster) -> Iterator[EventSink]:
    """Also write events to the cluster's log on this machine, which ``logs --install`` shows."""
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
    """Return the file with what stages printed on the cluster's nodes, each line with its node's name."""
    return ctx.home / "clusters" / cluster.id / "install.log"
