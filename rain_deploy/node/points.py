"""Makes points.jsonl of a run: rows of its tasks, from Rain's event log and the companion's notes.

Rain's event log is read without a lock.  Rain keeps LOGDIR/events.db in SQLite's rollback mode, and its
server dies when a write stays locked (it waits 5 s for a reader).  A reader that is stopped while it holds
SQLite's shared lock would so end the user's run.  Therefore the file is opened as immutable, which takes no
lock at all, and what was read counts only if nobody wrote meanwhile: there is no journal beside it, and the
change counter is the same before and after.  Rain writes once a second, so that is nearly always so; if
not, the next step reads it.
"""

import contextlib
import json
import math
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from .files import Json, Tail
from .run import Run
from .wire import Parameter, PointRow, WireError, from_json, read, to_json

Key = tuple[int, int]  # session and task, as Rain numbers them
_PAIR = re.compile(r"""(?<![\w.\-])([A-Za-z_][\w.\-]*)=(?:"([^"]*)"|'([^']*)'|([^\s,;]+))""")
_INTEGER = re.compile(r"[+-]?\d+")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_WORDS = {"true": True, "false": False}
_NONSENSE = (ValueError, OverflowError)  # raised by notes of a wrong shape: user code can write them too
_NO_REASON = {"", "Task failed in executor"}
ENDED = frozenset({"finished", "failed", "cancelled", "not run"})
"""States that a task keeps.  What had started when its session ended was cancelled, the rest was not run."""
_ROWS_PER_STEP = 500
_CHANGE_COUNTER = slice(24, 28)  # bytes of SQLite's file header that every transaction changes


class Event(NamedTuple):
    """A row of Rain's event log, with its JSON.  The timestamp is in RFC 3339, with nanoseconds."""

    id: int
    timestamp: str
    kind: str
    data: Json


@dataclass(frozen=True, slots=True)
class TaskNote:
    """A line of the companion's tasks.jsonl."""

    session: int
    task: int
    parameters: dict[str, Parameter | None] = field(default_factory=dict)
    kept: bool = False


@dataclass(frozen=True, slots=True)
class ValueNote:
    """A line of the companion's values.jsonl."""

    session: int
    task: int
    value: Parameter | None = None
    values: dict[str, Parameter | None] = field(default_factory=dict)


class Points:
    """Rows by session and task.  ``changed()`` returns those that differ from what it returned before.

    The points of a session are its tasks with ``key=value`` in their names; if there is none, those whose
    output the script keeps.  Each event costs as much as the tasks that it is about, however many there are.
    """

    def __init__(
        self, blank: PointRow, *, node_name: Callable[[str], str], known: Iterable[PointRow]
    ) -> None:
        """``blank`` has the fields that all rows share; ``known`` are rows that an earlier process wrote."""
        self._blank = replace(blank, state="submitted", source="engine")
        self._node_name = node_name
        self._rows: dict[int, dict[int, PointRow]] = {}
        for row in known:
            self._rows.setdefault(row.session, {})[row.task] = row
        self._before: dict[
            Key, PointRow | None
        ] = {}  # rows as ``changed`` returned them, of those touched since
        self._named: set[int] = set()
        self._awaited: set[Key] = set()  # tasks that the companion noted and that have not ended
        self._noted = False
        self._clients_removed = 0
        self.run_end = ""
        """Why the run ended, once it has.  It is why a session was closed, whatever Rain's log calls it."""

    def apply(self, event: Event) -> None:
        """Take one of Rain's events into account."""
        data = event.data
        match event.kind:
            case "ClientSubmit":
                for spec in data["tasks"]:
                    self._submit(spec["id"], spec.get("name", ""))
            case "TaskStarted":
                self._change(data["task"], started_s=_epoch_s(event.timestamp), state="running")
            case "TaskFinished":
                self._finish(data["task"], data["info"])
            case "SessionClosed":
                failed = data["reason"] == "Error"
                why = "another task of its session failed" if failed else ""
                self._drop(data["session"], why or self.run_end or "the script closed its session")
            case "ClientRemoved":
                self._clients_removed += 1

    def note_task(self, note: TaskNote) -> None:
        """Take a note of the companion about a task into account."""
        key, changes = (note.session, note.task), {"parameters": note.parameters, "point": note.kept}
        row = self._change(key, **({} if note.session in self._named else changes))
        self._noted = True
        if row.state not in ENDED:
            self._awaited.add(key)

    def note_value(self, note: ValueNote) -> None:
        """Take a value that the script loaded into account.  Raises ValueError, OverflowError."""
        value = float(note.value) if isinstance(note.value, str) else note.value
        for number in (value, *note.values.values()):
            if isinstance(number, int):
                float(number)  # no table has a number that is too large for it
        self._change((note.session, note.task), source="companion", value=value, values=note.values)

    def close(self, why: str) -> None:
        """End the tasks that have not ended, because the run has."""
        for session in self._rows:
            self._drop(session, why)

    def complete(self, clients: int) -> bool:
        """Return True when all is read: every noted task has ended, or all clients that were let in left."""
        return (self._noted and not self._awaited) or self._clients_removed >= clients

    def changed(self) -> list[PointRow]:
        """Return the rows that differ from those returned before, in order of session and task."""
        before, self._before = self._before, {}
        rows = ((self._rows[session][task], before[session, task]) for session, task in sorted(before))
        return [row for row, old in rows if row != old]

    def _change(self, task: Sequence[int], **changes: Any) -> PointRow:
        session, number = task
        rows = self._rows.setdefault(session, {})
        old = rows.get(number)
        self._before.setdefault((session, number), old)
        row = rows[number] = replace(old or replace(self._blank, session=session, task=number), **changes)
        if row.state in ENDED:
            self._awaited.discard((session, number))
        return row

    def _submit(self, task: Sequence[int], name: str) -> None:
        pairs, session = parameters(name), task[0]
        named = {"parameters": pairs, "point": bool(pairs)}
        self._change(task, name=name, **(named if pairs or session in self._named else {}))
        if pairs and session not in self._named:
            self._named.add(session)
            for number, row in self._rows[session].items():  # what the companion noted of them counts no more
                pairs = parameters(row.name)
                self._change((session, number), parameters=pairs, point=bool(pairs))

    def _finish(self, task: Sequence[int], info: Json) -> None:
        row = self._change(task, state="finished", duration_s=info.get("duration"))
        message = ""
        if error := info.get("error"):
            self._change(task, state="failed")
            message = reason(error)
        if governor := info.get("governor"):
            row = self._change(task, node=self._node_name(governor))
        if start := info.get("start_time"):
            row = self._change(task, started_s=_epoch_s(start))
        timed = row.started_s is not None and row.duration_s is not None
        ended_s = (row.started_s or 0) + (row.duration_s or 0) if timed else None
        self._change(task, message=message, ended_s=ended_s)

    def _drop(self, session: int, why: str) -> None:
        """End what has not ended of a session; nobody will hear of it any more."""
        for number, row in self._rows.get(session, {}).items():
            if row.state not in ENDED:
                state = "not run" if row.started_s is None else "cancelled"
                self._change((session, number), state=state, message=why)


def _epoch_s(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp).timestamp()


def reason(error: str) -> str:
    """Return the line of a task's error that says why: a traceback's exception, a program's first line."""
    lines = [line for line in error.splitlines() if line.strip() not in _NO_REASON]
    if lines and lines[0].startswith("Traceback"):
        frames = [number for number, line in enumerate(lines) if line.startswith("  File ")]
        after = lines[frames[-1] + 1 if frames else 1 :]  # an exception's text may have more lines
        lines = [line for line in after if not line.startswith(" ")] or lines[-1:]
    return lines[0].strip() if lines else ""


def parameters(name: str) -> dict[str, Parameter | None]:
    """Return the pairs in a name such as ``mnist size=32, act=relu``; the last of a repeated key counts."""
    found: dict[str, Parameter | None] = {}
    for match in _PAIR.finditer(name):
        key, double, single, bare = match.groups()
        if bare is None:
            found[key] = single if double is None else double
        elif _NUMBER.fullmatch(bare) and math.isfinite(number := float(bare)):
            found[key] = int(bare) if _INTEGER.fullmatch(bare) else number
        else:
            found[key] = _WORDS.get(bare.lower(), bare)
    return found


class Recorder:
    """Feeds one attempt's events and the companion's notes to points.jsonl."""

    def __init__(self, run: Run, node_name: Callable[[str], str]) -> None:
        status = run.status()
        self._database = run.attempt_dir / "log" / "events.db"
        self._output = run.path / "points.jsonl"
        self._last_id = 0
        self._tasks = Tail(run.path / "companion" / "tasks.jsonl")
        self._values = Tail(run.path / "companion" / "values.jsonl")
        blank = PointRow(task=0, run=run.id, attempt=status.attempt, epoch=status.epoch)
        self.points = Points(blank, node_name=node_name, known=self._known(status.attempt))

    def _known(self, attempt: int) -> Iterator[PointRow]:
        """Yield what an earlier process wrote, and cut off the half line of one that was killed."""
        if not self._output.exists():
            return
        with self._output.open("rb+") as file:
            end = 0
            for text in file:
                if text.endswith(b"\n"):
                    end += len(text)
                    with contextlib.suppress(WireError):
                        if (row := read(PointRow, text)).attempt == attempt:
                            yield row
            file.truncate(end)

    def step(self) -> None:
        """Append the rows that changed since the last step.  Raises OSError."""
        while events := read_events(self._database, self._last_id):
            for event in events:
                self.points.apply(event)
            self._last_id = events[-1].id
        for note in self._tasks.json_lines():
            with contextlib.suppress(*_NONSENSE):
                self.points.note_task(from_json(TaskNote, note))
        for note in self._values.json_lines():
            with contextlib.suppress(*_NONSENSE):
                self.points.note_value(from_json(ValueNote, note))
        self._write()

    def close(self, why: str) -> None:
        """Append an end of every task that has none, because the run has ended.  Raises OSError."""
        self.points.close(why)
        self._write()

    def _write(self) -> None:
        if rows := self.points.changed():
            text = "".join(json.dumps(to_json(row)) + "\n" for row in rows)
            with self._output.open("a", encoding="ascii") as file:
                file.write(text)


def read_events(database: Path, after: int) -> tuple[Event, ...]:
    """Return at most 500 events with greater ids; none when the file is absent or was being written."""
    before = _version(database)
    if before is None:
        return ()
    uri = f"file:{quote(str(database))}?mode=ro&immutable=1"
    try:
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as connection:
            rows = connection.execute(
                "SELECT id, timestamp, event_type, event FROM events WHERE id > ? ORDER BY id LIMIT ?",
                (after, _ROWS_PER_STEP),
            ).fetchall()
        events = tuple(Event(row[0], row[1], row[2], json.loads(row[3])) for row in rows)
    except (sqlite3.Error, ValueError):
        return ()
    return events if _version(database) == before else ()


def _version(database: Path) -> bytes | None:
    """Return what changes when the file does; None while it cannot be read whole."""
    try:
        with database.open("rb") as file:
            counter = file.read(100)[_CHANGE_COUNTER]
    except OSError:
        return None
    journal = database.with_name(f"{database.name}-journal")
    return None if journal.exists() or not counter else counter
