"""Keeps points.jsonl of a run up to date while it runs.

Rain's event log is read without a lock.  Rain keeps LOGDIR/events.db in SQLite's rollback mode, and its
server dies when a write stays locked (it waits 5 s for a reader).  A reader that is stopped while it holds
SQLite's shared lock would so end the user's run.  Therefore the file is opened as immutable, which takes no
lock at all, and what was read counts only if nobody wrote meanwhile: there is no journal beside it, and the
change counter is the same before and after.  Rain writes once a second, so that is nearly always so; if
not, the next step reads it.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from ..files import Tail
from ..run.directory import Run
from ..wire import PointRow, WireError, from_json, to_json
from .rows import Event, Points, TaskNote, ValueNote

_NONSENSE = (ValueError, OverflowError)
"""Raised by notes of a wrong shape: user code can write them too."""
_ROWS_PER_STEP = 500
_CHANGE_COUNTER = slice(24, 28)
"""Bytes of SQLite's file header that every transaction changes."""


class Recorder:
    """Feeds one attempt's events and the companion's notes to points.jsonl."""

    def __init__(self, run: Run, node_name: Callable[[str], str]) -> None:
        status = run.status()
        self._database = run.attempt_dir / "log" / "events.db"
        self._output = run.path / "points.jsonl"
        self._last_id = 0
        self._tasks = Tail(run.path / "companion" / "tasks.jsonl")
        self._values = Tail(run.path / "companion" / "values.jsonl")
        _cut_partial_line(self._output)
        blank = PointRow(task=0, run=run.id, attempt=status.attempt, epoch=status.epoch)
        known = []
        for line in Tail(self._output).json_lines():
            with contextlib.suppress(WireError):
                if (row := from_json(PointRow, line)).attempt == status.attempt:
                    known.append(row)
        self._points = Points(blank, node_name=node_name, known=known)

    def step(self) -> None:
        """Append the rows that changed since the last step.  Raises OSError."""
        while events := read_events(self._database, self._last_id):
            for event in events:
                self._points.apply(event)
            self._last_id = events[-1].id
        for note in self._tasks.json_lines():
            with contextlib.suppress(*_NONSENSE):
                self._points.note_task(from_json(TaskNote, note))
        for note in self._values.json_lines():
            with contextlib.suppress(*_NONSENSE):
                self._points.note_value(from_json(ValueNote, note))
        if rows := self._points.changed():
            text = "".join(json.dumps(to_json(row)) + "\n" for row in rows)
            with self._output.open("a", encoding="ascii") as file:
                file.write(text)

    def complete(self, clients: int) -> bool:
        """Return True when Rain's event log, which it writes once a second, has all of the run.

        ``clients``: how many the server let in.
        """
        return self._points.all_noted_ended() or self._points.clients_removed >= clients


def _cut_partial_line(path: Path) -> None:
    """Remove an unfinished last line: a supervisor was killed while it wrote."""
    if path.exists() and not (data := path.read_bytes()).endswith(b"\n"):
        os.truncate(path, data.rfind(b"\n") + 1)


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
