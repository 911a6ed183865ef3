"""Brings a run's results home: one stream from the node, unpacked aside, landed by renames."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rain_deploy.core.command import CommandResult
from rain_deploy.core.run import RunRecord
from rain_deploy.errors import InputError, Locked, PullFailed, RainDeployError, Unreachable, UnsafeResults
from rain_deploy.results import manifest, points
from rain_deploy.results.names import encode_name
from rain_deploy.results.unpack import CutError, Limits, PulledFile, Unpacked, Unpacker

Stream = Callable[[Callable[[bytes], None]], CommandResult]
"""Runs node verb ``pack``, its stdout going to the given sink."""
ATTEMPTS = 3
"""Connections that may be lost before a pull fails."""
_LOCK_DEADLINE_S = 600.0
_STATE, _ROWS = "state.json", "points.jsonl"
_TOP = frozenset({"stdout.log", "stderr.log", _ROWS, _STATE, "figures", "attempts", "files"})
_LONGEST_STATE_BYTES = 1 << 24
_SHOWN = 10


@dataclass(frozen=True, slots=True)
class PullOutcome:
    """What lies in ``results_dir`` now."""

    results_dir: Path
    files: int
    """That the script wrote."""
    figures: int
    """Pictures; PNG and SVG of one count once."""
    points: int
    failed_points: int
    size_bytes: int
    finished: bool
    """False: the run goes on, this is what there was."""
    refused: tuple[str, ...] = ()
    """What the node offered and was not taken, encoded for print."""

    @property
    def problem(self) -> RainDeployError | None:
        if not self.refused:
            return None
        more = len(self.refused) - _SHOWN
        shown = "; ".join(self.refused[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")
        return UnsafeResults(
            f"{len(self.refused)} of the results were refused as unsafe, the rest is in {self.results_dir}",
            details=shown,
        )


def check_target(out: Path, run_id: str) -> None:
    """Raises InputError when ``out`` is something else than a place for this run's results."""
    if not out.exists():
        return
    if not out.is_dir():
        raise InputError(f"the results directory {out} is a file", next_step="name another with --out")
    found = manifest.read(out)
    if found is not None and found["run"] == run_id:
        return
    other = next((entry for entry in sorted(out.iterdir()) if entry.name != _partial(out).name), None)
    if other is not None:
        raise InputError(
            f"the results directory {out} holds other files ({encode_name(other.name)})",
            next_step="name another with --out",
        )


def pull(
    stream: Stream, run: RunRecord, out: Path, *, again: str, limits: Limits | None = None
) -> PullOutcome:
    """Fill ``out``, replacing what an earlier pull of the same run left there and nothing else.

    ``again`` is the command that pulls once more.  Raises InputError (``out`` holds other files),
    PullFailed (connection lost, damaged stream, disk full, ``out`` not writable; nothing half-made is
    left), UnsafeResults (a limit passed).  Refused files are no failure but in ``PullOutcome.problem``.
    """
    with _explained(out, again):
        check_target(out, run.id)
        with _partial_directory(out) as partial:
            return _landed(run, _received(stream, partial, limits), partial, out)


@contextlib.contextmanager
def _explained(out: Path, again: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        why = "the disk is full" if full else f"it cannot be written: {error.strerror}"
        raise PullFailed(f"no results in {out}: {why}", next_step=f"{again} --out DIR") from error
    except PullFailed as error:
        error.next_step = f"{again} --out DIR" if isinstance(error.__cause__, OSError) else again
        raise


# ---- the place where results lie until all are there


def _partial(out: Path) -> Path:
    """On the same file system as ``out``: in it where it exists, else beside it."""
    return out / ".partial" if out.is_dir() else out.parent / f".{out.name}.partial"


@contextlib.contextmanager
def _partial_directory(out: Path) -> Iterator[Path]:
    """An empty directory that this pull holds alone, and that is gone when it ends."""
    partial, handle = _locked(out)
    try:
        _clear(partial)
        yield partial
    finally:
        if _is_at(handle, partial):
            shutil.rmtree(partial, ignore_errors=True)
        os.close(handle)


def _locked(out: Path) -> tuple[Path, int]:
    """Two pulls of one run at a time take turns."""
    deadline = time.monotonic() + _LOCK_DEADLINE_S
    while time.monotonic() < deadline:
        partial = _partial(out)
        partial.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(partial, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(handle, partial):
                return partial, handle
        os.close(handle)
        time.sleep(0.1)
    raise Locked(f"another command has been pulling to {out} for {_LOCK_DEADLINE_S:.0f} s")


def _is_at(handle: int, path: Path) -> bool:
    """The directory that was opened still has its name, so nobody landed or removed it meanwhile."""
    try:
        return os.path.samestat(os.fstat(handle), path.lstat())
    except FileNotFoundError:
        return False


def _clear(directory: Path) -> None:
    for entry in directory.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _received(stream: Stream, partial: Path, limits: Limits | None) -> Unpacked:
    for left in reversed(range(ATTEMPTS)):
        unpacker = Unpacker(partial, limits, top=_TOP)
        try:
            result = stream(unpacker.write)
            if result.exit_status:
                raise PullFailed(
                    f"the node could not pack its results (exit {result.exit_status})",
                    details=result.stderr.decode("utf-8", "replace"),
                )
            return unpacker.close()
        except (Unreachable, CutError):
            if not left:
                raise
        finally:
            unpacker.abandon()
        _clear(partial)
    raise AssertionError


# ---- landing


def _landed(run: RunRecord, unpacked: Unpacked, partial: Path, out: Path) -> PullOutcome:
    state = _state(partial / _STATE)
    rows = points.fold(points.read_rows(partial / _ROWS))
    (partial / _STATE).unlink(missing_ok=True)  # the manifest takes its place
    files = [file for file in unpacked.files if file.path != _STATE] + _tables(partial, rows)
    finished = state.get("state") == "finished"
    made = manifest.build(run, state, files, complete=finished)
    _land(partial, out, made, [file.path for file in files])
    pictures = {Path(file.path).with_suffix("") for file in files if file.path.startswith("figures/")}
    return PullOutcome(
        results_dir=out,
        files=sum(file.path.startswith("files/") for file in files),
        figures=len(pictures),
        points=len(rows),
        failed_points=sum(row.get("state") == "failed" for row in rows),
        size_bytes=sum(file.size_bytes for file in files),
        finished=finished,
        refused=unpacked.refused,
    )


def _state(path: Path) -> dict[str, object]:
    """The node's word on the run; a stranger's, so that it may be anything."""
    try:
        with path.open("rb") as stream:
            state = json.loads(stream.read(_LONGEST_STATE_BYTES), parse_constant=lambda _: None)
    except (FileNotFoundError, ValueError, RecursionError):
        return {}
    return {str(key): _shallow(value) for key, value in state.items()} if isinstance(state, dict) else {}


def _shallow(value: object, depth: int = 2) -> object:
    """Without what is nested so deep that it can only be meant to harm its reader."""
    match value:
        case dict():
            return {str(key): _shallow(inner, depth - 1) for key, inner in value.items()} if depth else None
        case list():
            return [_shallow(inner, depth - 1) for inner in value] if depth else None
        case _:
            return value


def _tables(directory: Path, rows: tuple[points.Row, ...]) -> list[PulledFile]:
    with (directory / "points.csv").open("w", encoding="utf-8", newline="") as table:
        points.write_csv(rows, table)
    with (directory / "points.json").open("w", encoding="utf-8") as table:
        points.write_json(rows, table)
    return [_made(directory, name) for name in ("points.csv", "points.json")]


def _made(directory: Path, name: str) -> PulledFile:
    data = (directory / name).read_bytes()
    return PulledFile(name, len(data), hashlib.sha256(data).hexdigest())


def _land(partial: Path, out: Path, made: manifest.Manifest, names: list[str]) -> None:
    if not out.exists():
        manifest.write(partial, made)
        partial.chmod(0o755)
        partial.rename(out)
        return
    found = manifest.read(out)
    earlier = manifest.paths(found) if found else frozenset()
    gone = earlier.difference(names)
    foreign = [name for name in names if name not in earlier and os.path.lexists(out / name)]
    if foreign:
        raise InputError(
            f"{foreign[0]!a} in {out} is not of this run and would be overwritten",
            next_step="name another directory with --out",
        )
    # From here the manifest claims old and new, so that a pull after a kill knows all of it as its own.
    manifest.write(partial, manifest.claiming(made, gone)).replace(out / manifest.NAME)
    for name in gone:
        _remove(out, name)
    for name in names:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (partial / name).replace(out / name)
    manifest.write(partial, made).replace(out / manifest.NAME)


def _remove(out: Path, name: str) -> None:
    """A file of an earlier pull, and the directories that it leaves empty."""
    path = out / name
    if path.resolve().is_relative_to(out.resolve()):
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            for above in path.relative_to(out).parents[:-1]:
                (out / above).rmdir()
