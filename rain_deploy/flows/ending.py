"""How a run ends for its user: recorded as the node tells it, brought home, told as one result."""

from __future__ import annotations

import time
from dataclasses import replace

from rain_deploy.core.model import Cluster, RunRecord, RunState
from rain_deploy.errors import PullFailed
from rain_deploy.flows.clusters import State
from rain_deploy.flows.context import Context
from rain_deploy.flows.results import PulledRun, RunResult
from rain_deploy.ops.services import layout_of, node_command
from rain_deploy.results.pull import PullOutcome
from rain_deploy.results.pull import pull as pull_results

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
