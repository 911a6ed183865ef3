"""A run, as it is recorded, and what is shipped with it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rain_deploy.node.wire import NeededModule, RunState

__all__ = ["RunRecord", "RunState"]


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run as the laptop records it."""

    id: str
    cluster_id: str
    cluster: str
    sequence: int
    port: int
    script: str
    args: tuple[str, ...]
    script_sha256: str
    created_s: float
    out: Path  # absolute path of the results, fixed when ``run`` was typed
    state: RunState = RunState.SHIPPED
    outcome: str = ""  # as in RunStatus, like ``exit_code``; empty while it runs
    exit_code: int | None = None
    message: str = ""  # why it ended so, if the outcome does not say it
    then_off: bool = False  # the machines power themselves off some minutes after its end
    again: tuple[str, ...] = ()  # flags without which another run of the script would not be the same
    pulled: bool = False  # True once everything of the finished run is in ``out`` and verified


def named(runs: Sequence[RunRecord], name: str) -> tuple[RunRecord, ...]:
    """Return the run with this id or number, the last of this script, or all whose ids begin with it."""
    ways: tuple[Callable[[RunRecord], bool], ...] = (
        lambda run: run.id == name,
        lambda run: str(run.sequence) == name,
        lambda run: name in script_names(run),
    )
    for fits in ways:
        if found := [run for run in runs if fits(run)]:
            return (found[-1],)
    return tuple(run for run in runs if run.id.startswith(name))


def script_names(run: RunRecord) -> tuple[str, ...]:
    """Return what its script may be called: as it was typed, its file name, and that without ``.py``."""
    path = Path(run.script)
    return (run.script, path.name, path.stem)


@dataclass(frozen=True, slots=True)
class ShippedFile:
    """A file to ship.  ``path`` is below the root: POSIX, never absolute, no ``..``."""

    path: str
    source: Path | bytes
    """The absolute path of a file here (a link is followed), or the content itself."""
    size_bytes: int
    sha256: str
    mode: int  # 0o755 when its owner may execute it, else 0o644


@dataclass(frozen=True, slots=True)
class Unsent:
    """Files that the script or its arguments name, and that are here, but are not sent."""

    name: str  # a directory, or a pattern such as ``data/*.csv``
    files: int
    size_bytes: int
    flag: str  # what ``--files`` takes to send it
    more: bool = False  # there are more files than were counted


@dataclass(frozen=True, slots=True)
class Shipment:
    """The findings of ``shipping.collect``, in order of paths below ``root``: only ``files`` are sent."""

    root: Path
    cwd: str  # working directory of the script; ``.`` usually
    script: str
    files: tuple[ShippedFile, ...]
    directories: tuple[str, ...] = ()
    """Directories to make: named by the script, or empty in what ``--files`` names."""
    missing: tuple[str, ...] = ()  # sentences about what is probably missing
    unsent: tuple[Unsent, ...] = ()
    imports: tuple[NeededModule, ...] = ()
    """Top-level modules that are neither shipped nor Python's own: the nodes' environment must have them."""

    @property
    def total_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)

    @property
    def script_sha256(self) -> str:
        return next(file.sha256 for file in self.files if file.path == self.script)
