"""``run``: ship the script and what it needs, queue it, follow it, bring everything home."""

from __future__ import annotations

import shlex
import time
from dataclasses import replace
from pathlib import Path

from rain_deploy.core.command import Command
from rain_deploy.core.events import Notice, RunChanged
from rain_deploy.core.layout import RUN_PORTS
from rain_deploy.core.model import Cluster, Host, RunRecord, RunState
from rain_deploy.core.shipment import Shipment
from rain_deploy.core.spec import RunSpec
from rain_deploy.errors import UsageError
from rain_deploy.flows.clusters import living, run_states, unfinished
from rain_deploy.flows.context import Context
from rain_deploy.flows.ending import end_of
from rain_deploy.flows.following import follow, refused
from rain_deploy.flows.results import RunResult
from rain_deploy.flows.stages import run_stages
from rain_deploy.ops.script import ship_stage
from rain_deploy.ops.services import layout_of, node_argv, node_command
from rain_deploy.results.pull import check_target
from rain_deploy.shipping import ASK_ABOVE_BYTES, collect, payload

NAMES_SHOWN = 5
"""Of what is shipped, before "and N more"."""


def run(ctx: Context, name: str, run_spec: RunSpec) -> RunResult:
    """Run the script on the cluster and return with its results here, or at once with ``detach``."""
    cluster = living(ctx, name)
    shipment = collect(run_spec.script, ctx.cwd, run_spec.files, never=(ctx.home,))
    _agree(ctx, shipment)
    with ctx.store.lock(cluster.name, "run"):
        record = _record(ctx, cluster, run_spec, shipment)
        ship(ctx, cluster, record, run_spec, shipment)
        ctx.store.save_run(record)
        ctx.emit(RunChanged(record.id, RunState.SHIPPED, f"results go to {record.out}"))
        first = queue_command(cluster, record, run_spec)
        if run_spec.detach:
            return _detached(ctx, cluster, record, first)
    state = follow(ctx, cluster, record, first=first)
    return end_of(ctx, cluster, record, state)


def _agree(ctx: Context, shipment: Shipment) -> None:
    for sentence in shipment.missing:
        ctx.emit(Notice(sentence))
    names = ", ".join(file.path for file in shipment.files[:NAMES_SHOWN])
    rest = len(shipment.files) - NAMES_SHOWN
    more = f" and {rest} more" if rest > 0 else ""
    ctx.emit(Notice(f"ships {names}{more}: {len(shipment.files)} files, {shipment.total_bytes} bytes"))
    if shipment.total_bytes > ASK_ABOVE_BYTES:
        size_mb = shipment.total_bytes / 1e6
        if not ctx.confirm(f"{size_mb:.0f} MB would be sent to every node. Go on?"):
            raise UsageError("nothing was sent and nothing was started")


def _record(ctx: Context, cluster: Cluster, spec: RunSpec, shipment: Shipment) -> RunRecord:
    created_s = time.time()
    sequence = ctx.store.next_sequence()
    stem = "".join(c if c.isalnum() else "-" for c in Path(shipment.script).stem)[:40]
    run_id = f"{time.strftime('%Y%m%d-%H%M%S', time.localtime(created_s))}-{sequence}-{stem}"
    out = (spec.out or ctx.cwd / "results" / run_id).absolute()
    check_target(out, run_id)
    return RunRecord(
        id=run_id,
        cluster_id=cluster.id,
        cluster=cluster.name,
        sequence=sequence,
        port=RUN_PORTS[sequence % len(RUN_PORTS)],
        script=shipment.script,
        args=spec.args,
        script_sha256=shipment.script_sha256,
        created_s=created_s,
        out=out,
        shipped=shipment.digests,
    )


def ship(ctx: Context, cluster: Cluster, record: RunRecord, spec: RunSpec, shipment: Shipment) -> None:
    """Bring the run to all nodes; any node that it does not reach ends the command, nothing is queued."""
    recorded_unfinished = [r.id for r in ctx.store.runs(cluster.name) if r.state != RunState.FINISHED]
    live = unfinished(run_states(ctx, cluster)) if recorded_unfinished else ()
    stage = ship_stage(layout_of(cluster), record, spec, shipment, payload(shipment), live=live)
    run_stages(ctx, cluster, "ship", {node.name: stage for node in cluster.nodes})


def queue_command(cluster: Cluster, record: RunRecord, spec: RunSpec) -> Command:
    """Queue the run and, unless detached, follow it: one exec."""
    run_dir = layout_of(cluster).run(record.id)
    flags = () if spec.wait else ("--no-wait",)
    if spec.detach:
        return node_command(cluster, "queue", run_dir, *flags)
    queue = shlex.join(node_argv(cluster, "queue", run_dir, *flags))
    follow_it = shlex.join(node_argv(cluster, "follow", run_dir))
    return Command(("sh", "-c", f"{queue} >&2 && exec {follow_it}"), deadline_s=None)


def _detached(ctx: Context, cluster: Cluster, record: RunRecord, queue: Command) -> RunResult:
    host: Host = cluster.server.host
    result = ctx.transport.run(host, queue)
    if result.exit_status != 0:
        raise refused(record, result.exit_status, result.stderr)
    ctx.store.save_run(replace(record, state=RunState.QUEUED))
    return RunResult(
        cluster=cluster.name,
        run=record.id,
        state=RunState.QUEUED,
        outcome="",
        exit_code=None,
        results_dir=record.out,
        seconds=0.0,
        detached=True,
    )
