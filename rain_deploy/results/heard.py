"""What was heard of a run while it was followed: its results, if nothing else of it can be had."""

import contextlib
import json
from collections.abc import Container, Iterator
from dataclasses import fields, replace
from pathlib import Path

from rain_deploy.core.run import RunRecord
from rain_deploy.node.wire import PointRow, RunState, RunStatus, WireError, to_json
from rain_deploy.results.manifest import Manifest, read_manifest, status_of
from rain_deploy.results.names import decode_name
from rain_deploy.results.partial import Tell, linked_or_copied, partial_directory
from rain_deploy.results.points import Table, count_states, fold, read_rows
from rain_deploy.results.pull import ROWS, STATE, PulledRun, check_target, landed, written
from rain_deploy.results.unpack import PulledFile, Unpacked

MOST_BYTES = 8_000_000  # of a stream
_TABLES = frozenset({ROWS, "points.csv", "points.json"})


class Heard:
    """The newest row of each task, and the beginning of what the script printed."""

    def __init__(self) -> None:
        self._table = Table()
        self._streams = {"stdout": bytearray(), "stderr": bytearray()}

    def point(self, row: PointRow) -> None:
        """Take the next row."""
        self._table.add((row,))

    def printed(self, stream: str, data: bytes, *, again: bool) -> None:
        """Take the next output of the script; ``again``: the stream starts again."""
        kept = self._streams[stream]
        if again:
            kept.clear()
        kept += data[: max(0, MOST_BYTES - len(kept))]

    @property
    def points(self) -> dict[str, int]:
        """Return how many points are in each state."""
        return count_states(self._table.rows())

    def land(self, run: RunRecord, status: RunStatus, tell: Tell) -> PulledRun:
        """Add it to what is in ``out`` of the run; a longer output and a finished task there stay.

        Raises InputError (``out`` holds other files), Locked, OSError.
        """
        check_target(run.out, run.id)
        with partial_directory(run.out, tell) as partial:
            streams = {f"{name}.log": kept for name, kept in self._streams.items()}
            longer = {name for name, kept in streams.items() if _size_bytes(run.out / name) > len(kept)}
            new = streams.keys() - longer
            files = list(_kept(run.out, partial, _TABLES | new))
            files += [written(partial / name, streams[name]) for name in sorted(new)]
            rows = (json.dumps(to_json(row)) + "\n" for row in self._with(run.out / ROWS))
            files.append(written(partial / ROWS, "".join(rows).encode()))
            before = read_manifest(run.out) or {}
            incomplete = replace(_with_earlier(status, before), state=RunState.RUNNING)
            (partial / STATE).write_text(json.dumps(to_json(incomplete)), "utf-8")
            links = dict(_links(run.out, partial))
            return landed(run, Unpacked(tuple(files), links, {}), partial, str(before.get("cost", "")))

    def _with(self, earlier: Path) -> tuple[PointRow, ...]:
        """Return the rows with those of an earlier file.  A task that is finished there stays finished."""
        before = fold(read_rows(earlier), all_=True)
        finished = [row for row in before if row.state == "finished"]
        return fold((*before, *self._table.rows(all_=True), *finished), all_=True)


def _with_earlier(status: RunStatus, made: Manifest) -> RunStatus:
    """Return the status; an earlier manifest of the run may say what it does not."""
    unknown, known = RunStatus(), {one.name: getattr(status, one.name) for one in fields(RunStatus)}
    with contextlib.suppress(WireError):
        more = {name: value for name, value in known.items() if value != getattr(unknown, name)}
        return replace(status_of(made), **more)
    return status


def _size_bytes(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _kept(out: Path, partial: Path, but: Container[str]) -> Iterator[PulledFile]:
    """Keep in ``partial`` too what an earlier pull brought, without the files ``but``, and yield it."""
    for entry in (read_manifest(out) or {}).get("files", ()):
        name = decode_name(entry["path"])
        if name not in but and _kept_too(out / name, partial / name):
            origin = decode_name(entry.get("name_on_node", ""))
            yield PulledFile(name, entry["size_bytes"], entry["sha256"], origin)


def _links(out: Path, partial: Path) -> Iterator[tuple[str, str]]:
    for entry in (read_manifest(out) or {}).get("links", ()):
        name = decode_name(entry["path"])
        if _kept_too(out / name, partial / name):
            yield name, decode_name(entry["target"])


def _kept_too(there: Path, here: Path) -> bool:
    """Keep a file here too; return False if the user has deleted it.  Raises OSError."""
    here.parent.mkdir(parents=True, exist_ok=True)
    try:
        linked_or_copied(there, here)
    except FileNotFoundError:
        return False
    return True
