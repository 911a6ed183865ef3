"""``run``: ship the script and what it needs, queue it, follow it, bring everything home."""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.lookup import living
from rain_deploy.cluster.offering import limit_sentence
from rain_deploy.cluster.stages import run_stages
from rain_deploy.core.cluster import Cluster
from rain_deploy.core.command import Command
from rain_deploy.core.events import Event, Notice, RunChanged
from rain_deploy.core.layout import RUN_PORTS
from rain_deploy.core.machine import Host
from rain_deploy.core.run import RunRecord, RunState
from rain_deploy.core.shipment import Shipment
from rain_deploy.core.spec import RunSpec
from rain_deploy.errors import InputError, Locked, Unreachable, UsageError
from rain_deploy.parts.run import ship_stage
from rain_deploy.parts.services import layout_of, node_argv, node_command
from rain_deploy.results.landing import check_target
from rain_deploy.runs.finish import RunResult, end_of, record_state
from rain_deploy.runs.follow import follow, refused
from rain_deploy.runs.shipping import ASK_ABOVE_BYTES, collect, payload
from rain_deploy.runs.states import run_states, unfinished

NAMES_SHOWN = 5
"""Of what is shipped, before "and N more"."""


def run(ctx: Context, name: str, run_spec: RunSpec) -> RunResult:
    """Run the script on the cluster and return with its results here, or at once with ``detach``."""
    cluster = living(ctx, name)
    _heed_limit(ctx, cluster, then_off=run_spec.then_off)
    shipment = collect(run_spec.script, ctx.cwd, run_spec.files, never=(ctx.home,))
    _agree(ctx, shipment)
    with contextlib.ExitStack() as held:
        held.enter_context(ctx.store.lock(cluster.name, "run"))
        live = _unfinished(ctx, cluster)
        record = ctx.store.add_run(
            lambda sequence: _record(ctx, cluster, run_spec, shipment, sequence=sequence, live=live)
        )
        try:
            ship(ctx, cluster, record, run_spec, shipment, live=live)
        except BaseException:
            ctx.store.forget_run(record)
            raise
        ctx.emit(RunChanged(record.id, RunState.SHIPPED, f"results go to {record.out}"))
        first = queue_command(cluster, record, run_spec)
        if run_spec.detach:
            return _detached(ctx, cluster, record, first)
        try:
            state = follow(_releasing(ctx, held), cluster, record, first=first)
        except Locked:
            ctx.store.forget_run(record)
            raise
    return end_of(ctx, cluster, record, state)


def _heed_limit(ctx: Context, cluster: Cluster, *, then_off: bool) -> None:
    """Say the hour at which machines end by themselves.  Raises InputError where it has passed."""
    if cluster.bill is None:
        if then_off:
            raise InputError(
                f"--then-off: machines of provider {cluster.provider} are never powered off",
                next_step="the same command without --then-off",
            )
        return
    if cluster.limit_s is not None and cluster.limit_s <= time.time():
        raise InputError(
            f"the time limit of {cluster.name} has passed: {limit_sentence(cluster)}",
            next_step=f"rain-deploy extend 2h -c {cluster.name}, then rain-deploy up -c {cluster.name}",
        )
    ctx.emit(Notice(limit_sentence(cluster)))
    if then_off:
        off = "--then-off: each machine powers itself off some minutes after the run has ended"
        extend = f"once it has ended, `rain-deploy extend 1h -c {cluster.name}` calls that off"
        ctx.emit(Notice(f"{off}; results stay on the disks; {extend}"))


def _releasing(ctx: Context, held: contextlib.ExitStack) -> Context:
    """Lets go of the cluster's lock at the first word of the run: it is in line."""

    def emit(event: Event) -> None:
        if isinstance(event, RunChanged):
            held.close()
        ctx.emit(event)

    return replace(ctx, emit=emit)


def _agree(ctx: Context, shipment: Shipment) -> None:
    for sentence in shipment.missing:
        ctx.emit(Notice(sentence))
    names = ", ".join(file.path for file in shipment.files[:NAMES_SHOWN])
    rest = len(shipment.files) - NAMES_SHOWN
    more = f" and {rest} more" if rest > 0 else ""
    ctx.emit(Notice(f"ships {names}{more} ({shipment.total_bytes / 1000:.1f} kB)"))
    if shipment.total_bytes > ASK_ABOVE_BYTES:
        size_mb = shipment.total_bytes / 1e6
        if not ctx.confirm(f"{size_mb:.0f} MB would be sent to every node. Go on?"):
            raise UsageError("nothing was sent and nothing was started")


def _unfinished(ctx: Context, cluster: Cluster) -> dict[str, int]:
    """Runs in line on the cluster, with their ports; nobody is asked when all recorded ones are over."""
    recorded = [
        record
        for record in ctx.store.runs(cluster.name)
        if record.cluster_id == cluster.id and record.state != RunState.FINISHED
    ]
    states = run_states(ctx, cluster) if recorded else {}
    active = unfinished(states)
    for record in recorded:
        if record.id in states and record.id not in active:
            record_state(ctx, record, states[record.id])
    return {record.id: record.port for record in recorded if record.id in active}


def _record(
    ctx: Context,
    cluster: Cluster,
    spec: RunSpec,
    shipment: Shipment,
    *,
    sequence: int,
    live: Mapping[str, int],
) -> RunRecord:
    """A new run: its id is no other's, in this home or another, and its port no unfinished run's."""
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
        shipped=shipment.digests,
    )


def _free_port(cluster: Cluster, sequence: int, live: Mapping[str, int]) -> int:
    """Ports are used in turn, by all clusters of this home: an old run that is not over keeps its own."""
    for turn in range(len(RUN_PORTS)):
        port = RUN_PORTS[(sequence + turn) % len(RUN_PORTS)]
        if port not in live.values():
            return port
    raise Locked(
        f"{len(RUN_PORTS)} runs wait or run on {cluster.name}, and no more fit in line",
        next_step=f"rain-deploy runs -c {cluster.name}",
    )


def ship(
    ctx: Context,
    cluster: Cluster,
    record: RunRecord,
    spec: RunSpec,
    shipment: Shipment,
    *,
    live: Mapping[str, int],
) -> None:
    """Bring the run to all nodes; any node that it does not reach ends the command, nothing is queued."""
    names = tuple(node.name for node in cluster.nodes)
    files = payload(shipment)
    stage = ship_stage(layout_of(cluster), record, spec, shipment, files, live=tuple(live), nodes=names)
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
    try:
        result = ctx.transport.run(host, queue)
    except Unreachable as error:
        error.still_running = f"run {record.id}, if it came into line before the connection was lost"
        error.next_step = f"rain-deploy runs -c {cluster.name}"
        raise
    if result.exit_status != 0:
        ctx.store.forget_run(record)
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
        limit_s=cluster.limit_s,
    )
