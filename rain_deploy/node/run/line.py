"""The line of waiting runs on the server node: ``queue``, ``cancel``, ``interrupted``."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from ..files import node_config, write_json
from ..service.ensure import supervisor_path
from ..service.process import recorded
from ..wire import BUSY, Outcome, RunState, RunStatus, StateLine, extended
from .directory import Run, all_runs, the_run


def unfinished(runs_dir: Path) -> tuple[Run, ...]:
    """Return the queued and active runs, first in line first."""
    return tuple(run for run in all_runs(runs_dir) if run.status().waits_or_runs)


def ahead(run: Run) -> int:
    """Return how many unfinished runs are before this one."""
    line = unfinished(run.path.parent)
    return sum((other.about.sequence, other.id) < (run.about.sequence, run.id) for other in line)


def queue(run: Run) -> RunStatus:
    """Put a run in line; one that is in line already stays as it is."""
    status = run.status()
    if status.state != RunState.SHIPPED:
        return status
    status = RunStatus(state=RunState.QUEUED, queued_s=time.time())
    write_json(run.path / "state.json", status)
    return status


def state_line(run: Run) -> StateLine:
    """Return a run's state and, while it waits, the number of runs before it."""
    status = run.status()
    return extended(status, StateLine, ahead=ahead(run) if status.state == RunState.QUEUED else 0)


def join(run_dir: Path, *, no_wait: bool) -> StateLine | int:
    """Queue a run; with ``no_wait`` only if no other run is in line."""
    run = the_run(run_dir)
    others = [other.id for other in unfinished(run_dir.parent) if other.id != run.id]
    if no_wait and others:
        run.forget_env()
        print(f"other runs are not finished: {', '.join(others)}", file=sys.stderr)
        return BUSY
    queue(run)
    return state_line(run)


def cancel(run_dir: Path) -> RunStatus:
    """Ask for a run's end; a run that was never in line ends at once."""
    run = the_run(run_dir)
    (run.path / "cancel").touch()
    status = run.status()
    if status.state != RunState.SHIPPED:
        return status
    return run.finish(Outcome.CANCELLED, "never in line", ended_s=time.time())


def end_interrupted(node_dir: Path) -> list[str]:
    """End the runs that a power-off interrupted, on a node without a supervisor; return their ids."""
    config = node_config(node_dir)
    supervised = recorded(supervisor_path(config).with_suffix(".pid"))
    return [] if supervised else interrupted(config.runs_dir)


def interrupted(runs_dir: Path) -> list[str]:
    """End all runs that are not finished, and return their ids.

    A script that ended badly while no supervisor ran was ended by the power-off.
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
