"""A run's directory on a node, which holds everything about the run, and the job that runs its script."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..files import load, read_json, write_json
from ..service.process import identify
from ..wire import RunDescription, RunState, RunStatus


@dataclass(frozen=True, slots=True)
class JobStart:
    """job.json: the script is being started."""

    started_s: float
    pid: int | None = None


@dataclass(frozen=True, slots=True)
class ScriptEnd:
    """exit.json: how the script ended."""

    exit_code: int
    started_s: float | None = None
    ended_s: float | None = None


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

    def finish(self, outcome: str, message: str = "", **changes: Any) -> RunStatus:
        """Record that the run is over, and delete its variables.  Raises OSError."""
        self.forget_env()
        return self.update(state=RunState.FINISHED, outcome=outcome, message=message, **changes)

    @property
    def finished(self) -> bool:
        return self.status().state == RunState.FINISHED

    @property
    def cancelled(self) -> bool:
        """True once somebody has cancelled the run."""
        return (self.path / "cancel").exists()

    @property
    def attempt_dir(self) -> Path:
        return self.path / "epochs" / str(self.status().attempt)

    @property
    def job_start(self) -> JobStart | None:
        return load(self.path / "job.json", JobStart)

    @property
    def script_end(self) -> ScriptEnd | None:
        return load(self.path / "exit.json", ScriptEnd)

    def extra_env(self) -> dict[str, str]:
        """Return the variables of ``--env``."""
        return {name: str(value) for name, value in (read_json(self.path / "env.json") or {}).items()}

    def forget_env(self) -> None:
        """Delete the variables, which may be secrets."""
        (self.path / "env.json").unlink(missing_ok=True)

    def companion_env(self, code: Path) -> dict[str, str]:
        """Return the variables that switch the companion on in the script and in Rain's executors."""
        if not self.about.companion:
            return {}
        return {"RAIN_DEPLOY_COMPANION": str(code / "site"), "RAIN_DEPLOY_RUN_DIR": str(self.path)}


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


def run_job(run_dir: Path) -> int:
    """Run a run's script once, and record how it ended, even if the supervisor is gone by then.

    Environment and output are the caller's.
    """
    run = the_run(run_dir)
    # A handler, not SIG_IGN, which the script would inherit.  The job outlives the script to record its end.
    signal.signal(signal.SIGTERM, lambda _number, _frame: None)
    started_s = time.time()
    myself = identify(os.getpid())
    write_json(run_dir / "job.json", JobStart(started_s, myself.pid if myself else None))
    files = run_dir / "files"
    exit_code = _script(files / run.about.cwd, files / run.about.script, run.about.args)
    write_json(run_dir / "exit.json", ScriptEnd(exit_code, started_s, time.time()))
    return 0


def _script(cwd: Path, script: Path, args: tuple[str, ...]) -> int:
    """Run ``python script args`` in ``cwd``, with the script's path relative to it; return its exit code."""
    name = os.path.relpath(script, cwd)
    argv = [sys.executable, f"./{name}" if name.startswith("-") else name, *args]
    env = {**os.environ, "PWD": str(cwd)}  # as a shell's cd leaves it; Rain's library warns of another
    try:
        return subprocess.run(argv, stdin=subprocess.DEVNULL, cwd=cwd, env=env, check=False).returncode
    except OSError as error:
        print(f"the script cannot be started: {error}", file=sys.stderr)
        return 127
