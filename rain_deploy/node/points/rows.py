"""Tasks of a run as rows, folded from Rain's events and the companion's notes.  Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from ..files import Json
from .events import Event

Value = int | float | bool | str
"""A parameter's value."""
Key = tuple[int, int]
"""Session and task, as Rain numbers them."""
_PAIR = re.compile(r"""(?<![\w.\-])([A-Za-z_][\w.\-]*)=(?:"([^"]*)"|'([^']*)'|([^\s,;]+))""")
_INTEGER = re.compile(r"[+-]?\d+")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_WORDS = {"true": True, "false": False}


@dataclass(slots=True)
class _Task:
    session: int
    id: int
    name: str = ""
    named: dict[str, Value] = field(default_factory=dict)
    arguments: Json = field(default_factory=dict)
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
    """Rows by task.  ``changed()`` gives those that differ from what it gave before."""

    def __init__(
        self, run: str, attempt: int, epoch: int, *, node_name: Callable[[str], str], known: list[Json]
    ) -> None:
        """``known``: rows that were given before this process lived."""
        self._fixed: Json = {"run": run, "attempt": attempt, "epoch": epoch}
        self._node_name = node_name
        self._tasks: dict[Key, _Task] = {}
        self._noted: set[Key] = set()
        self._touched: set[Key] = set()
        self._given: dict[Key, Json] = {(row["session"], row["task"]): row for row in known}
        self.clients_removed = 0

    def apply(self, event: Event) -> None:
        """Take one of Rain's events into account."""
        match event.kind:
            case "ClientSubmit":
                for spec in event.data["tasks"]:
                    self._submitted(spec)
            case "TaskStarted":
                task = self._task(*event.data["task"])
                task.started_s, task.state = _epoch_s(event.timestamp), "running"
            case "TaskFinished":
                self._finished(self._task(*event.data["task"]), event.data["info"])
            case "SessionClosed":
                self._closed(event.data["session"], failed=event.data["reason"] == "Error")
            case "ClientRemoved":
                self.clients_removed += 1

    def note_task(self, note: Json) -> None:
        """A line of the companion's tasks.jsonl."""
        task = self._task(int(note["session"]), int(note["task"]))
        task.arguments, task.kept = dict(note.get("parameters") or {}), bool(note.get("kept"))
        self._noted.add((task.session, task.id))

    def note_value(self, note: Json) -> None:
        """A line of the companion's values.jsonl."""
        value = float(note["value"])
        task = self._task(int(note["session"]), int(note["task"]))
        task.valued = True
        if math.isfinite(value):
            task.value = note["value"] if isinstance(note["value"], int | float) else value
        else:  # JSON has no such number
            task.message = f"value is {value}"

    def all_noted_ended(self) -> bool:
        """True when the companion noted tasks and the engine told the end of each."""
        return bool(self._noted) and all(self._tasks[key].closed for key in self._noted)

    def changed(self) -> list[Json]:
        """Rows that differ from what was given, in order of session and task."""
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

    def _submitted(self, spec: Json) -> None:
        task = self._task(*spec["id"])
        task.name = spec.get("name", "")
        task.named = parameters(task.name)

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

    def _row(self, task: _Task) -> Json:
        named = any(other.named for key, other in self._tasks.items() if key[0] == task.session)
        ended = task.started_s is not None and task.duration_s is not None
        return {
            **self._fixed,
            "task": task.id,
            "session": task.session,
            "name": task.name,
            "parameters": task.named if named else task.arguments,
            "value": task.value,
            "node": task.node,
            "started_s": task.started_s,
            "ended_s": (task.started_s or 0) + (task.duration_s or 0) if ended else None,
            "duration_s": task.duration_s,
            "state": task.state,
            "source": "companion" if task.valued else "engine",
            "point": bool(task.named) if named else task.kept,
            "message": task.message,
        }


def _epoch_s(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp).timestamp()


def _reason(error: str) -> str:
    """The line of a task's error that says most: a traceback's last one, a program's first one."""
    lines = [line for line in error.splitlines() if line.strip() and line != "Task failed in executor"]
    if not lines:
        return ""
    return lines[-1 if lines[0].startswith("Traceback") else 0].strip()


def parameters(name: str) -> dict[str, Value]:
    """Pairs ``key=value``, apart by blanks, commas or semicolons; of a repeated key the last counts."""
    found: dict[str, Value] = {}
    for match in _PAIR.finditer(name):
        key, double, single, bare = match.groups()
        quoted = double if double is not None else single
        found[key] = _value(bare) if quoted is None else quoted
    return found


def _value(text: str) -> Value:
    if _NUMBER.fullmatch(text) and math.isfinite(number := float(text)):
        return int(text) if _INTEGER.fullmatch(text) else number
    return _WORDS.get(text.lower(), text)
