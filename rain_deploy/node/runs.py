"""Runs on a node's disk: what was shipped, how each stands, and the line in which they wait."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from .files import Json, read_json, write_json

FINISHED = "finished"


@dataclass(frozen=True, slots=True)
class Run:
    """A shipped run; all of it is in its directory."""

    path: Path
    id: str
    sequence: int
    port: int
    script: str
    cwd: str
    args: tuple[str, ...]
    timeout_s: float | None
    min_nodes: int | None
    companion: bool
    live: tuple[str, ...]
    nodes: tuple[str, ...]
    """Names of those that have it: others may have joined the cluster since."""

    def state(self) -> Json:
        """Content of state.json; ``{"state": "shipped"}`` when it was not queued here."""
        return read_json(self.path / "state.json") or {"state": "shipped"}

    def update(self, **changes: object) -> Json:
        """Change state.json.  Only the supervisor does this once a run is queued."""
        state = {**self.state(), **changes}
        write_json(self.path / "state.json", state)
        return state

    @property
    def finished(self) -> bool:
        return bool(self.state()["state"] == FINISHED)

    @property
    def cancelled(self) -> bool:
        """True once somebody asked for its end."""
        return (self.path / "cancel").exists()

    @property
    def attempt_dir(self) -> Path:
        return self.path / "epochs" / str(self.state().get("attempt", 1))

    def extra_env(self) -> dict[str, str]:
        """Variables of ``--env``."""
        return {name: str(value) for name, value in (read_json(self.path / "env.json") or {}).items()}

    def forget_env(self) -> None:
        """Remove the variables, which may be secrets."""
        (self.path / "env.json").unlink(missing_ok=True)

    def companion_env(self, code: Path) -> dict[str, str]:
        """What wakes the companion in the script and in Rain's executors."""
        if not self.companion:
            return {}
        return {"RAIN_DEPLOY_COMPANION": str(code / "site"), "RAIN_DEPLOY_RUN_DIR": str(self.path)}


def load(path: Path) -> Run | None:
    """The run in a directory; None when none was shipped there whole."""
    value = read_json(path / "run.json") or {}
    try:
        return Run(
            path=path,
            id=value["run"],
            sequence=int(value["sequence"]),
            port=int(value["port"]),
            script=value["script"],
            cwd=value.get("cwd") or ".",
            args=tuple(value.get("args", ())),
            timeout_s=value.get("timeout_s"),
            min_nodes=value.get("min_nodes"),
            companion=bool(value.get("companion")),
            live=tuple(value.get("live", ())),
            nodes=tuple(value.get("nodes", ())),
        )
    except (KeyError, TypeError, ValueError):
        return None


def all_runs(runs_dir: Path, skip: frozenset[str] = frozenset()) -> tuple[Run, ...]:
    """Runs by their place in the line, but not those whose directory names are in ``skip``."""
    try:
        names = [entry.name for entry in runs_dir.iterdir() if entry.name not in skip]
    except FileNotFoundError:
        return ()
    found = (load(runs_dir / name) for name in names)
    return tuple(sorted((run for run in found if run), key=lambda run: (run.sequence, run.id)))


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
