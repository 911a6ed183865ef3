"""How a run ends for its user: recorded as the node tells it, brought home, told as one result."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

from rain_deploy.cluster.context import Context
from rain_deploy.core.cluster import Cluster
from rain_deploy.core.result import Result
from rain_deploy.core.run import RunRecord, RunState
from rain_deploy.errors import (
    EndedEarly,
    EngineError,
    PointsFailed,
    PullFailed,
    RainDeployError,
    ScriptFailed,
)
from rain_deploy.parts.services import layout_of, node_command
from rain_deploy.results.pull import PullOutcome
from rain_deploy.results.pull import pull as pull_results
from rain_deploy.runs.states import State


@dataclass(frozen=True, slots=True)
class RunResult(Result):
    """``run`` and ``attach``: how a run stands when the command ends."""

    cluster: str
    run: str
    state: str
    outcome: str
    """As in RunRecord; empty while it runs."""
    exit_code: int | None
    """Of the script itself; negative: killed by that signal."""
    results_dir: Path
    seconds: float
    """From the start of the run to its end, or to now."""
    figures: int = 0
    points: int = 0
    files: int = 0
    failed_points: int = 0
    detached: bool = False
    message: str = ""
    limit_s: float | None = None
    """When the machines power themselves off; None: never."""

    @property
    def problem(self) -> RainDeployError | None:
        if self.outcome in {"done", "failed"} and self.failed_points:
            return PointsFailed(
                f"run {self.run}: {self.failed_points} points failed",
                details=self.message or None,
                next_step=f"rain-deploy points {self.run} -c {self.cluster}",
            )
        if self.outcome == "failed":
            return ScriptFailed(
                f"run {self.run}: the script {_ending(self.exit_code)}",
                next_step=f"rain-deploy logs {self.run} -c {self.cluster}",
            )
        if self.outcome in {"cancelled", "timeout", "limit"}:
            how = {"timeout": "timed out", "limit": "stopped"}.get(self.outcome, self.outcome)
            why = f" ({self.message})" if self.message else ""
            return EndedEarly(
                f"run {self.run}: {how} before its script ended{why}",
                next_step=f"rain-deploy logs {self.run} -c {self.cluster}",
            )
        if self.outcome in {"engine", "lost"}:
            return EngineError(
                f"run {self.run}: {self.message or 'Rain could not run it'}",
                next_step=f"rain-deploy status -c {self.cluster}",
            )
        return None


def _ending(exit_code: int | None) -> str:
    if exit_code is None:
        return "ended without an exit code"
    return f"was killed by signal {-exit_code}" if exit_code < 0 else f"ended with exit code {exit_code}"


@dataclass(frozen=True, slots=True)
class PulledRun:
    """What of a run lies in its results directory now."""

    run: str
    results_dir: Path
    figures: int
    points: int
    files: int
    bytes: int
    finished: bool
    """False: it still runs; this is what there was."""


PACK_DEADLINE_S = 6 * 3600.0
"""For one stream of results: 100 GB, the most that is taken, at 5 MB/s."""


def record_state(ctx: Context, record: RunRecord, state: State) -> RunRecord:
    """The run as the node tells it, recorded."""
    exit_code = state.get("exit_code")
    told = replace(
        record,
        state=RunState(str(state.get("state") or record.state)),
        outcome=str(state.get("outcome") or ""),
        exit_code=exit_code if isinstance(exit_code, int) else None,
    )
    ctx.store.save_run(told)
    return told


def _bring_home(ctx: Context, cluster: Cluster, record: RunRecord, state: State) -> PullOutcome:
    told = record_state(ctx, record, state)
    pack = node_command(cluster, "pack", layout_of(cluster).run(record.id), deadline_s=PACK_DEADLINE_S)
    outcome = pull_results(
        lambda sink: ctx.transport.run(cluster.server.host, pack, on_stdout=sink),
        told,
        told.out,
        again=f"rain-deploy pull {record.id} -c {cluster.name}",
    )
    if outcome.problem:
        raise outcome.problem
    if outcome.finished:
        ctx.store.save_run(replace(told, pulled=True))
    return outcome


def pull_run(ctx: Context, cluster: Cluster, record: RunRecord, state: State) -> PulledRun:
    """Bring the run's results to ``record.out`` and record that they are there."""
    outcome = _bring_home(ctx, cluster, record, state)
    return PulledRun(
        run=record.id,
        results_dir=outcome.results_dir,
        figures=outcome.figures,
        points=outcome.points,
        files=outcome.files,
        bytes=outcome.size_bytes,
        finished=outcome.finished,
    )


def end_of(ctx: Context, cluster: Cluster, record: RunRecord, state: State) -> RunResult:
    """Pull a run that has ended, and tell how it went.

    Raises PullFailed, saying how the script ended, when the results could not be brought home.
    """
    try:
        outcome = _bring_home(ctx, cluster, record, state)
    except PullFailed as error:
        error.message += f" (the run itself: {state.get('outcome')}, exit code {state.get('exit_code')})"
        error.still_running = f"the nodes of {cluster.name}, which hold the results"
        raise
    exit_code = state.get("exit_code")
    return RunResult(
        cluster=cluster.name,
        run=record.id,
        state=str(state.get("state")),
        outcome=str(state.get("outcome")),
        exit_code=exit_code if isinstance(exit_code, int) else None,
        results_dir=outcome.results_dir,
        seconds=_seconds(state),
        figures=outcome.figures,
        points=outcome.points,
        files=outcome.files,
        failed_points=outcome.failed_points,
        message=str(state.get("message") or ""),
        limit_s=cluster.limit_s,
    )


def _seconds(state: State) -> float:
    started, ended = state.get("started_s"), state.get("ended_s")
    if not isinstance(started, int | float):
        return 0.0
    return float(ended if isinstance(ended, int | float) else time.time()) - started
