"""``runs``, ``attach``, ``cancel`` and ``pull``: list, follow, end and pull runs that exist."""

import time
from dataclasses import dataclass, replace
from pathlib import Path

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.lookup import ask_server, living
from rain_deploy.cluster.plan import limit_sentence
from rain_deploy.cluster.power import awake
from rain_deploy.core.cluster import Cluster
from rain_deploy.core.events import Notice, Result
from rain_deploy.core.run import RunRecord, RunState
from rain_deploy.errors import InputError, MachineGone, RainDeployError
from rain_deploy.node.wire import Outcome
from rain_deploy.results.pull import PulledRun
from rain_deploy.runs.finish import RunResult, end_of, pull_each
from rain_deploy.runs.follow import follow, shown_here, with_machine_gone, withdraw
from rain_deploy.runs.journal import bring_journal
from rain_deploy.runs.left import left_error
from rain_deploy.runs.states import (
    RunLine,
    await_end,
    find_run,
    record_state,
    recorded_runs,
    run_line,
    run_states,
    seen_runs,
)


@dataclass(frozen=True, slots=True)
class RunsResult(Result):
    """The result of ``runs``; the newest run is last."""

    cluster: str
    runs: tuple[RunLine, ...]


@dataclass(frozen=True, slots=True)
class CancelResult(Result):
    """The result of ``cancel``."""

    cluster: str
    run: str
    state: str
    outcome: str
    changed: bool  # False if the run had ended by itself


@dataclass(frozen=True, slots=True)
class PullResult(Result):
    """The result of ``pull``."""

    cluster: str
    runs: tuple[PulledRun, ...]

    @property
    def problem(self) -> RainDeployError | None:
        return left_error(self.cluster, self.runs)


def runs(ctx: Context, name: str) -> RunsResult:
    """Return every run of a cluster of this name, as its server node reports it, else as recorded.

    Raises InputError for a name that no cluster has and no recorded run.
    """
    cluster = ctx.store.cluster(name)
    states, over = seen_runs(ctx, cluster) if cluster is not None and cluster.up else ({}, "")
    lines = []
    for record in recorded_runs(ctx, name):
        here = cluster is not None and record.cluster_id == cluster.id
        lines.append(run_line(record, states.get(record.id), over if here else ""))
    return RunsResult(cluster=name, runs=tuple(lines))


def attach(ctx: Context, name: str, run: str | None = None, *, out: Path | None = None) -> RunResult:
    """Follow a run from its first line to its end, then pull its results, unless all of them are here."""
    cluster, record = _on_cluster(ctx, name, run)
    if cluster.bill is not None:
        ctx.emit(Notice(limit_sentence(cluster, time.time())))
    if out:
        record = replace(record, out=out.absolute())
    try:
        followed = shown_here(ctx, cluster, record)
        if followed is None:
            ctx.reports.warm()
            cluster = awake(ctx, cluster, (cluster.server,))
            followed = follow(ctx, cluster, record)
    except MachineGone as error:
        followed = with_machine_gone(ctx, cluster, record, error)
    return end_of(ctx, cluster, record, followed)


def cancel(ctx: Context, name: str, run: str | None = None) -> CancelResult:
    """End a run, or take it out of the line; return once it has ended."""
    cluster, record = _on_cluster(ctx, name, run)
    with ctx.store.lock(name, "cancel", ending=True):
        states, over = seen_runs(ctx, cluster)
        if over and record.id not in states:  # its machine is off: nothing is left to cancel
            ctx.emit(Notice(over))
            ended = run_line(record, over=over)
            return CancelResult(name, record.id, ended.state, ended.outcome, changed=False)
        before = states.get(record.id)
        changed = before is None or before.state != RunState.FINISHED
        if changed:
            ask_server(ctx, cluster, "cancel", cluster.layout.run(record.id))
    status = await_end(ctx, cluster, (record.id,))[record.id]
    record_state(ctx, record, status)
    if before and before.state in {RunState.SHIPPED, RunState.QUEUED}:
        withdraw(ctx, cluster, record)  # no governor had it, so none of them deletes its variables
    changed = changed and status.outcome == Outcome.CANCELLED  # it may have ended in the meantime
    return CancelResult(name, record.id, status.state, status.outcome, changed)


def pull(
    ctx: Context, name: str, run: str | None = None, *, all_runs: bool = False, out: Path | None = None
) -> PullResult:
    """Pull the results (again) of one run, or of all that the server node holds."""
    cluster = living(ctx, name)
    cluster = awake(ctx, cluster, (cluster.server,))
    states = run_states(ctx, cluster)
    records = ctx.store.runs(name) if all_runs else (find_run(ctx, name, run),)
    held = [record for record in records if record.id in states]
    if not held:
        message = f"the nodes of {name} do not hold {'any run' if all_runs else f'run {records[0].id}'}"
        raise InputError(message, next_step=f"rain-deploy runs -c {name}")
    if out:
        held = [replace(record, out=(out / record.id if all_runs else out).absolute()) for record in held]
    result = PullResult(cluster=name, runs=pull_each(ctx, cluster, held, states))
    bring_journal(ctx, cluster)
    return result


def _on_cluster(ctx: Context, name: str, run: str | None) -> tuple[Cluster, RunRecord]:
    """Return a run and the living cluster that holds it."""
    record = find_run(ctx, name, run)
    cluster = living(ctx, name)
    if cluster.id != record.cluster_id:
        gone = f"belongs to an earlier cluster {name}, which is gone; its results: {record.out}"
        raise InputError(f"run {record.id} {gone}")
    return cluster, record
