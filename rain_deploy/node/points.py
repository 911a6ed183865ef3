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
import os
import re
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from .files import Json, Tail
from .run import Run
from .wire import Parameter, PointRow, WireError, from_json, to_json

Key = tuple[int, int]  # session and task, as Rain numbers them
_PAIR = re.compile(r"""(?<![\w.\-])([A-Za-z_][\w.\-]*)=(?:"([^"]*)"|'([^']*)'|([^\s,;]+))""")
_INTEGER = re.compile(r"[+-]?\d+")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_WORDS = {"true": True, "false": False}
_NONSENSE = (ValueError, OverflowError)  # raised by notes of a wrong shape: user code can write them too
_NO_REASON = {"", "Task failed in executor"}
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
    value: Parameter


class Points:
    """Rows by task.  ``changed()`` returns those that differ from what it returned before."""

    def __init__(self, blank: PointRow, *, node_name: Callable[[str], str], known: list[PointRow]) -> None:
        """``blank`` has the fields that all rows share; ``known`` are rows that an earlier process wrote."""
        self._blank = replace(blank, state="submitted", source="engine")
        self._node_name = node_name
        self._rows: dict[Key, PointRow] = {}
        self._notes: dict[Key, TaskNote] = {}
        self._ended: set[Key] = set()
        self._touched: set[int] = set()
        self._given = {(row.session, row.task): row for row in known}
        self._clients_removed = 0

    def apply(self, event: Event) -> None:
        """Take one of Rain's events into account."""
        data = event.data
        match event.kind:
            case "ClientSubmit":
                for spec in data["tasks"]:
                    name = spec.get("name", "")
                    self._change(spec["id"], name=name, parameters=parameters(name))
            case "TaskStarted":
                self._change(data["task"], started_s=_epoch_s(event.timestamp), state="running")
            case "TaskFinished":
                self._finish(data["task"], data["info"])
            case "SessionClosed":
                changes = {"message": "not waited for"}
                if data["reason"] == "Error":
                    changes = {"state": "failed", "message": "dropped: another task of its session failed"}
                open_tasks = {key for key in self._rows if key[0] == data["session"]} - self._ended
                for key in open_tasks:
                    self._change(key, **changes)
                self._ended |= open_tasks
            case "ClientRemoved":
                self._clients_removed += 1

    def note_task(self, note: TaskNote) -> None:
        """Take a note of the companion about a task into account."""
        self._change((note.session, note.task))
        self._notes[note.session, note.task] = note

    def note_value(self, note: ValueNote) -> None:
        """Take a value that the script loaded into account.  Raises ValueError, OverflowError."""
        value = note.value if isinstance(note.value, int | float) else float(note.value)
        # JSON has no other numbers.
        change: Json = {"value": value} if math.isfinite(value) else {"message": f"value is {value}"}
        self._change((note.session, note.task), source="companion", **change)

    def complete(self, clients: int) -> bool:
        """Return True when all is read: every noted task has ended, or all clients that were let in left."""
        all_ended = bool(self._notes) and self._ended >= self._notes.keys()
        return all_ended or self._clients_removed >= clients

    def changed(self) -> list[PointRow]:
        """Return the rows that differ from those returned before, in order of session and task.

        The points of a session are its tasks with ``key=value`` in their names; if there is none, those
        whose output the script keeps.
        """
        named = {key[0] for key, row in self._rows.items() if row.parameters}
        rows = []
        for key in sorted(key for key in self._rows if key[0] in self._touched):
            row = self._rows[key]
            if key[0] in named:
                row = replace(row, point=bool(row.parameters))
            elif note := self._notes.get(key):
                row = replace(row, parameters=note.parameters, point=note.kept)
            if self._given.get(key) != row:
                self._given[key] = row
                rows.append(row)
        self._touched.clear()
        return rows

    def _change(self, task: Sequence[int], **changes: Any) -> PointRow:
        session, number = task
        row = self._rows.get((session, number)) or replace(self._blank, session=session, task=number)
        self._rows[session, number] = row = replace(row, **changes)
        self._touched.add(session)
        return row

    def _finish(self, task: Sequence[int], info: Json) -> None:
        row = self._change(task, state="finished", duration_s=info.get("duration"))
        message = row.message if row.source == "companion" else ""
        if error := info.get("error"):
            self._change(task, state="failed")
            lines = [line for line in map(str.strip, error.splitlines()) if line not in _NO_REASON]
            if lines:  # the most useful one: a traceback's last line, a program's first one
                message = lines[-1 if lines[0].startswith("Traceback") else 0]
        if governor := info.get("governor"):
            row = self._change(task, node=self._node_name(governor))
        if start := info.get("start_time"):
            row = self._change(task, started_s=_epoch_s(start))
        timed = row.started_s is not None and row.duration_s is not None
        ended_s = (row.started_s or 0) + (row.duration_s or 0) if timed else None
        self._change(task, message=message, ended_s=ended_s)
        self._ended.add((row.session, row.task))


def _epoch_s(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp).timestamp()


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
        # A supervisor that was killed while it wrote leaves an unfinished last line.
        if self._output.exists() and not (data := self._output.read_bytes()).endswith(b"\n"):
            os.truncate(self._output, data.rfind(b"\n") + 1)
        known = []
        for line in Tail(self._output).json_lines():
            with contextlib.suppress(WireError):
                if (row := from_json(PointRow, line)).attempt == status.attempt:
                    known.append(row)
        blank = PointRow(task=0, run=run.id, attempt=status.attempt, epoch=status.epoch)
        self.points = Points(blank, node_name=node_name, known=known)

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
