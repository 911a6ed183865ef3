"""``logs`` and ``points``: what a run printed and computed so far."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass, replace

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.lookup import find_node, recorded
from rain_deploy.cluster.stages import install_log
from rain_deploy.cluster.waking import awake
from rain_deploy.core.cluster import Cluster
from rain_deploy.core.command import Command
from rain_deploy.core.events import PointSeen
from rain_deploy.core.result import Result
from rain_deploy.core.run import RunRecord
from rain_deploy.errors import (
    InputError,
)
from rain_deploy.parts.services import layout_of
from rain_deploy.results.points import fold, parse_rows
from rain_deploy.runs.follow import follow as follow_run
from rain_deploy.runs.states import find_run

PointRow = dict[str, object]
"""A row of points.jsonl."""


@dataclass(frozen=True, slots=True)
class LogsResult(Result):
    """``logs``: with ``follow`` the text went through ScriptOutput events and the fields are empty."""

    cluster: str
    source: str
    """``script``, ``governor``, ``boot`` or ``install``."""
    run: str = ""
    node: str = ""
    stdout: bytes = b""
    stderr: bytes = b""


@dataclass(frozen=True, slots=True)
class PointsResult(Result):
    """``points``: the newest row of each task, in order of task id."""

    cluster: str
    run: str
    rows: tuple[PointRow, ...]


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


def _holder(ctx: Context, record: RunRecord) -> Cluster | None:
    """The living cluster whose server node is asked for the run, awake; None: what is here is all of it.

    No machine is started, for money, to tell what was brought home.
    """
    cluster = ctx.store.cluster(record.cluster)
    if cluster is None or cluster.id != record.cluster_id:
        return None
    if cluster.bill is not None and record.pulled and record.out.is_dir():
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
    if cluster.bill is None:
        raise InputError(f"the machines of {name} were not booted by rain-deploy: there is no log of that")
    node = find_node(awake(ctx, cluster, (node,)), number)
    result = ctx.transport.run(node.host, Command(("sh", "-c", _BOOT_LOG)))
    return LogsResult(cluster=name, source="boot", node=node.name, stdout=result.stdout, stderr=result.stderr)
