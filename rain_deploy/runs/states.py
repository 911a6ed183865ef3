"""Runs on record and as the server node reports them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.lookup import ask_server
from rain_deploy.core.cluster import Cluster
from rain_deploy.core.run import RunRecord, RunState
from rain_deploy.errors import (
    EngineError,
    InputError,
)
from rain_deploy.parts.services import layout_of


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


CANCEL_S = 60.0
"""For a run to end that was asked to; a script that does not listen is killed after 5 s."""


PAUSE_S = 0.2


State = Mapping[str, object]
"""state.json of a run, as node code tells it."""


def find_run(ctx: Context, cluster: str, run: str | None) -> RunRecord:
    """A run of the cluster's name by id, or the last one."""
    runs = ctx.store.runs(cluster)
    found = [record for record in runs if run in {None, record.id}]
    if not found:
        known = ", ".join(record.id for record in runs[-5:]) or "none"
        what = f"no run {run}" if run else "no run"
        raise InputError(
            f"cluster {cluster} has {what} (last runs: {known})",
            next_step=f"rain-deploy runs -c {cluster}",
        )
    return found[-1]


def run_states(ctx: Context, cluster: Cluster) -> dict[str, State]:
    """state.json of every run that the server node holds, by run id."""
    rows = json.loads(ask_server(ctx, cluster, "runs", layout_of(cluster).cluster))
    return {str(row["run"]): row for row in rows}


def unfinished(states: Mapping[str, State]) -> tuple[str, ...]:
    """Ids of the runs that wait or run."""
    over = {RunState.SHIPPED, RunState.FINISHED}
    return tuple(run for run, state in states.items() if state.get("state") not in over)


def await_end(
    ctx: Context,
    cluster: Cluster,
    runs: tuple[str, ...],
    *,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> dict[str, State]:
    """States of all runs once these have ended.  Raises EngineError after CANCEL_S."""
    deadline_s = clock() + CANCEL_S
    while True:
        states = run_states(ctx, cluster)
        left = [run for run in unfinished(states) if run in runs]
        if not left:
            return states
        if clock() > deadline_s:
            raise EngineError(
                f"{', '.join(left)} did not end within {CANCEL_S:.0f} s",
                node=cluster.server.name,
                next_step=f"rain-deploy status -c {cluster.name}",
            )
        pause(PAUSE_S)


def run_line(record: RunRecord, state: State | None = None) -> RunLine:
    """A run as recorded, or as the server node tells it where that is known."""
    known = state or {}

    def seconds(key: str) -> float | None:
        value = known.get(key)
        return float(value) if isinstance(value, int | float) else None

    exit_code = known.get("exit_code", record.exit_code)
    return RunLine(
        run=record.id,
        sequence=record.sequence,
        script=record.script,
        args=record.args,
        state=str(known.get("state", record.state)),
        outcome=str(known.get("outcome", record.outcome)),
        exit_code=exit_code if isinstance(exit_code, int) else None,
        created_s=record.created_s,
        started_s=seconds("started_s"),
        ended_s=seconds("ended_s"),
        results_dir=record.out,
        pulled=record.pulled,
    )
