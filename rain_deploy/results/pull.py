"""Pulls a run's results: one stream from the node, unpacked aside, moved into place when complete.

What is there is replaced only when everything has arrived.  ``manifest.json`` says what a directory holds,
and what of the run stays on the node, with the reason.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from rain_deploy.core.run import RunRecord
from rain_deploy.core.step import CommandResult
from rain_deploy.errors import InputError, Locked, PullFailed, Unreachable, full
from rain_deploy.node.wire import (
    LeftKind,
    LeftOut,
    LeftOuts,
    Limits,
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
    write_manifest,
)
from rain_deploy.results.names import encode_name
from rain_deploy.results.unpack import CutError, PulledFile, Unpacked, receive

Stream = Callable[[Callable[[bytes], None]], CommandResult]
"""Runs the node verb ``pack`` and hands its stdout to the given sink."""
Tell = Callable[[str], object]
"""Shows the user a sentence about what a pull waits for."""
ATTEMPTS = 3  # how many connections may be lost before a pull fails
_PARTIAL = ".partial"
_LOCK_DEADLINE_S = 600.0
_SILENT_S = 3.0  # how long it waits for another pull without a word
_STATE, _ROWS = "state.json", "points.jsonl"
_TOP = frozenset({"stdout.log", "stderr.log", _ROWS, _STATE, LEFT, "figures", "attempts", "files"})
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
    first_failure: str = ""  # which task failed first, where and why; it may be no point
    left: LeftOuts = field(default_factory=LeftOuts)  # what stays on the node
    on_node: str = ""  # the run's directory there


def pull(
    stream: Stream, run: RunRecord, limits: Limits | None = None, tell: Tell = lambda _: None
) -> PulledRun:
    """Fill the run's ``out``, and replace only what an earlier pull of the same run left there.

    What the node leaves out, and what is refused here, is in the result and in the manifest.

    Raises InputError (``out`` holds other files), PullFailed (connection lost, damaged stream, disk full,
    ``out`` not writable; nothing half-made is left), UnsafeResults (the node sent more than the limits).
    """
    out, again = run.out, f"rain-deploy pull {run.id} -c {run.cluster}"
    try:
        check_target(out, run.id)
        with _partial_directory(out, tell) as partial:
            return _landed(run, _received(stream, partial, limits, tell), partial)
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
        _clear(partial)
    return receive(send, partial, limits, top=_TOP)


def _landed(run: RunRecord, unpacked: Unpacked, partial: Path) -> PulledRun:
    """Write the tables of points, and move everything to ``out`` with its manifest."""
    try:
        with (partial / _STATE).open("rb") as stream:  # the node may have sent anything
            sent = json.loads(stream.read(_LONGEST_STATE_BYTES), parse_constant=lambda _: None)
        status = from_json(RunStatus, sent)
    except (FileNotFoundError, ValueError, RecursionError):
        status = RunStatus()
    left = _left(partial, unpacked)
    for name in (_STATE, LEFT):  # the manifest takes their place
        (partial / name).unlink(missing_ok=True)
    files = [file for file in unpacked.files if file.path not in {_STATE, LEFT}]
    tasks = points.fold(points.read_rows(partial / _ROWS), all_=True)
    rows = tuple(row for row in tasks if row.point)
    states = points.count_states(rows)
    for name, write in (("points.csv", points.write_csv), ("points.json", points.write_json)):
        with (partial / name).open("w", encoding="utf-8", newline="") as table:
            write(rows, table)
        data = (partial / name).read_bytes()
        files.append(PulledFile(name, len(data), hashlib.sha256(data).hexdigest()))
    _land(partial, run.out, manifest_of(run, status, files, unpacked.links, left))
    return PulledRun(
        run=run.id,
        results_dir=run.out,
        figures=len({Path(file.path).with_suffix("") for file in files if file.path.startswith("figures/")}),
        points=len(rows),
        files=sum(name.startswith("files/") for name in (*unpacked.links, *(file.path for file in files))),
        bytes=sum(file.size_bytes for file in files),
        finished=status.state == RunState.FINISHED,
        failed_points=states.get("failed", 0),
        point_states=states,
        first_failure=points.first_failure(tasks),
        left=left,
    )


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


def partial_places(out: Path) -> tuple[Path, Path]:
    """Return where results are until they are complete, if ``out`` is there, and if it is not."""
    return out / _PARTIAL, out.parent / f".{out.name}{_PARTIAL}"


def check_target(out: Path, run_id: str) -> None:
    """Raise InputError unless ``out`` can take the results of this run."""
    found = read_manifest(out)
    if not out.exists() or (found is not None and found["run"] == run_id):
        return
    problem = ""
    if not out.is_dir():
        problem = "is a file"
    elif others := sorted({entry.name for entry in out.iterdir()} - {_PARTIAL}):
        problem = f"holds other files ({encode_name(others[0])})"
    if problem:
        raise InputError(f"the results directory {out} {problem}", next_step="name another with --out")


@contextlib.contextmanager
def _partial_directory(out: Path, tell: Tell) -> Iterator[Path]:
    """Yield an empty directory on the same file system that this pull alone holds; delete it at the end."""
    deadline_s = time.monotonic() + _LOCK_DEADLINE_S
    reported = False
    while True:
        inside, beside = partial_places(out)
        partial = inside if out.is_dir() else beside
        partial.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(partial, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(handle, partial):
                break
        os.close(handle)
        left_s = deadline_s - time.monotonic()
        if not reported and left_s < _LOCK_DEADLINE_S - _SILENT_S:
            reported = True
            tell(f"waiting for another command that pulls to {out}, for at most {_LOCK_DEADLINE_S:.0f} s")
        if left_s < 0:
            raise Locked(f"another command has been pulling to {out} for {_LOCK_DEADLINE_S:.0f} s")
        time.sleep(0.1)
    try:
        _clear(partial)
        yield partial
    finally:
        if _is_at(handle, partial):
            shutil.rmtree(partial, ignore_errors=True)
        os.close(handle)


def _is_at(handle: int, path: Path) -> bool:
    """Return whether the open directory still has its name: nobody has renamed or deleted it."""
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
