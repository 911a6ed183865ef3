"""Keeps points.jsonl of a run up to date while it runs."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path

from ..files import Tail
from ..run.directory import Run
from .events import read_events
from .rows import Points

_NONSENSE = (KeyError, TypeError, ValueError, OverflowError)
"""What notes of a wrong shape raise: user code can write them too."""


class Recorder:
    """Feeds one attempt's events and the companion's notes to points.jsonl."""

    def __init__(self, run: Run, node_name: Callable[[str], str]) -> None:
        state = run.state()
        self._database = run.attempt_dir / "log" / "events.db"
        self._output = run.path / "points.jsonl"
        self._last_id = 0
        self._tasks = Tail(run.path / "companion" / "tasks.jsonl")
        self._values = Tail(run.path / "companion" / "values.jsonl")
        _cut_partial_line(self._output)
        self._points = Points(
            run.id,
            state["attempt"],
            state["epoch"],
            node_name=node_name,
            known=[row for row in Tail(self._output).json_lines() if row.get("attempt") == state["attempt"]],
        )

    def step(self) -> None:
        """Append the rows that changed since the last step.  Raises OSError."""
        while events := read_events(self._database, self._last_id):
            for event in events:
                self._points.apply(event)
            self._last_id = events[-1].id
        for notes, take in ((self._tasks, self._points.note_task), (self._values, self._points.note_value)):
            for note in notes.json_lines():
                with contextlib.suppress(*_NONSENSE):
                    take(note)
        if rows := self._points.changed():
            text = "".join(json.dumps(row) + "\n" for row in rows)
            with self._output.open("a", encoding="ascii") as file:
                file.write(text)

    def complete(self, clients: int) -> bool:
        """True when Rain, which writes its log once a second, has told all of it.

        ``clients``: how many the server let in.
        """
        return self._points.all_noted_ended() or self._points.clients_removed >= clients


def _cut_partial_line(path: Path) -> None:
    """A supervisor that was killed may have left half a line."""
    if not path.exists():
        return
    data = path.read_bytes()
    if not data.endswith(b"\n"):
        os.truncate(path, data.rfind(b"\n") + 1)
