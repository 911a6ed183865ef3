"""Makes points.jsonl and details.jsonl of a run."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from ..files import Tail
from ..run import Run
from ..wire import PointRow, WireError, from_json, read, to_json
from .details import Details
from .events import read_events
from .notes import MissNote, TaskEnd, TaskNote, ValueNote
from .table import Points

Note = TypeVar("Note")
_SIGNS_OF_LIFE = frozenset({"GovernorNew", "Monitoring"})  # the second every 5 s
_NONSENSE = (ValueError, OverflowError)  # raised by notes of a wrong shape: user code can write them too


class Recorder:
    """Feeds one attempt's events and notes to points.jsonl, which goes on over all attempts of a run."""

    def __init__(self, run: Run, node_name: Callable[[str], str]) -> None:
        status = run.status()
        self._database = run.attempt_dir / "log" / "events.db"
        self._output = run.path / "points.jsonl"
        self._report = run.report
        self._last_id = 0
        self._heard: dict[str, float] = {}  # when the log last had something of a governor
        notes = run.path / "companion"
        self._tasks, self._misses = Tail(notes / "tasks.jsonl"), Tail(notes / "misses.jsonl")
        self._ends, self._values = Tail(notes / "ends.jsonl"), Tail(notes / "values.jsonl")
        self._details = Details(run.path / "details.jsonl", status.attempt)
        blank = PointRow(task=0, run=run.id, attempt=status.attempt, epoch=status.epoch)
        files = str(run.path / "files")
        self.points = Points(blank, node_name=node_name, known=self._known(), files=files)

    def _known(self) -> Iterator[PointRow]:
        """Yield what was written before, and cut off the half line of a writer that was killed."""
        if not self._output.exists():
            return
        with self._output.open("rb+") as file:
            end = 0
            for text in file:
                if text.endswith(b"\n"):
                    end += len(text)
                    with contextlib.suppress(WireError):
                        yield read(PointRow, text)
            file.truncate(end)

    def step(self) -> None:
        """Append the rows that changed since the last step.  Raises OSError."""
        self._take(self._tasks, TaskNote, self._note_task)  # before Rain's events: they say what is kept
        while events := read_events(self._database, self._last_id):
            for event in events:
                self.points.apply(event)
                if event.kind in _SIGNS_OF_LIFE:
                    self._heard[str(event.data.get("governor"))] = time.monotonic()
            self._last_id = events[-1].id
        self._take(self._misses, MissNote, self._note_miss)
        self._take(self._ends, TaskEnd, self.points.note_end)
        self._take(self._values, ValueNote, self.points.note_value)
        self._write()

    def silent(self, limit_s: float) -> tuple[str, ...]:
        """Return the governors of which Rain's event log has had nothing for so long."""
        now_s = time.monotonic()  # it stands still while the machine is suspended
        return tuple(governor for governor, heard_s in self._heard.items() if now_s - heard_s > limit_s)

    def close(self, why: str) -> None:
        """Append an end of every task that has none, because the run has ended.  Raises OSError."""
        self.points.close(why)
        self._write()

    def requeue(self) -> None:
        """Append that what has not ended is submitted, because the attempt was lost.  Raises OSError."""
        self.points.requeue()
        self._write()

    def _note_task(self, note: TaskNote) -> None:
        self.points.note_task(note)
        self._details.note_task(note)

    def _note_miss(self, note: MissNote) -> None:
        if note.of_all:
            self._report(note.why)
        else:
            self._details.note_miss(note)

    def _take(self, notes: Tail, kind: type[Note], take: Callable[[Note], None]) -> None:
        for note in notes.json_lines():
            with contextlib.suppress(*_NONSENSE):
                take(from_json(kind, note))

    def _write(self) -> None:
        for (session, task), text in self.points.errors.items():
            self._details.note_error(session, task, text)
        self.points.errors.clear()
        self._details.write()
        if rows := self.points.changed():
            text = "".join(json.dumps(to_json(row)) + "\n" for row in rows)
            with self._output.open("a", encoding="ascii") as file:
                file.write(text)
