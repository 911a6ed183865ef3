"""Keeps points.jsonl of a run up to date while it runs."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from ..files import Tail
from ..run.directory import Run
from ..wire import PointRow, WireError, from_json, to_json
from .events import read_events
from .rows import Points, TaskNote, ValueNote

_NONSENSE = (ValueError, OverflowError)
"""Raised by notes of a wrong shape: user code can write them too."""


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
        known = [row for row in _rows(self._output) if row.attempt == status.attempt]
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


def _rows(path: Path) -> Iterator[PointRow]:
    for line in Tail(path).json_lines():
        with contextlib.suppress(WireError):
            yield from_json(PointRow, line)


def _cut_partial_line(path: Path) -> None:
    """Remove half a line that a supervisor left when it was killed."""
    if not path.exists():
        return
    data = path.read_bytes()
    if not data.endswith(b"\n"):
        os.truncate(path, data.rfind(b"\n") + 1)
