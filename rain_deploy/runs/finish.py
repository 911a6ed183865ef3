"""Ends runs: records how they went, pulls their results, and leaves nothing behind when a cluster goes."""

import json
import math
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rain_deploy import errors
from rain_deploy.cluster.context import Context
from rain_deploy.cluster.destroy import start_everything
from rain_deploy.cluster.lookup import ask_server
from rain_deploy.cluster.power import awake
from rain_deploy.core.cluster import Cluster
from rain_deploy.core.events import Notice, Result
from rain_deploy.core.run import RunRecord, RunState
from rain_deploy.core.text import cluster_flag, count, money
from rain_deploy.node.wire import LeftOuts, ListedRun, Outcome, RunStatus, WireError
from rain_deploy.parts.machine import THEN_OFF_S
from rain_deploy.parts.services import node_command
from rain_deploy.results.forecast import Forecast
from rain_deploy.results.manifest import read_manifest
from rain_deploy.results.partial import partial_places
from rain_deploy.results.points import read_json
from rain_deploy.results.pull import PulledRun, pull
from rain_deploy.results.tally import with_others
from rain_deploy.runs.follow import Followed
from rain_deploy.runs.journal import COPY_DEADLINE_S, LITTLE_FILE_BYTES, bring_journal
from rain_deploy.runs.left import left_error, left_lines
from rain_deploy.runs.lost import all_here, keep_heard, run_again, way_on
from rain_deploy.runs.missing import advice
from rain_deploy.runs.outlook import run_nodes
from rain_deploy.runs.states import LIMIT_LATE_S, await_end, record_state, run_states, runs_of, unfinished
from rain_deploy.state.drafts import noted
from rain_deploy.state.store import Record

PACK_DEADLINE_S = 6 * 3600.0
"""Deadline of one stream of results: 100 GB, the most that is accepted, at 5 MB/s."""


@dataclass(frozen=True, slots=True)
class RunResult(Result):
    """The result of ``run`` and ``attach``: the state of the run at the end of the call."""

    cluster: str
    run: str
    state: str
    outcome: str  # as in RunRecord; empty while it runs
    exit_code: int | None  # the exit code of the script; a negative number means that this signal killed it
    results_dir: Path
    seconds: float  # from the start of the run to its end, or to now
    figures: int = 0
    points: int = 0
    files: int = 0
    failed_points: int = 0
    point_states: dict[str, int] = field(default_factory=dict)  # how many points are in each state
    cached_points: int = 0  # those of them that were not computed again
    first_failure: str = ""  # which task failed first, where and why
    left: LeftOuts = field(default_factory=LeftOuts)  # what stays on the node
    on_node: str = ""  # the run's directory there
    detached: bool = False
    pulled: bool = True  # False: the results are on the server node, which is off, gone or still at it
    message: str = ""
    attempt: int = 1  # how often its script was started; what earlier attempts left is in attempts/
    limit_s: float | None = None  # when the machines power themselves off; None: never
    off_s: float | None = None  # with --then-off, the hour at which all machines are off at the latest
    warnings: tuple[str, ...] = ()  # what the run may have missed, and what of it was lost; one sentence each
    again: str = ""  # the command that computes what is missing, if a limit ended the run
    others: tuple[Forecast, ...] = ()  # about what its points would need with other numbers of nodes
    currency: str = ""
    advice: str = ""  # the flag that may help a script that failed for want of a file or a module

    @property
    def problem(self) -> errors.RainDeployError | None:
        run, where, code = f"run {self.run}", f"{self.run} -c {self.cluster}", self.exit_code
        match self.outcome:
            case Outcome.DONE | Outcome.FAILED if self.failed_points:
                message = f"{run}: {self.failed_points} of {count(self.points, 'point')} failed"
                details = self.first_failure or self.message or None
                look = f"rain-deploy points {where}"
                return errors.PointsFailed(message, details=details, next_step=self.advice or look)
            case Outcome.FAILED:
                ending = "ended without an exit code" if code is None else f"ended with exit code {code}"
                if code is not None and code < 0:
                    ending = f"was killed by signal {-code}"
                message, why = f"{run}: the script {ending}", self.first_failure or None
                look = f"rain-deploy logs {where}"
                return errors.ScriptFailed(message, details=why, next_step=self.advice or look)
            case Outcome.ENGINE | Outcome.LOST:
                message = f"{run}: {self.message or 'Rain could not run it'}"
                starts = f"start what is missing, then run it again: rain-deploy up -c {self.cluster}"
                look = f"rain-deploy status -c {self.cluster}"
                lost = self.outcome == Outcome.LOST
                return errors.EngineError(message, next_step=self.again or starts if lost else look)
            case "" | Outcome.DONE:
                return left_error(self.cluster, (self,))
            case outcome:  # also one of another version
                message = f"{run}: {self.message or outcome}"
                start = f"to start the machine: rain-deploy pull {where}; or to delete it: rain-deploy down"
                start += cluster_flag(self.cluster)
                next_step = self.again or f"rain-deploy logs {where}" if self.pulled else start
                return errors.EndedEarly(message, next_step=next_step)

    @property
    def value(self) -> Any:
        """Return the value of the function.  Raises ``problem``, or InputError if there is no value.

        It comes back as JSON, so that reading it never runs code from a node.
        """
        problem = self.problem
        if problem and not isinstance(problem, errors.UnsafeResults):  # others that stay do not matter
            raise problem
        made = read_manifest(self.results_dir) or {}
        path = self.results_dir / "files" / Path(str(made.get("script", "none"))).with_suffix(".json")
        try:
            return json.loads(path.read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            message = f"run {self.run} has no value here: {path} cannot be read: {error}"
            rule = "only a function returns a value, once its run has ended and is pulled"
            raise errors.InputError(message, next_step=rule) from error


def pull_run(ctx: Context, cluster: Cluster, record: RunRecord, status: RunStatus) -> PulledRun:
    """Pull the run's results to ``record.out``, and record whether all are there."""
    record = record_state(ctx, record, status)
    pack = node_command(cluster, "pack", cluster.layout.run(record.id), deadline_s=PACK_DEADLINE_S)
    with noted(ctx.home, *partial_places(record.out)):
        pulled = pull(
            lambda sink: ctx.transport.run(cluster.server.host, pack, on_stdout=sink),
            record,
            tell=lambda text: ctx.emit(Notice(f"run {record.id}: {text}")),
            cost=cost_of(cluster, status, time.time()),
        )
    ctx.reports.want(record.out)
    pulled = replace(pulled, on_node=cluster.layout.run(record.id))
    if pulled.finished and not pulled.left.hold:
        ctx.store.save_run(replace(record, pulled=True))
    return pulled


def cost_of(cluster: Cluster, status: RunStatus, now_s: float) -> str:
    """Return what the machines cost during the run, and what they have cost so far; empty where unpriced."""
    bill = cluster.bill
    if bill is None:
        return ""
    ended_s = now_s if status.ended_s is None else status.ended_s
    during = bill.cost(ended_s) - bill.cost(ended_s if status.started_s is None else status.started_s)
    so_far = money(bill.cost(now_s), bill.currency)
    return f"{money(during, bill.currency)} during the run; cluster {cluster.name} so far: {so_far}"


def end_of(ctx: Context, cluster: Cluster, record: RunRecord, followed: Followed) -> RunResult:
    """Pull a run that has ended, if its server node is there, and return how it went.

    Raises PullFailed, whose message includes how the script ended, if the results could not be pulled.
    """
    status = followed.status
    result = RunResult(
        cluster=cluster.name,
        run=record.id,
        state=status.state,
        outcome=status.outcome,
        exit_code=status.exit_code,
        results_dir=record.out,
        seconds=(status.ended_s or time.time()) - status.started_s if status.started_s else 0.0,
        pulled=False,
        message=status.message,
        attempt=status.attempt,
        limit_s=cluster.limit_s,
        off_s=all_off_s(cluster, status.ended_s, time.time()) if record.then_off else None,
        again=_again(cluster, record) if status.outcome in {Outcome.TIMEOUT, Outcome.LIMIT} else "",
        currency=cluster.currency,
    )
    here = followed.here
    if followed.heard and (found := all_here(ctx, record)):
        here = found[1]
    elif followed.heard:
        kept = keep_heard(ctx, cluster, record, followed.heard, status)
        if status.outcome == Outcome.LOST:
            result = replace(result, again=way_on(ctx, cluster, record))
        return replace(result, **_counts(kept)) if kept else result
    pulled = here or _pulled_now(ctx, cluster, record, status)
    if pulled is None:
        return result
    record = replace(record, out=pulled.results_dir)
    return replace(
        result,
        **_counts(pulled),
        results_dir=pulled.results_dir,
        left=pulled.left,
        on_node=pulled.on_node,
        pulled=True,
        warnings=status.warnings,
        others=_others(cluster, record, status),
        advice=advice(ctx, record, pulled.first_failure) if status.exit_code else "",
    )


def _pulled_now(ctx: Context, cluster: Cluster, record: RunRecord, status: RunStatus) -> PulledRun | None:
    """Pull a run that has ended, and what is small in the journal.  None if its machine goes off now."""
    copying = threading.Thread(
        target=bring_journal, args=(ctx, cluster), kwargs={"file_bytes": LITTLE_FILE_BYTES}, daemon=True
    )
    copying.start()
    try:
        pulled = pull_run(ctx, cluster, record, status)
    except (errors.PullFailed, errors.Unreachable) as error:
        if status.outcome == Outcome.POWERED_OFF:
            return None
        error.message += f" (the run itself: {status.outcome}, exit code {status.exit_code})"
        error.still_running = f"the nodes of {cluster.name}, which hold the results"
        raise
    copying.join(COPY_DEADLINE_S)
    return pulled


def _counts(pulled: PulledRun) -> dict[str, Any]:
    """Return what a result says of the results that are here."""
    names = "figures points files failed_points point_states cached_points first_failure"
    return {name: getattr(pulled, name) for name in names.split()}


def _again(cluster: Cluster, record: RunRecord) -> str:
    """Return the command that computes only what is missing, after the one that keeps the machines on."""
    name, near_s = cluster.name, LIMIT_LATE_S + time.time()
    extend = f"rain-deploy extend 2h -c {name} && " if cluster.bill and cluster.bill.passed(near_s) else ""
    return f"{extend}{run_again(record)} (it computes only what is missing)"


def _others(cluster: Cluster, record: RunRecord, status: RunStatus) -> tuple[Forecast, ...]:
    """Return about what the run's points would need with other numbers of nodes."""
    try:
        rows = read_json((record.out / "points.json").read_bytes())
    except (OSError, WireError):
        return ()
    return with_others(rows, run_nodes(cluster, status))


def all_off_s(cluster: Cluster, ended_s: float | None, now_s: float) -> float | None:
    """Return when all machines are off at the latest after a run with --then-off.

    None while it has not ended, and later: somebody has started them again or moved their limit.
    """
    if ended_s is None or ended_s + THEN_OFF_S < now_s:
        return None
    return min(ended_s + THEN_OFF_S, math.inf if cluster.limit_s is None else cluster.limit_s)


def not_pulled(ctx: Context, cluster: Cluster) -> tuple[RunRecord, ...]:
    """Return the cluster's runs whose results are not all here."""
    return tuple(run for run in runs_of(ctx, cluster) if not run.pulled)


def pull_each(
    ctx: Context, cluster: Cluster, runs: Iterable[RunRecord], states: Mapping[str, RunStatus]
) -> tuple[PulledRun, ...]:
    """Pull these runs.  One that cannot be pulled is raised once the others are here."""
    pulled, failed = [], list[errors.RainDeployError]()
    for run in runs:
        ctx.emit(Notice(f"run {run.id}: pulling results to {run.out}"))
        try:
            pulled.append(pull_run(ctx, cluster, run, states[run.id]))
        except (errors.PullFailed, errors.UnsafeResults, errors.InputError) as error:
            failed.append(error)
    if failed:
        raise failed[0]
    return tuple(pulled)


def pull_all(ctx: Context, record: Record, out: Path | None) -> tuple[str, ...]:
    """Pull every run that is not pulled yet, before the cluster goes; return the ids of those pulled.

    What runs is cancelled, if the user agrees.  ``out``: a directory for all, instead of the one recorded for
    each.  Raises PullFailed, also if something stays on the node that has content; Declined.
    """
    cluster = record.cluster.whole
    runs = not_pulled(ctx, cluster)
    if not runs:
        return ()
    start_everything(ctx, record)
    names = ", ".join(node.name for node in cluster.nodes)
    kept = f"cluster {cluster.name}: {names}"
    try:
        cluster = awake(ctx, cluster, (cluster.server,))
        states = _cancel(ctx, cluster)
        for run in runs:
            if run.id not in states:
                ctx.emit(Notice(f"run {run.id}: not on {cluster.server.name}, so nothing is pulled"))
        there = (run for run in runs if run.id in states and states[run.id].state != RunState.SHIPPED)
        chosen = [replace(run, out=out / run.id) if out else run for run in there]
        pulled = pull_each(ctx, cluster, chosen, states)
        if stays := left_error(cluster.name, pulled):
            lines = (line for done in pulled if done.left.hold for line in left_lines(done))
            stays.details = "\n".join(lines)
            raise stays
    except errors.MachineGone as error:
        ctx.emit(Notice(f"not pulled: {', '.join(run.id for run in runs)}: {error.message}", warning=True))
        return ()
    except (errors.Unreachable, errors.EngineError, errors.PullFailed) as error:
        raise errors.PullFailed(
            f"results could not be pulled, so nothing was deleted: {error.message}",
            node=error.node,
            details=error.details,
            still_running=kept,
            next_step=f"rain-deploy down -c {cluster.name} --out DIR, or --discard-results to lose them",
        ) from error
    except errors.UnsafeResults as error:
        raise errors.PullFailed(
            f"nothing was deleted: {error.message}",
            details=error.details,
            still_running=kept,
            next_step=error.next_step or f"rain-deploy down -c {cluster.name} --discard-results",
        ) from error
    for done in pulled:
        for line in left_lines(done):
            ctx.emit(Notice(f"run {done.run}: not pulled: {line}"))
    return tuple(done.run for done in pulled)


def _cancel(ctx: Context, cluster: Cluster) -> Mapping[str, ListedRun]:
    """End what runs and return the states after it; what does not end is left to the end of all services."""
    states = run_states(ctx, cluster)
    active = unfinished(states)
    if not active:
        return states
    if not ctx.confirm(f"{', '.join(active)} is still active on {cluster.name}. Cancel it?"):
        message = f"cluster {cluster.name} has an active run and did not change"
        raise errors.Declined(message, next_step=f"rain-deploy attach -c {cluster.name}")
    for run in reversed(active):
        ask_server(ctx, cluster, "cancel", cluster.layout.run(run))
    try:
        return await_end(ctx, cluster, active)
    except errors.EngineError as error:
        ctx.emit(Notice(f"{error.message}; what is there of it is pulled"))
        return run_states(ctx, cluster)


def end_records(ctx: Context, cluster: Cluster) -> None:
    """Record that the cluster's runs are over: it is gone."""
    for run in runs_of(ctx, cluster):
        if run.state != RunState.FINISHED:
            ctx.store.save_run(replace(run, state=RunState.FINISHED, outcome="cancelled"))
