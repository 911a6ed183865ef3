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
from rain_deploy.errors import PullFailed, RainDeployError, Unreachable, UnsafeResults, full
from rain_deploy.node.wire import PointRow, RunState, RunStatus, from_json
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
class PullOutcome:
    """What ``results_dir`` holds now."""

    results_dir: Path
    files: int
    """Files that the script wrote."""
    figures: int
    """Pictures; PNG and SVG of one count once."""
    points: int
    failed_points: int
    size_bytes: int
    finished: bool
    """False while the run goes on: these are the results so far."""
    refused: tuple[str, ...] = ()
    """Names that the node sent and that were refused, encoded for print."""

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


def pull(
    stream: Stream, run: RunRecord, out: Path, *, again: str, limits: Limits | None = None
) -> PullOutcome:
    """Fill ``out``, and replace only what an earlier pull of the same run left there.

    ``again`` is the command that pulls once more.  Raises InputError (``out`` holds other files),
    PullFailed (connection lost, damaged stream, disk full, ``out`` not writable; nothing half-made is
    left), UnsafeResults (a limit passed).  Refused files do not raise: see ``PullOutcome.problem``.
    """
    try:
        check_target(out, run.id)
        with partial_directory(out) as partial:
            return _landed(run, _received(stream, partial, limits), partial, out)
    except OSError as error:
        why = "the disk is full" if full(error) else f"it cannot be written: {error.strerror}"
        raise PullFailed(f"no results in {out}: {why}", next_step=f"{again} --out DIR") from error
    except PullFailed as error:
        error.next_step = again
        raise


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


def _landed(run: RunRecord, unpacked: Unpacked, partial: Path, out: Path) -> PullOutcome:
    status = _status(partial / _STATE)
    rows = points.fold(points.read_rows(partial / _ROWS))
    (partial / _STATE).unlink(missing_ok=True)  # the manifest takes its place
    files = [file for file in unpacked.files if file.path != _STATE] + _tables(partial, rows)
    finished = status.state == RunState.FINISHED
    made = manifest_of(run, status, files, complete=finished)
    land(partial, out, made, [file.path for file in files])
    pictures = {Path(file.path).with_suffix("") for file in files if file.path.startswith("figures/")}
    return PullOutcome(
        results_dir=out,
        files=sum(file.path.startswith("files/") for file in files),
        figures=len(pictures),
        points=len(rows),
        failed_points=sum(row.state == "failed" for row in rows),
        size_bytes=sum(file.size_bytes for file in files),
        finished=finished,
        refused=unpacked.refused,
    )


def _status(path: Path) -> RunStatus:
    """Return the node's report about the run; the node may have sent anything."""
    try:
        with path.open("rb") as stream:
            value = json.loads(stream.read(_LONGEST_STATE_BYTES), parse_constant=lambda _: None)
        return from_json(RunStatus, value)
    except (FileNotFoundError, ValueError, RecursionError):
        return RunStatus()


def _tables(directory: Path, rows: tuple[PointRow, ...]) -> list[PulledFile]:
    """Write the tables of points."""
    made = []
    for name, write in (("points.csv", points.write_csv), ("points.json", points.write_json)):
        with (directory / name).open("w", encoding="utf-8", newline="") as table:
            write(rows, table)
        data = (directory / name).read_bytes()
        made.append(PulledFile(name, len(data), hashlib.sha256(data).hexdigest()))
    return made
