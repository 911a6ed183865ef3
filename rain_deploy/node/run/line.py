"""The line in which runs wait on the server node."""

from __future__ import annotations

import time
from pathlib import Path

from ..files import Json, read_json
from .directory import FINISHED, Run, all_runs


def unfinished(runs_dir: Path) -> tuple[Run, ...]:
    """Queued and active runs, first in line first."""
    return tuple(run for run in all_runs(runs_dir) if run.state()["state"] not in {"shipped", FINISHED})


def cancel(run: Run) -> Json:
    """Ask for a run's end; one that was never in line ends here."""
    (run.path / "cancel").touch()
    state = run.state()
    if state["state"] != "shipped":
        return state
    run.forget_env()
    return run.update(state=FINISHED, outcome="cancelled", message="never in line", ended_s=time.time())


def interrupted(runs_dir: Path) -> list[str]:
    """End the runs that a power-off broke off, and tell which; for a node where no supervisor goes on.

    A script that ended badly with nobody there to say so was ended by the power-off.
    """
    broken = unfinished(runs_dir)
    for run in broken:
        run.forget_env()
        told = read_json(run.path / "exit.json") or {}
        exit_code = told.get("exit_code")
        outcome = "done" if exit_code == 0 else "limit"
        message = "the machine was powered off before it ended" if outcome == "limit" else ""
        ended_s = told.get("ended_s", time.time())
        run.update(state=FINISHED, outcome=outcome, message=message, exit_code=exit_code, ended_s=ended_s)
    return [run.id for run in broken]


def ahead(run: Run) -> int:
    """How many unfinished runs are before this one."""
    line = unfinished(run.path.parent)
    return sum((other.sequence, other.id) < (run.sequence, run.id) for other in line)


def queue(run: Run) -> Json:
    """Put a run in line; one that is there stays as it is."""
    state = run.state()
    if state["state"] != "shipped":
        return state
    return run.update(
        state="queued",
        outcome="",
        exit_code=None,
        attempt=1,
        epoch=0,
        queued_s=time.time(),
        started_s=None,
        ended_s=None,
        nodes=[],
        missing=[],
        message="",
        versions={},
    )
