"""The verbs about runs that exist: list, take up again, read, end, tabulate, bring home."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path

from rain_deploy.core.command import Command
from rain_deploy.core.events import Notice, PointSeen
from rain_deploy.core.model import Cluster, RunRecord, RunState
from rain_deploy.errors import InputError
from rain_deploy.flows.clusters import (
    ask_server,
    await_end,
    find_node,
    find_run,
    living,
    recorded,
    run_line,
    run_states,
)
from rain_deploy.flows.context import Context
from rain_deploy.flows.ending import end_of, pull_run, record_state
from rain_deploy.flows.following import follow as follow_run
from rain_deploy.flows.offering import limit_sentence
from rain_deploy.flows.results import (
    CancelResult,
    LogsResult,
    PointsResult,
    PullResult,
    RunResult,
    RunsResult,
)
from rain_deploy.flows.stages import install_log
from rain_deploy.flows.waking import awake
from rain_deploy.ops.services import layout_of
from rain_deploy.results.points import fold, parse_rows


def runs(ctx: Context, name: str) -> RunsResult:
    """Every run of the cluster's name, as its server node tells it, else as recorded."""
    cluster = ctx.store.cluster(name)
    states = run_states(ctx, cluster) if cluster is not None and cluster.up else {}
    lines = tuple(run_line(record, states.get(record.id)) for record in ctx.store.runs(name))
    return RunsResult(cluster=name, runs=lines)


def attach(ctx: Context, name: str, run: str | None = None, *, out: Path | None = None) -> RunResult:
    """Follow a run from its first line to its end, then bring it home."""
    cluster, record = _on_cluster(ctx, name, run)
    if cluster.quote is not None:
        ctx.emit(Notice(limit_sentence(cluster)))
    cluster = awake(ctx, cluster, (cluster.server,))
    if out:
        record = replace(record, out=out.absolute())
    return end_of(ctx, cluster, record, follow_run(ctx, cluster, record))


def cancel(ctx: Context, name: str, run: str | None = None) -> CancelResult:
    """End a run, or take it out of the line.  Returns once it has ended."""
    cluster, record = _on_cluster(ctx, name, run)
    with ctx.store.lock(name, "cancel"):
        before = run_states(ctx, cluster).get(record.id, {})
        changed = before.get("state") != RunState.FINISHED
        if changed:
            ask_server(ctx, cluster, "cancel", layout_of(cluster).run(record.id))
    state = await_end(ctx, cluster, (record.id,))[record.id]
    record_state(ctx, record, state)
    return CancelResult(
        cluster=name,
        run=record.id,
        state=str(state.get("state")),
        outcome=str(state.get("outcome")),
        changed=changed,
    )


def pull(
    ctx: Context, name: str, run: str | None = None, *, all_runs: bool = False, out: Path | None = None
) -> PullResult:
    """Bring results home (again): of one run, or of all that the server node holds."""
    cluster = living(ctx, name)
    cluster = awake(ctx, cluster, (cluster.server,))
    states = run_states(ctx, cluster)
    records = ctx.store.runs(name) if all_runs else (find_run(ctx, name, run),)
    held = [record for record in records if record.id in states]
    if not held:
        raise InputError(
            f"the nodes of {name} do not hold {'any run' if all_runs else f'run {records[0].id}'}",
            next_step=f"rain-deploy runs -c {name}",
        )
    pulled = []
    for record in held:
        target = (out / record.id if all_runs else out).absolute() if out else record.out
        pulled.append(pull_run(ctx, cluster, replace(record, out=target), states[record.id]))
    return PullResult(cluster=name, runs=tuple(pulled))


def logs(
    ctx: Context,
    name: str,
    run: str | None = None,
    *,
    node: int | None = None,
    boot: bool = False,
    install: bool = False,
    follow: bool = False,
) -> LogsResult:
    """The script's output so far (or on, with ``follow``); of a node its services', boot's or installer's."""
    if boot:
        return _boot_log(ctx, name, node)
    if node is not None or install:
        return _node_logs(ctx, name, node, install=install)
    record = find_run(ctx, name, run)
    cluster = _holder(ctx, record)
    if cluster is None:
        out, err = _at_home(record, "stdout.log"), _at_home(record, "stderr.log")
        return LogsResult(cluster=name, source="script", run=record.id, stdout=out, stderr=err)
    if follow:
        follow_run(ctx, cluster, record)
        return LogsResult(cluster=name, source="script", run=record.id)
    run_dir = layout_of(cluster).run(record.id)
    out, err = (_read(ctx, cluster, f"{run_dir}/{stream}.log") for stream in ("stdout", "stderr"))
    return LogsResult(cluster=name, source="script", run=record.id, stdout=out, stderr=err)


def points(ctx: Context, name: str, run: str | None = None, *, follow: bool = False) -> PointsResult:
    """One row per point: from the server node while it has the run, else from the results here."""
    record = find_run(ctx, name, run)
    cluster = _holder(ctx, record)
    if cluster is not None:
        if follow:
            only_points = replace(ctx, emit=lambda e: ctx.emit(e) if isinstance(e, PointSeen) else None)
            follow_run(only_points, cluster, record)
        text = _read(ctx, cluster, f"{layout_of(cluster).run(record.id)}/points.jsonl")
    else:
        rows = json.loads(_at_home(record, "points.json"))
        return PointsResult(cluster=name, run=record.id, rows=tuple(rows))
    return PointsResult(cluster=name, run=record.id, rows=fold(parse_rows(text.splitlines()), all_=True))


def _on_cluster(ctx: Context, name: str, run: str | None) -> tuple[Cluster, RunRecord]:
    """A run and the living cluster that holds it."""
    record = find_run(ctx, name, run)
    cluster = living(ctx, name)
    if cluster.id != record.cluster_id:
        raise InputError(
            f"run {record.id} was of an earlier cluster {name}, which is gone; its results: {record.out}"
        )
    return cluster, record


def _holder(ctx: Context, record: RunRecord) -> Cluster | None:
    """The living cluster whose server node is asked for the run, awake; None: what is here is all of it.

    No machine is started, for money, to tell what was brought home.
    """
    cluster = ctx.store.cluster(record.cluster)
    if cluster is None or cluster.id != record.cluster_id:
        return None
    if cluster.quote is not None and record.pulled and record.out.is_dir():
        return None
    return awake(ctx, cluster, (cluster.server,))


def _read(ctx: Context, cluster: Cluster, path: str) -> bytes:
    """A file of the server node; empty when it is not there (yet)."""
    command = Command(("sh", "-c", '[ ! -e "$0" ] || cat -- "$0"', path), deadline_s=300.0)
    return ctx.transport.run(cluster.server.host, command).stdout


def _at_home(record: RunRecord, name: str) -> bytes:
    """A file of results that were pulled."""
    try:
        return (record.out / name).read_bytes()
    except OSError as error:
        raise InputError(
            f"run {record.id} was of a cluster that is gone, and {record.out / name} cannot be read: "
            f"{error.strerror}"
        ) from error


def _node_logs(ctx: Context, name: str, number: int | None, *, install: bool) -> LogsResult:
    """What our services on a node wrote, or what its installation printed."""
    cluster = recorded(ctx, name)
    node = find_node(cluster, number)
    if install:
        log = install_log(ctx, cluster)
        lines = log.read_bytes().splitlines(keepends=True) if log.exists() else []
        mine = b"".join(line for line in lines if line.startswith(f"{node.name} |".encode()))
        return LogsResult(cluster=name, source="install", node=node.name, stdout=mine)
    cluster = awake(ctx, cluster, (node,))
    node = find_node(cluster, number)
    layout = layout_of(cluster)
    places = f"{shlex.quote(layout.node(node.host.index))}/*/*.log {shlex.quote(layout.server)}/*.log"
    script = f'for f in {places}; do [ ! -f "$f" ] || {{ echo "==> $f <=="; tail -n 500 -- "$f"; }}; done'
    result = ctx.transport.run(node.host, Command(("sh", "-c", script)))
    return LogsResult(cluster=name, source="governor", node=node.name, stdout=result.stdout)


_BOOT_LOG = """
log=/var/log/cloud-init-output.log
none() { echo "$1: there is no log of a first boot" >&2; exit 0; }
[ -z "${RAIN_DEPLOY_MACHINE:-}" ] || none "light machines do not boot"
[ -e "$log" ] || none "$log is not there"
[ -r "$log" ] || sudo="sudo -n"
${sudo:-} tail -n 5000 -- "$log"
"""
"""A light machine has a directory of its own in its environment: that log is of the machine below it."""


def _boot_log(ctx: Context, name: str, number: int | None) -> LogsResult:
    """What cloud-init printed at a machine's first boot."""
    cluster = recorded(ctx, name)
    node = find_node(cluster, number)
    if cluster.quote is None:
        raise InputError(f"the machines of {name} were not booted by rain-deploy: there is no log of that")
    node = find_node(awake(ctx, cluster, (node,)), number)
    result = ctx.transport.run(node.host, Command(("sh", "-c", _BOOT_LOG)))
    return LogsResult(cluster=name, source="boot", node=node.name, stdout=result.stdout, stderr=result.stderr)
