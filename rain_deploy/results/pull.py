"""Pulls a run's results: one stream from the node, unpacked aside, moved into place when complete."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rain_deploy.core.run import RunRecord
from rain_deploy.core.step import CommandResult
from rain_deploy.errors import PullFailed, Unreachable, UnsafeResults, full
from rain_deploy.node.wire import RunState, RunStatus, from_json
from rain_deploy.results import points
from rain_deploy.results.landing import check_target, clear, land, manifest_of, partial_directory
from rain_deploy.results.stream import CutError, Limits
from rain_deploy.results.unpack import PulledFile, Unpacked, receive

Stream = Callable[[Callable[[bytes], None]], CommandResult]
"""Runs the node verb ``pack`` and hands its stdout to the given sink."""
ATTEMPTS = 3
"""How many connections may be lost before a pull fails."""
_STATE, _ROWS = "state.json", "points.jsonl"
_TOP = frozenset({"stdout.log", "stderr.log", _ROWS, _STATE, "figures", "attempts", "files"})
_LONGEST_STATE_BYTES = 1 << 24
_SHOWN = 10


@dataclass(frozen=True, slots=True)
class PulledRun:
    """A run's results directory, as it is now."""

    run: str
    results_dir: Path
    figures: int
    """Pictures; PNG and SVG of one count once."""
    points: int
    files: int
    """Files that the script wrote."""
    bytes: int
    finished: bool
    """False: the run goes on, and these are its results so far."""
    failed_points: int = 0


def pull(stream: Stream, run: RunRecord, out: Path, *, again: str, limits: Limits | None = None) -> PulledRun:
    """Fill ``out``, and replace only what an earlier pull of the same run left there.

    ``again`` is the command that pulls once more.  Raises InputError (``out`` holds other files),
    PullFailed (connection lost, damaged stream, disk full, ``out`` not writable; nothing half-made is
    left), UnsafeResults (a limit passed; or, once the rest is in ``out``, for names that were refused).
    """
    try:
        check_target(out, run.id)
        with partial_directory(out) as partial:
            unpacked = _received(stream, partial, limits)
            pulled = _landed(run, unpacked, partial, out)
    except OSError as error:
        why = "the disk is full" if full(error) else f"it cannot be written: {error.strerror}"
        raise PullFailed(f"no results in {out}: {why}", next_step=f"{again} --out DIR") from error
    except PullFailed as error:
        error.next_step = again
        raise
    if refused := unpacked.refused:
        more = f"; and {len(refused) - _SHOWN} more" if len(refused) > _SHOWN else ""
        raise UnsafeResults(
            f"{len(refused)} of the results were refused as unsafe, the rest is in {out}",
            details="; ".join(refused[:_SHOWN]) + more,
        )
    return pulled


def _received(stream: Stream, partial: Path, limits: Limits | None) -> Unpacked:
    def send(sink: Callable[[bytes], None]) -> None:
        result = stream(sink)
        if result.exit_status:
            raise PullFailed(
                f"the node could not pack its results (exit {result.exit_status})",
                details=result.stderr.decode("utf-8", "replace"),
            )

    for _ in range(ATTEMPTS - 1):
        with contextlib.suppress(Unreachable, CutError):
            return receive(send, partial, limits, top=_TOP)
        clear(partial)
    return receive(send, partial, limits, top=_TOP)


def _landed(run: RunRecord, unpacked: Unpacked, partial: Path, out: Path) -> PulledRun:
    """Write the tables of points, and move everything to ``out`` with its manifest."""
    status = _status(partial / _STATE)
    (partial / _STATE).unlink(missing_ok=True)  # the manifest takes its place
    files = [file for file in unpacked.files if file.path != _STATE]
    rows = points.fold(points.read_rows(partial / _ROWS))
    for name, write in (("points.csv", points.write_csv), ("points.json", points.write_json)):
        with (partial / name).open("w", encoding="utf-8", newline="") as table:
            write(rows, table)
        data = (partial / name).read_bytes()
        files.append(PulledFile(name, len(data), hashlib.sha256(data).hexdigest()))
    land(partial, out, manifest_of(run, status, files))
    return PulledRun(
        run=run.id,
        results_dir=out,
        figures=len({Path(file.path).with_suffix("") for file in files if file.path.startswith("figures/")}),
        points=len(rows),
        files=sum(file.path.startswith("files/") for file in files),
        bytes=sum(file.size_bytes for file in files),
        finished=status.state == RunState.FINISHED,
        failed_points=sum(row.state == "failed" for row in rows),
    )


def _status(path: Path) -> RunStatus:
    """Return the node's report about the run; the node may have sent anything."""
    try:
        with path.open("rb") as stream:
            value = json.loads(stream.read(_LONGEST_STATE_BYTES), parse_constant=lambda _: None)
        return from_json(RunStatus, value)
    except (FileNotFoundError, ValueError, RecursionError):
        return RunStatus()
