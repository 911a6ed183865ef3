"""Ships a run and puts it in line: its record, its port, its files on all nodes, the queue command."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.nodes.stages import run_stages
from rain_deploy.core.cluster import Cluster
from rain_deploy.core.layout import RUN_PORTS
from rain_deploy.core.run import RunRecord, RunState, Shipment
from rain_deploy.core.spec import RunSpec
from rain_deploy.core.step import Command
from rain_deploy.errors import Locked, Unreachable
from rain_deploy.parts.run import ship_stage
from rain_deploy.parts.services import layout_of, node_argv, node_command
from rain_deploy.results.landing import check_target
from rain_deploy.runs.follow import refused
from rain_deploy.runs.shipping import payload
from rain_deploy.runs.states import record_states, run_states, runs_of, unfinished


def shipped(ctx: Context, cluster: Cluster, spec: RunSpec, shipment: Shipment) -> RunRecord:
    """Record a new run and ship it to all nodes.  The caller holds the cluster's lock.

    If the run does not reach every node, an error is raised, and nothing is queued or recorded.
    """
    recorded = [record for record in runs_of(ctx, cluster) if record.state != RunState.FINISHED]
    states = run_states(ctx, cluster) if recorded else {}  # the node is asked only where a run may be live
    record_states(ctx, cluster, states)
    active = unfinished(states)
    live = {record.id: record.port for record in recorded if record.id in active}
    record = ctx.store.add_run(
        lambda sequence: _record(ctx, cluster, spec, shipment, sequence=sequence, live=live)
    )
    try:
        names = tuple(node.name for node in cluster.nodes)
        files = payload(shipment)
        stage = ship_stage(layout_of(cluster), record, spec, shipment, files, live=tuple(live), nodes=names)
        run_stages(ctx, cluster, "ship", dict.fromkeys(names, stage))
    except BaseException:
        ctx.store.forget_run(record)
        raise
    return record


def _record(
    ctx: Context,
    cluster: Cluster,
    spec: RunSpec,
    shipment: Shipment,
    *,
    sequence: int,
    live: Mapping[str, int],
) -> RunRecord:
    """Return a new run with a free port, and an id that no other run has, in this home or another."""
    created_s = time.time()
    stem = "".join(c if c.isalnum() else "-" for c in Path(shipment.script).stem)[:40]
    when = time.strftime("%Y%m%d-%H%M%S", time.localtime(created_s))
    run_id = f"{when}-{sequence}-{cluster.id[:4]}-{stem}"
    out = (spec.out or ctx.cwd / "results" / run_id).absolute()
    check_target(out, run_id)
    return RunRecord(
        id=run_id,
        cluster_id=cluster.id,
        cluster=cluster.name,
        sequence=sequence,
        port=_free_port(cluster, sequence, live),
        script=shipment.script,
        args=spec.args,
        script_sha256=shipment.script_sha256,
        created_s=created_s,
        out=out,
    )


def _free_port(cluster: Cluster, sequence: int, live: Mapping[str, int]) -> int:
    """Return the next port that no unfinished run has; all clusters of this home take turns."""
    for turn in range(len(RUN_PORTS)):
        port = RUN_PORTS[(sequence + turn) % len(RUN_PORTS)]
        if port not in live.values():
            return port
    raise Locked(
        f"{len(RUN_PORTS)} runs wait or run on {cluster.name}, and no more fit in line",
        next_step=f"rain-deploy runs -c {cluster.name}",
    )


def queue_and_follow(cluster: Cluster, record: RunRecord, spec: RunSpec) -> Command:
    """Return the command that queues the run and follows it over the same channel."""
    run_dir = layout_of(cluster).run(record.id)
    queue = shlex.join(node_argv(cluster, "queue", run_dir, *_flags(spec)))
    follow = shlex.join(node_argv(cluster, "follow", run_dir))
    return Command(("sh", "-c", f"{queue} && exec {follow}"), deadline_s=None)


def queue(ctx: Context, cluster: Cluster, record: RunRecord, spec: RunSpec) -> RunRecord:
    """Queue the run, do not follow it, and return its record."""
    command = node_command(cluster, "queue", layout_of(cluster).run(record.id), *_flags(spec))
    try:
        result = ctx.transport.run(cluster.server.host, command)
    except Unreachable as error:
        error.still_running = f"run {record.id}, if it came into line before the connection was lost"
        error.next_step = f"rain-deploy runs -c {cluster.name}"
        raise
    if result.exit_status != 0:
        ctx.store.forget_run(record)
        raise refused(record, result.exit_status, result.stderr)
    queued = replace(record, state=RunState.QUEUED)
    ctx.store.save_run(queued)
    return queued


def _flags(spec: RunSpec) -> tuple[str, ...]:
    return () if spec.wait else ("--no-wait",)
