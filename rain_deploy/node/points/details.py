"""Makes details.jsonl of a run: more about its tasks than a row of points.jsonl has room for."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..wire import PointDetail, to_json
from .notes import MissNote, TaskNote

_LONGEST_ERROR = 64_000  # characters of a text that is kept whole


class Details:
    """The details of one attempt's tasks; ``write`` appends what was added since the last time."""

    def __init__(self, path: Path, attempt: int) -> None:
        self._path, self._attempt = path, attempt
        self._written = {hash(line) for line in self._lines()}
        self._new: list[str] = []

    def _lines(self) -> Iterator[str]:
        """Yield what a killed writer of this attempt wrote, and end its half line."""
        if not self._path.exists():
            return
        mine = f'"attempt": {self._attempt},'
        with self._path.open("r+", encoding="ascii", errors="replace", newline="\n") as file:
            line = "\n"
            for line in file:
                if mine in line:
                    yield line
            if not line.endswith("\n"):
                file.write("\n")

    def note_task(self, note: TaskNote) -> None:
        """Add a task's arguments, and why its result cannot be kept."""
        if note.parameters or note.doubt:
            self._add(note.session, note.task, arguments=note.parameters, unkept=note.doubt)

    def note_miss(self, note: MissNote) -> None:
        """Add why the journal did not have a task's result."""
        self._add(note.session, note.task, missed=note.why)

    def note_error(self, session: int, task: int, text: str) -> None:
        """Add the whole error of a task; the middle of a very long one is left out."""
        if len(text) > _LONGEST_ERROR:
            half = _LONGEST_ERROR // 2
            text = f"{text[:half]}\n… {len(text) - 2 * half} characters left out …\n{text[-half:]}"
        self._add(session, task, error=text)

    def write(self) -> None:
        """Append the lines that were not written before.  Raises OSError."""
        if self._new:
            with self._path.open("a", encoding="ascii") as file:
                file.write("".join(self._new))
            self._new = []

    def _add(self, session: int, task: int, **more: Any) -> None:
        detail = PointDetail(task=task, session=session, attempt=self._attempt, **more)
        given = {
            name: value for name, value in to_json(detail).items() if value or name in {"task", "session"}
        }
        line = json.dumps(given) + "\n"
        if hash(line) not in self._written:
            self._new.append(line)
