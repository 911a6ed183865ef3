"""The line in which runs wait on the server node: ``queue``, ``cancel``, ``interrupted``."""

from __future__ import annotations

import time
from pathlib import Path

from ..files import write_json
from ..wire import Outcome, RunState, RunStatus
from .directory import Run, all_runs


def unfinished(runs_dir: Path) -> tuple[Run, ...]:
    """Return the queued and active runs, first in line first."""
    return tuple(run for run in all_runs(runs_dir) if run.status().waits_or_runs)


def ahead(run: Run) -> int:
    """Return how many unfinished runs are before this one."""
    line = unfinished(run.path.parent)
    return sum((other.about.sequence, other.id) < (run.about.sequence, run.id) for other in line)


def queue(run: Run) -> RunStatus:
    """Put a run in line; one that is there stays as it is."""
    status = run.status()
    if status.state != RunState.SHIPPED:
        return status
    status = RunStatus(state=RunState.QUEUED, queued_s=time.time())
    write_json(run.path / "state.json", status)
    return status


def cancel(run: Run) -> RunStatus:
    """Ask for a run's end; one that was never in line ends here."""
    (run.path / "cancel").touch()
    status = run.status()
    if status.state != RunState.SHIPPED:
        return status
    return run.finish(Outcome.CANCELLED, "never in line", ended_s=time.time())


def interrupted(runs_dir: Path) -> list[str]:
    """End the runs that a power-off broke off, and return their ids; for a node without a supervisor.

    A script that ended badly while no supervisor was there to say so was ended by the power-off.
    """
    broken = unfinished(runs_dir)
    for run in broken:
        end = run.script_end
        ended_s = (end.ended_s if end else None) or time.time()
        if end and end.exit_code == 0:
            run.finish(Outcome.DONE, exit_code=0, ended_s=ended_s)
        else:
            message = "the machine was powered off before it ended"
            run.finish(Outcome.LIMIT, message, exit_code=end.exit_code if end else None, ended_s=ended_s)
    return [run.id for run in broken]
