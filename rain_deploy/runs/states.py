"""Runs on record and as the server node reports them, and where their files are read."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.lookup import ask_server, out_of_reach, recorded, understood
from rain_deploy.cluster.power import awake
from rain_deploy.cluster.seen import Account, account_of
from rain_deploy.core.cluster import Bill, Cluster
from rain_deploy.core.events import Notice
from rain_deploy.core.machine import ASLEEP
from rain_deploy.core.run import RunRecord, named
from rain_deploy.core.step import Command
from rain_deploy.core.text import hour
from rain_deploy.errors import EngineError, InputError, Unreachable
from rain_deploy.node.wire import ListedRun, Outcome, RunState, RunStatus, read_runs
from rain_deploy.results.manifest import read_manifest
from rain_deploy.transport.base import Chunk

CANCEL_S = 60.0  # how long a cancelled run may take to end; a script that ignores it is killed after 5 s
PAUSE_S = 0.2
NAMED = 5  # runs that an error names
_READ_DEADLINE_S = 300.0
LIMIT_LATE_S = 180.0
"""Time after its limit until a machine is off for sure: it looks once a minute, and clocks differ.

A failure earlier than this before the limit is not due to it.
"""


@dataclass(frozen=True, slots=True)
class RunLine:
    """A run in a list."""

    run: str
    sequence: int
    script: str
    args: tuple[str, ...]
    state: str
    outcome: str
    exit_code: int | None
    created_s: float
    started_s: float | None
    ended_s: float | None
    results_dir: Path
    pulled: bool
    message: str = ""  # why it ended so, if the outcome does not say it
    attempt: int = 1  # how often its script was started; more than once after the loss of a node or of Rain


def find_run(ctx: Context, cluster: str, run: str | None) -> RunRecord:
    """Return a run of the cluster by id, beginning of its id, number or script; by default the last."""
    runs = recorded_runs(ctx, cluster)
    found = runs[-1:] if run is None else named(runs, run)
    if len(found) == 1:
        return found[0]
    shown = ", ".join(f"{record.sequence} ({record.id})" for record in (found or runs)[-NAMED:])
    message = f"{len(found)} runs of cluster {cluster} begin with {run}: {shown}"
    if not found:
        message = f"cluster {cluster} has {f'no run {run}' if run else 'no run'}"
        message += f"; its last runs: {shown}" if runs else ""
    next_step = f"rain-deploy runs -c {cluster}" if runs else f"rain-deploy run -c {cluster} SCRIPT"
    raise InputError(message, next_step=next_step)


def recorded_runs(ctx: Context, cluster: str) -> tuple[RunRecord, ...]:
    """Return the runs of all clusters of this name.  Raises InputError if there never was one with a run."""
    runs = ctx.store.runs(cluster)
    if not runs:
        recorded(ctx, cluster)
    return runs


def runs_of(ctx: Context, cluster: Cluster) -> tuple[RunRecord, ...]:
    """Return the recorded runs of this cluster, without those of an earlier one of the same name."""
    return tuple(record for record in ctx.store.runs(cluster.name) if record.cluster_id == cluster.id)


def run_states(ctx: Context, cluster: Cluster) -> dict[str, ListedRun]:
    """Return the state of every run that the server node holds, by run id."""
    with understood(cluster, cluster.server.name):
        return read_runs(ask_server(ctx, cluster, "runs", cluster.layout.cluster))


def unfinished(states: Mapping[str, RunStatus]) -> tuple[str, ...]:
    """Return the ids of the runs that wait or run."""
    return tuple(run for run, status in states.items() if status.waits_or_runs)


def await_end(ctx: Context, cluster: Cluster, runs: tuple[str, ...]) -> dict[str, ListedRun]:
    """Wait until these runs have ended; return the states of all.  Raises EngineError after CANCEL_S."""
    deadline_s = ctx.clock() + CANCEL_S
    while True:
        states = run_states(ctx, cluster)
        left = [run for run in unfinished(states) if run in runs]
        if not left:
            return states
        if ctx.clock() > deadline_s:
            message = f"{', '.join(left)} did not end within {CANCEL_S:.0f} s"
            look = f"rain-deploy status -c {cluster.name}"
            raise EngineError(message, node=cluster.server.name, next_step=look)
        ctx.pause(PAUSE_S)


def record_state(ctx: Context, record: RunRecord, status: RunStatus) -> RunRecord:
    """Record the run's state; return the new record."""
    new = replace(record, state=status.state, outcome=status.outcome, exit_code=status.exit_code)
    new = replace(new, message=status.message)
    ctx.store.save_run(new)
    return new


def record_states(ctx: Context, cluster: Cluster, states: Mapping[str, RunStatus]) -> None:
    """Record the states that the server node reported: it may be powered off the next time."""
    for record in runs_of(ctx, cluster):
        now = states.get(record.id)
        if now and record.state not in {RunState.FINISHED, now.state}:
            record_state(ctx, record, now)


def why_over(cluster: Cluster, account: Account | None, now_s: float) -> str:
    """Return why no run of the cluster can continue, whatever is recorded of it; empty if one may.

    The account is asked first: it knows if the server's machine is on.  If it is silent, or was not asked,
    the recorded time limit counts.
    """
    bill, server = cluster.bill, cluster.server.name if cluster.nodes else ""
    if bill is None or not server:
        return ""
    limit = _limit(bill, now_s)
    if account is None or account.silent:
        late_s = now_s - (bill.limit_s or math.inf)
        return f"{limit} passed, so the machines should be off" if late_s > LIMIT_LATE_S else ""
    found = account.machines(cluster).get(server)
    if found is None:
        return f"the machine of {server} is gone"
    if found.state not in ASLEEP:
        return ""
    return f"{limit} reached, machines are off" if bill.passed(now_s) else f"{server} is powered off"


def _limit(bill: Bill, now_s: float) -> str:
    at = "" if bill.limit_s is None else hour(bill.limit_s, now_s).partition(" (")[0]
    return f"time limit {at}"


def at_limit(cluster: Cluster, status: RunStatus, now_s: float) -> RunStatus:
    """Return how a run ended; if Rain failed when the time limit had passed, that was the limit.

    Machines do not go off at the same moment: the server's may still report that another one is lost.  What
    failed long before the limit failed for another reason, even if we hear of it only now.
    """
    bill, ended_s = cluster.bill, now_s if status.ended_s is None else status.ended_s
    if bill is None or status.outcome not in {Outcome.ENGINE, Outcome.LOST}:
        return status
    if not (bill.passed(now_s) and bill.passed(ended_s + LIMIT_LATE_S)):
        return status
    return replace(status, outcome=Outcome.POWERED_OFF, message=f"{_limit(bill, now_s)} reached")


def seen_runs(ctx: Context, cluster: Cluster) -> tuple[dict[str, ListedRun], str]:
    """Return the runs as the server node reports them; none if it does not, and why none can continue."""
    account = account_of(ctx, cluster) if cluster.bill else None
    over, server = why_over(cluster, account, time.time()), cluster.server.name
    if server in out_of_reach(cluster, account):
        return {}, over
    try:
        return run_states(ctx, cluster), ""
    except Unreachable as error:
        ctx.emit(Notice(f"as recorded, because {server} does not answer: {error.message}"))
        return {}, over


def run_line(record: RunRecord, status: RunStatus | None = None, over: str = "") -> RunLine:
    """Return a run as the server node reports it, or as recorded where that is not known.

    ``over``: why a run that has not ended on record cannot continue.
    """
    known = status or RunStatus(
        state=record.state, outcome=record.outcome, exit_code=record.exit_code, message=record.message
    )
    if over and status is None and record.state != RunState.FINISHED:
        known = RunStatus(state=RunState.FINISHED, outcome=Outcome.UNKNOWN, message=over)
    return RunLine(
        run=record.id,
        sequence=record.sequence,
        script=record.script,
        args=record.args,
        state=known.state,
        outcome=known.outcome,
        exit_code=known.exit_code,
        created_s=record.created_s,
        started_s=known.started_s,
        ended_s=known.ended_s,
        results_dir=record.out,
        pulled=record.pulled,
        message=known.message,
        attempt=known.attempt,
    )


def holder(ctx: Context, record: RunRecord) -> Cluster | None:
    """Return the cluster whose server node has the run, awake; None where the results here are read.

    That is so if all of them were pulled, whatever has become of the machine, or if the cluster is gone.
    """
    cluster = cluster_of(ctx, record)
    if cluster is None or (record.pulled and (read_manifest(record.out) or {}).get("run") == record.id):
        return None
    return awake(ctx, cluster, (cluster.server,))


def cluster_of(ctx: Context, record: RunRecord) -> Cluster | None:
    """Return the cluster of a run, if it is on record and not another one of its name."""
    cluster = ctx.store.cluster(record.cluster)
    return cluster if cluster and cluster.id == record.cluster_id else None


def run_file(
    ctx: Context, cluster: Cluster | None, record: RunRecord, name: str, sink: Chunk | None = None
) -> bytes:
    """Return a file of the run, from the server node of ``cluster``, or from the results here without one.

    ``sink`` gets the content instead.  On the node, a file that is not there (yet) is empty.  Raises
    InputError for a file that is not here.
    """
    if cluster:
        path = f"{cluster.layout.run(record.id)}/{name}"
        command = Command(("sh", "-c", '[ ! -e "$0" ] || cat -- "$0"', path), deadline_s=_READ_DEADLINE_S)
        return ctx.transport.run(cluster.server.host, command, on_stdout=sink).stdout
    try:
        content = (record.out / name).read_bytes()
    except OSError as error:
        message = f"{record.out / name} cannot be read: {error.strerror}"
        next_step = f"rain-deploy pull {record.id} -c {record.cluster}"
        if cluster_of(ctx, record) is None:
            message = f"the cluster of run {record.id} is gone, and {message}"
            next_step = f"rain-deploy runs -c {record.cluster}"
        raise InputError(message, next_step=next_step) from error
    if sink is None:
        return content
    sink(content)
    return b""


def run_details(ctx: Context, cluster: Cluster | None, record: RunRecord) -> list[bytes]:
    """Return the lines of details.jsonl; none of a run of an older version, which has no such file."""
    if cluster is None and not (record.out / "details.jsonl").exists():
        return []
    return run_file(ctx, cluster, record, "details.jsonl").splitlines()
