"""Makes rows of a run's tasks, from Rain's events and the companion's notes.  No I/O."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime

from ..files import Json
from ..wire import Parameter, PointRow

Key = tuple[int, int]
"""Session and task, as Rain numbers them."""
_PAIR = re.compile(r"""(?<![\w.\-])([A-Za-z_][\w.\-]*)=(?:"([^"]*)"|'([^']*)'|([^\s,;]+))""")
_INTEGER = re.compile(r"[+-]?\d+")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_WORDS = {"true": True, "false": False}


@dataclass(frozen=True, slots=True)
class Event:
    """A row of Rain's event log; ``data`` is its JSON."""

    id: int
    timestamp: str
    """RFC 3339, nanoseconds."""
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


@dataclass(slots=True)
class _Task:
    session: int
    id: int
    name: str = ""
    named: dict[str, Parameter | None] = field(default_factory=dict)
    arguments: dict[str, Parameter | None] = field(default_factory=dict)
    kept: bool = False
    value: float | None = None
    valued: bool = False
    node: str | None = None
    started_s: float | None = None
    duration_s: float | None = None
    state: str = "submitted"
    closed: bool = False
    message: str = ""


class Points:
    """Rows by task.  ``changed()`` returns those that differ from what it returned before."""

    def __init__(self, blank: PointRow, *, node_name: Callable[[str], str], known: list[PointRow]) -> None:
        """``blank`` has the fields that all rows share; ``known`` are rows that an earlier process wrote."""
        self._blank = blank
        self._node_name = node_name
        self._tasks: dict[Key, _Task] = {}
        self._noted: set[Key] = set()
        self._touched: set[Key] = set()
        self._given = {(row.session, row.task): row for row in known}
        self.clients_removed = 0

    def apply(self, event: Event) -> None:
        """Take one of Rain's events into account."""
        match event.kind:
            case "ClientSubmit":
                for spec in event.data["tasks"]:
                    task = self._task(*spec["id"])
                    task.name = spec.get("name", "")
                    task.named = parameters(task.name)
            case "TaskStarted":
                task = self._task(*event.data["task"])
                task.started_s, task.state = _epoch_s(event.timestamp), "running"
            case "TaskFinished":
                self._finished(self._task(*event.data["task"]), event.data["info"])
            case "SessionClosed":
                self._closed(event.data["session"], failed=event.data["reason"] == "Error")
            case "ClientRemoved":
                self.clients_removed += 1

    def note_task(self, note: TaskNote) -> None:
        """Take a note of the companion about a task into account."""
        task = self._task(note.session, note.task)
        task.arguments, task.kept = note.parameters, note.kept
        self._noted.add((task.session, task.id))

    def note_value(self, note: ValueNote) -> None:
        """Take a value that the script loaded into account.  Raises ValueError, OverflowError."""
        value = float(note.value)
        task = self._task(note.session, note.task)
        task.valued = True
        if math.isfinite(value):
            task.value = note.value if isinstance(note.value, int | float) else value
        else:  # JSON has no such number
            task.message = f"value is {value}"

    def all_noted_ended(self) -> bool:
        """Return True when the companion noted tasks and the engine logged the end of each."""
        return bool(self._noted) and all(self._tasks[key].closed for key in self._noted)

    def changed(self) -> list[PointRow]:
        """Return the rows that differ from those returned before, in order of session and task."""
        rows = []
        sessions = {session for session, _ in self._touched}
        for key in sorted(key for key in self._tasks if key[0] in sessions):
            row = self._row(self._tasks[key])
            if self._given.get(key) != row:
                self._given[key] = row
                rows.append(row)
        self._touched.clear()
        return rows

    def _task(self, session: int, number: int) -> _Task:
        self._touched.add((session, number))
        return self._tasks.setdefault((session, number), _Task(session, number))

    def _finished(self, task: _Task, info: Json) -> None:
        task.closed = True
        task.state = "failed" if info.get("error") else "finished"
        task.message = _reason(info.get("error", "")) or (task.message if task.valued else "")
        if governor := info.get("governor"):
            task.node = self._node_name(governor)
        if start := info.get("start_time"):
            task.started_s = _epoch_s(start)
        task.duration_s = info.get("duration")

    def _closed(self, session: int, *, failed: bool) -> None:
        for key, task in self._tasks.items():
            if key[0] == session and not task.closed:
                self._touched.add(key)
                task.closed = True
                task.state = "failed" if failed else task.state
                task.message = "dropped: another task of its session failed" if failed else "not waited for"

    def _row(self, task: _Task) -> PointRow:
        named = any(other.named for key, other in self._tasks.items() if key[0] == task.session)
        ended = task.started_s is not None and task.duration_s is not None
        return replace(
            self._blank,
            task=task.id,
            session=task.session,
            name=task.name,
            parameters=task.named if named else task.arguments,
            value=task.value,
            node=task.node,
            started_s=task.started_s,
            ended_s=(task.started_s or 0) + (task.duration_s or 0) if ended else None,
            duration_s=task.duration_s,
            state=task.state,
            source="companion" if task.valued else "engine",
            point=bool(task.named) if named else task.kept,
            message=task.message,
        )


def _epoch_s(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp).timestamp()


def _reason(error: str) -> str:
    """Return the most useful line of a task's error: a traceback's last one, a program's first one."""
    lines = [line for line in error.splitlines() if line.strip() and line != "Task failed in executor"]
    if not lines:
        return ""
    return lines[-1 if lines[0].startswith("Traceback") else 0].strip()


def parameters(name: str) -> dict[str, Parameter | None]:
    """Return the pairs ``key=value`` in a task's name: ``mnist size=32 dropout=0.2``.

    They are separated by blanks, commas or semicolons; the last of a repeated key counts.
    """
    found: dict[str, Parameter | None] = {}
    for match in _PAIR.finditer(name):
        key, double, single, bare = match.groups()
        quoted = double if double is not None else single
        found[key] = _value(bare) if quoted is None else quoted
    return found


def _value(text: str) -> Parameter:
    if _NUMBER.fullmatch(text) and math.isfinite(number := float(text)):
        return int(text) if _INTEGER.fullmatch(text) else number
    return _WORDS.get(text.lower(), text)
