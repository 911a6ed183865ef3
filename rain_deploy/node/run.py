"""A run on a node: its directory, its place in the queue, and its job."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from . import wire
from .files import load, read_json, tail, write_json
from .lives import Lives
from .wire import NeededModule, Outcome, RunDescription, RunEvent, RunState, RunStatus, StateLine

_MOST_WARNINGS_BYTES = 8000


@dataclass(frozen=True, slots=True)
class Script:
    """job.json once the script is being started, and exit.json once it has ended."""

    started_s: float | None = None
    ended_s: float | None = None
    exit_code: int | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """A run that was shipped to this node."""

    path: Path
    about: RunDescription

    @property
    def id(self) -> str:
        return self.about.run

    def status(self) -> RunStatus:
        """Return what state.json says; ``shipped`` if the run was not queued here."""
        return load(self.path / "state.json", RunStatus) or RunStatus()

    def update(self, **changes: Any) -> RunStatus:
        """Change state.json.  Only the supervisor does this once a run is queued."""
        status = replace(self.status(), **changes)
        write_json(self.path / "state.json", status)
        return status

    @property
    def lives(self) -> Lives:
        return load(self.path / "lives.json", Lives) or Lives()

    def keep_lives(self, lives: Lives) -> None:
        """Record what counts over all attempts.  Raises OSError."""
        write_json(self.path / "lives.json", lives)

    def report(self, message: str) -> None:
        """Add a line for the user to the run's events, unless this attempt has it.  Raises OSError."""
        status = self.status()
        event = RunEvent(at_s=time.time(), attempt=status.attempt, message=message)
        if all((one.attempt, one.message) != (event.attempt, message) for one in status.events):
            self.update(events=(*status.events, event))

    def finish(self, outcome: str, message: str = "", **changes: Any) -> RunStatus:
        """Record that the run is over, and delete its variables.  Raises OSError."""
        self.forget_env()
        warnings = (*self.status().warnings, *self._lost())
        return self.update(
            state=RunState.FINISHED,
            outcome=outcome,
            message=message,
            warnings=tuple(dict.fromkeys(warnings)),
            **changes,
        )

    def _lost(self) -> list[str]:
        """Return what the companion could not do for the script, a sentence each."""
        return tail(self.path / "companion" / "warnings.txt", _MOST_WARNINGS_BYTES).splitlines()

    def missing_modules(self) -> list[NeededModule]:
        """Return the modules that the environment does not have.  We may run without it."""
        places = [*sys.path, self.about.packages]
        if not os.path.isdir(self.about.packages):  # noqa: PTH112 - an empty text is no path
            return []
        return [one for one in self.about.imports if PathFinder.find_spec(one.name, places) is None]

    @property
    def cancelled(self) -> bool:
        """True once somebody has cancelled the run."""
        return (self.path / "cancel").exists()

    @property
    def attempt_dir(self) -> Path:
        return self.path / "epochs" / str(self.status().attempt)

    @property
    def script_end(self) -> Script | None:
        return load(self.path / "exit.json", Script)

    @property
    def script_dir(self) -> Path:
        """Return the directory of the script on this node, where Python looks first for what it imports."""
        return (self.path / "files" / self.about.script).parent

    def env(self, code: Path) -> dict[str, str]:
        """Return the variables of ``--env``, and those that switch the companion on if the run wants it."""
        companion = {"RAIN_DEPLOY_COMPANION": str(code / "site"), "RAIN_DEPLOY_RUN_DIR": str(self.path)}
        return (companion if self.about.companion else {}) | self.variables()

    def variables(self) -> dict[str, str]:
        """Return the variables of ``--env``."""
        return {name: str(value) for name, value in read_json(self.path / "env.json").items()}

    def forget_env(self) -> None:
        """Delete the variables, which may be secrets."""
        (self.path / "env.json").unlink(missing_ok=True)


class NoSuchRun(Exception):  # noqa: N818 - a fact about the argument
    """A directory holds no run that was shipped whole."""


def the_run(path: Path) -> Run:
    """Return the run in a directory.  Raises NoSuchRun."""
    if run := load_run(path):
        return run
    raise NoSuchRun(f"{path} holds no run")


def load_run(path: Path) -> Run | None:
    """Return the run in a directory; None when none was shipped there whole."""
    about = load(path / "run.json", RunDescription)
    return Run(path, about) if about else None


def all_runs(runs_dir: Path, skip: frozenset[str] = frozenset()) -> tuple[Run, ...]:
    """Return the runs by their place in the line, except directories named in ``skip``."""
    try:
        names = [entry.name for entry in runs_dir.iterdir() if entry.name not in skip]
    except FileNotFoundError:
        return ()
    found = (load_run(runs_dir / name) for name in names)
    return tuple(sorted((run for run in found if run), key=lambda run: (run.about.sequence, run.id)))


def unfinished(runs_dir: Path) -> tuple[Run, ...]:
    """Return the queued and active runs in the order of the queue."""
    return tuple(run for run in all_runs(runs_dir) if run.status().waits_or_runs)


def state_line(run: Run) -> StateLine:
    """Return a run's state and, while it waits, the number of runs before it."""
    status, ahead = run.status(), 0
    if status.state == RunState.QUEUED:
        place = (run.about.sequence, run.id)
        ahead = sum((other.about.sequence, other.id) < place for other in unfinished(run.path.parent))
    return wire.extended(status, StateLine, ahead=ahead)


def join(run_dir: Path, *, no_wait: bool) -> StateLine | int:
    """Queue a run, unless it is queued; with ``no_wait`` only if no other run is waiting or active."""
    run = the_run(run_dir)
    others = [other.id for other in unfinished(run_dir.parent) if other.id != run.id]
    if no_wait and others:
        run.forget_env()
        print(f"other runs are not finished: {', '.join(others)}", file=sys.stderr)
        return wire.BUSY
    if run.status().state == RunState.SHIPPED:
        if not (run.path / "env.json").exists():
            print(
                "it was sent too long ago, and its variables were deleted; run the script again",
                file=sys.stderr,
            )
            return 1
        missing = run.missing_modules()
        if sure := [one for one in missing if one.sure]:
            run.forget_env()
            print(json.dumps(wire.to_json(sure)), file=sys.stderr)
            return wire.MODULES_MISSING
        warnings = tuple(f"{one.where}, imports {one.name}, which the nodes do not have" for one in missing)
        run.update(state=RunState.QUEUED, queued_s=time.time(), warnings=warnings)
    return state_line(run)


def cancel(run_dir: Path) -> RunStatus:
    """Ask for a run's end; a run that was never queued ends at once."""
    run = the_run(run_dir)
    (run.path / "cancel").touch()
    status = run.status()
    if status.state != RunState.SHIPPED:
        return status
    return run.finish(Outcome.CANCELLED, "never queued", ended_s=time.time())


def run_job(run_dir: Path) -> int:
    """Run a run's script with the caller's environment and output, and record how it ended."""
    run, started_s = the_run(run_dir), time.time()
    # A handler, not SIG_IGN, which the script would inherit.  The job stays to record the script's end.
    signal.signal(signal.SIGTERM, lambda _number, _frame: None)
    write_json(run_dir / "job.json", Script(started_s))
    cwd = run_dir / "files" / run.about.cwd
    name = os.path.relpath(run_dir / "files" / run.about.script, cwd)
    argv = [sys.executable, f"./{name}" if name.startswith("-") else name, *run.about.args]
    env = {**os.environ, "PWD": str(cwd)}  # as a shell's cd leaves it; Rain's library warns of another
    try:
        exit_code = subprocess.run(argv, stdin=subprocess.DEVNULL, cwd=cwd, env=env, check=False).returncode
    except OSError as error:
        print(f"the script cannot be started: {error}", file=sys.stderr)
        exit_code = 127
    write_json(run_dir / "exit.json", Script(started_s, time.time(), exit_code))
    return 0
