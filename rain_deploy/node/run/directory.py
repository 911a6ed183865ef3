"""Runs on a node's disk: what was shipped, how each stands, and the line in which they wait."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..files import Json, read_json, write_json

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
