"""Ends a run: records how it went, pulls its results, and returns both as one result."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rain_deploy.cluster.context import Context
from rain_deploy.core.cluster import Cluster
from rain_deploy.core.events import Result
from rain_deploy.core.run import RunRecord
from rain_deploy.errors import (
    EndedEarly,
    EngineError,
    InputError,
    PointsFailed,
    PullFailed,
    RainDeployError,
    ScriptFailed,
)
from rain_deploy.node.wire import Outcome, RunStatus
from rain_deploy.parts.services import layout_of, node_command
from rain_deploy.results.landing import read_manifest
from rain_deploy.results.pull import PullOutcome
from rain_deploy.results.pull import pull as pull_results
from rain_deploy.runs.states import record_state


@dataclass(frozen=True, slots=True)
class RunResult(Result):
    """``run`` and ``attach``: how a run stands when the command ends."""

    cluster: str
    run: str
    state: str
    outcome: str
    """As in RunRecord; empty while it runs."""
    exit_code: int | None
    """Exit code of the script itself; negative: killed by that signal."""
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
        run, outcome, where = f"run {self.run}", self.outcome, f"{self.run} -c {self.cluster}"
        if outcome in {Outcome.DONE, Outcome.FAILED} and self.failed_points:
            return PointsFailed(
                f"{run}: {self.failed_points} points failed",
                details=self.message or None,
                next_step=f"rain-deploy points {where}",
            )
        if outcome == Outcome.FAILED:
            message = f"{run}: the script {_ending(self.exit_code)}"
            return ScriptFailed(message, next_step=f"rain-deploy logs {where}")
        if outcome in {Outcome.CANCELLED, Outcome.TIMEOUT, Outcome.LIMIT}:
            how = {Outcome.TIMEOUT: "timed out", Outcome.LIMIT: "stopped"}.get(Outcome(outcome), outcome)
            why = f" ({self.message})" if self.message else ""
            message = f"{run}: {how} before its script ended{why}"
            return EndedEarly(message, next_step=f"rain-deploy logs {where}")
        if outcome in {Outcome.ENGINE, Outcome.LOST}:
            message = f"{run}: {self.message or 'Rain could not run it'}"
            return EngineError(message, next_step=f"rain-deploy status -c {self.cluster}")
        return None

    @property
    def value(self) -> Any:
        """What the function returned, read from the results.  Raises ``problem``; InputError without one.

        A function's script leaves it as JSON beside itself: reading it runs nothing that a node has sent.
        """
        if self.problem:
            raise self.problem
        made = read_manifest(self.results_dir) or {}
        path = self.results_dir / "files" / Path(str(made.get("script", "none"))).with_suffix(".json")
        try:
            return json.loads(path.read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(
                f"run {self.run} has no value here: {path} cannot be read: {error}",
                next_step="only a function returns a value, once its run has ended and is pulled",
            ) from error


def _ending(exit_code: int | None) -> str:
    if exit_code is None:
        return "ended without an exit code"
    return f"was killed by signal {-exit_code}" if exit_code < 0 else f"ended with exit code {exit_code}"


@dataclass(frozen=True, slots=True)
class PulledRun:
    """A run's results directory, as it is now."""

    run: str
    results_dir: Path
    figures: int
    points: int
    files: int
    bytes: int
    finished: bool
    """False: the run goes on, and these are its results so far."""


PACK_DEADLINE_S = 6 * 3600.0
"""How long one stream of results may take: 100 GB, the most that is accepted, at 5 MB/s."""


def _pulled(ctx: Context, cluster: Cluster, record: RunRecord, status: RunStatus) -> PullOutcome:
    record = record_state(ctx, record, status)
    pack = node_command(cluster, "pack", layout_of(cluster).run(record.id), deadline_s=PACK_DEADLINE_S)
    outcome = pull_results(
        lambda sink: ctx.transport.run(cluster.server.host, pack, on_stdout=sink),
        record,
        record.out,
        again=f"rain-deploy pull {record.id} -c {cluster.name}",
    )
    if outcome.problem:
        raise outcome.problem
    if outcome.finished:
        ctx.store.save_run(replace(record, pulled=True))
    return outcome


def pull_run(ctx: Context, cluster: Cluster, record: RunRecord, status: RunStatus) -> PulledRun:
    """Pull the run's results to ``record.out``, and record that they are there."""
    outcome = _pulled(ctx, cluster, record, status)
    return PulledRun(
        run=record.id,
        results_dir=outcome.results_dir,
        figures=outcome.figures,
        points=outcome.points,
        files=outcome.files,
        bytes=outcome.size_bytes,
        finished=outcome.finished,
    )


def end_of(ctx: Context, cluster: Cluster, record: RunRecord, status: RunStatus) -> RunResult:
    """Pull a run that has ended, and return how it went.

    Raises PullFailed, whose message includes how the script ended, if the results could not be pulled.
    """
    try:
        outcome = _pulled(ctx, cluster, record, status)
    except PullFailed as error:
        error.message += f" (the run itself: {status.outcome}, exit code {status.exit_code})"
        error.still_running = f"the nodes of {cluster.name}, which hold the results"
        raise
    return RunResult(
        cluster=cluster.name,
        run=record.id,
        state=status.state,
        outcome=status.outcome,
        exit_code=status.exit_code,
        results_dir=outcome.results_dir,
        seconds=(status.ended_s or time.time()) - status.started_s if status.started_s else 0.0,
        figures=outcome.figures,
        points=outcome.points,
        files=outcome.files,
        failed_points=outcome.failed_points,
        message=status.message,
        limit_s=cluster.limit_s,
    )
