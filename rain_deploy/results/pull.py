"""Pulls a run's results: one stream from the node, unpacked aside, moved into place when complete.

What is there is replaced only when everything has arrived.  ``manifest.json`` says what a directory holds,
and what of the run stays on the node, with the reason.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from rain_deploy.core.run import RunRecord
from rain_deploy.core.step import CommandResult
from rain_deploy.errors import InputError, PullFailed, Unreachable, full
from rain_deploy.node.wire import (
    LeftKind,
    LeftOut,
    LeftOuts,
    Limits,
    PointRow,
    RunState,
    RunStatus,
    WireError,
    from_json,
    read,
)
from rain_deploy.results import points
from rain_deploy.results.archive import LEFT
from rain_deploy.results.manifest import (
    MANIFEST,
    Manifest,
    listed_paths,
    manifest_of,
    read_manifest,
    status_of,
    write_manifest,
)
from rain_deploy.results.names import encode_name
from rain_deploy.results.partial import PARTIAL, Tell, clear, partial_directory
from rain_deploy.results.unpack import CutError, PulledFile, Unpacked, receive

Stream = Callable[[Callable[[bytes], None]], CommandResult]
"""Runs the node verb ``pack`` and hands its stdout to the given sink."""
ATTEMPTS = 3  # how many connections may be lost before a pull fails
STATE, ROWS, DETAILS = "state.json", "points.jsonl", "details.jsonl"
_TOP = frozenset(
    {"stdout.log", "stderr.log", ROWS, DETAILS, STATE, LEFT, "figures", "attempts", "files", "tasks"}
)
_LONGEST_STATE_BYTES = 1 << 24


@dataclass(frozen=True, slots=True)
class PulledRun:
    """A run's results directory, as it is now."""

    run: str
    results_dir: Path
    figures: int  # pictures; PNG and SVG of one count once
    points: int
    files: int  # files that the script wrote
    bytes: int
    finished: bool  # False: the run continues, and these are its results so far
    failed_points: int = 0
    point_states: dict[str, int] = field(default_factory=dict)  # how many points are in each state
    cached_points: int = 0  # those of them that were not computed again
    first_failure: str = ""  # which task failed first, where and why; it may be no point
    left: LeftOuts = field(default_factory=LeftOuts)  # what stays on the node
    on_node: str = ""  # the run's directory there


def pull(
    stream: Stream,
    run: RunRecord,
    limits: Limits | None = None,
    tell: Tell = lambda _: None,
    *,
    cost: str = "",
) -> PulledRun:
    """Fill the run's ``out``, and replace only what an earlier pull of the same run left there.

    What the node leaves out, and what is refused here, is in the result and in the manifest; the manifest
    also has ``cost``.  A report of an earlier pull is deleted.

    Raises InputError (``out`` holds other files), PullFailed (connection lost, damaged stream, disk full,
    ``out`` not writable; nothing half-made is left), UnsafeResults (the node sent more than the limits).
    """
    out, again = run.out, f"rain-deploy pull {run.id} -c {run.cluster}"
    try:
        check_target(out, run.id)
        with partial_directory(out, tell) as partial:
            unpacked = _received(stream, partial, limits, tell)
            return landed(run, unpacked, partial, cost)
    except OSError as error:
        why = "the disk is full" if full(error) else f"it cannot be written: {error.strerror}"
        raise PullFailed(f"no results in {out}: {why}", next_step=f"{again} --out DIR") from error
    except PullFailed as error:
        error.next_step = again
        raise


def _received(stream: Stream, partial: Path, limits: Limits | None, tell: Tell) -> Unpacked:
    def send(sink: Callable[[bytes], None]) -> None:
        stream(sink).require(PullFailed, "the node could not pack its results")

    for attempt in range(2, ATTEMPTS + 1):
        with contextlib.suppress(Unreachable, CutError):
            return receive(send, partial, limits, top=_TOP)
        tell(f"the results did not all arrive; pulling again, attempt {attempt} of {ATTEMPTS}")
        clear(partial)
    return receive(send, partial, limits, top=_TOP)


def written(path: Path, data: bytes | bytearray) -> PulledFile:
    """Write a file of the results, and return what the manifest says about it."""
    path.write_bytes(data)
    return PulledFile(path.name, len(data), hashlib.sha256(data).hexdigest())


def landed(run: RunRecord, unpacked: Unpacked, partial: Path, cost: str) -> PulledRun:
    """Write the tables of points, and move everything to ``out`` with its manifest."""
    try:
        with (partial / STATE).open("rb") as stream:  # the node may have sent anything
            sent = json.loads(stream.read(_LONGEST_STATE_BYTES), parse_constant=lambda _: None)
        status = from_json(RunStatus, sent)
    except (FileNotFoundError, ValueError, RecursionError):
        status = RunStatus()
    left = _left(partial, unpacked)
    for name in (STATE, LEFT):  # the manifest takes their place
        (partial / name).unlink(missing_ok=True)
    files = [file for file in unpacked.files if file.path not in {STATE, LEFT}]
    tasks = points.fold(points.read_rows(partial / ROWS), all_=True)
    rows = tuple(row for row in tasks if row.point)
    for name, write in (("points.csv", points.write_csv), ("points.json", points.write_json)):
        with (partial / name).open("w", encoding="utf-8", newline="") as table:
            write(rows, table)
        data = (partial / name).read_bytes()
        files.append(PulledFile(name, len(data), hashlib.sha256(data).hexdigest()))
    made = manifest_of(run, status, files, unpacked.links, left=left, cost=cost)
    _land(partial, run.out, made)
    return replace(_pulled(run, made, tasks), finished=status.state == RunState.FINISHED, left=left)


def _pulled(run: RunRecord, made: Manifest, tasks: tuple[PointRow, ...]) -> PulledRun:
    """Return the results of a finished run, of which nothing stays on the node."""
    names, rows = listed_paths(made), tuple(row for row in tasks if row.point)
    states = points.count_states(rows)
    return PulledRun(
        run=run.id,
        results_dir=run.out,
        figures=len({Path(name).with_suffix("") for name in names if name.startswith("figures/")}),
        points=len(rows),
        files=sum(name.startswith("files/") for name in names),
        bytes=sum(file["size_bytes"] for file in made["files"]),
        finished=True,
        failed_points=states.get("failed", 0),
        point_states=states,
        cached_points=sum(row.cached for row in rows),
        first_failure=points.first_failure(tasks),
    )


def pulled_before(run: RunRecord) -> tuple[RunStatus, PulledRun] | None:
    """Return how a run ended, and its results, if all of them are in its ``out``; else None."""
    made = read_manifest(run.out) or {}
    if made.get("run") != run.id or made.get("complete") is not True:
        return None
    if not all(os.path.lexists(run.out / name) for name in listed_paths(made)):
        return None
    tasks = points.fold(points.read_rows(run.out / ROWS), all_=True)
    try:
        return replace(status_of(made), message=run.message), _pulled(run, made, tasks)
    except (WireError, KeyError, TypeError):  # somebody has edited the manifest
        return None


def _left(partial: Path, unpacked: Unpacked) -> LeftOuts:
    """Return what the node left out and what was refused here, with names that print."""
    try:
        said = read(LeftOuts, (partial / LEFT).read_bytes())
    except FileNotFoundError:  # an older node leaves out nothing that it could name
        said = LeftOuts()
    except WireError as error:
        raise PullFailed(f"the node's {LEFT} cannot be parsed: {error}") from error
    refused = (LeftOut(path=path, kind=LeftKind.REFUSED, why=why) for path, why in unpacked.refused.items())
    named = (
        replace(one, path=encode_name(one.path), why=encode_name(one.why)) for one in (*said.left, *refused)
    )
    return LeftOuts(left=tuple(sorted(named, key=lambda one: one.path)), more=said.more)


def check_target(out: Path, run_id: str) -> None:
    """Raise InputError unless ``out`` can take the results of this run."""
    found = read_manifest(out)
    if not out.exists() or (found is not None and found["run"] == run_id):
        return
    problem = ""
    if not out.is_dir():
        problem = "is a file"
    elif others := sorted({entry.name for entry in out.iterdir()} - {PARTIAL}):
        problem = f"holds other files ({encode_name(others[0])})"
    if problem:
        raise InputError(f"the results directory {out} {problem}", next_step="name another with --out")


def _land(partial: Path, out: Path, made: Manifest) -> None:
    """Move a manifest and its files from ``partial`` to ``out``; delete what only an earlier pull had.

    Directories that become empty are deleted too.  Raises InputError rather than overwrite a file that is
    not of this run.
    """
    if not out.exists():
        write_manifest(partial, made)
        partial.chmod(0o755)
        partial.rename(out)
        return
    names, earlier = listed_paths(made), listed_paths(read_manifest(out) or {})
    gone = earlier - names
    if foreign := sorted(name for name in names - earlier if _holds_others(out, name, earlier)):
        message = f"{foreign[0]!a} in {out} does not belong to this run and would be overwritten"
        raise InputError(message, next_step="name another directory with --out")
    # From here the manifest lists old and new files, so a pull after a kill knows that all are of this run.
    both = [*made["files"], *({"path": encode_name(name)} for name in gone)]
    write_manifest(partial, made | {"complete": False, "files": both}).replace(out / MANIFEST)
    for name in gone:
        path = out / name
        if path.parent.resolve().is_relative_to(out.resolve()):
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # not empty: other files stay
                for above in path.relative_to(out).parents[:-1]:
                    (out / above).rmdir()
    for name in names:
        if (out / name).is_dir() and not (out / name).is_symlink():
            shutil.rmtree(out / name)  # only empty directories are left in it
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (partial / name).replace(out / name)
    write_manifest(partial, made).replace(out / MANIFEST)


def _holds_others(out: Path, name: str, ours: frozenset[str]) -> bool:
    """Return whether there is something at ``name``, or below it, that is not ours."""
    place = out / name
    if place.is_dir() and not place.is_symlink():
        files = (path for path in place.rglob("*") if path.is_symlink() or not path.is_dir())
        return any(str(path.relative_to(out)) not in ours for path in files)
    return os.path.lexists(place)
