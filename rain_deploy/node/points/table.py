"""The rows of a run's tasks, from Rain's events and the notes of the companion and its helper."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from ..files import Json
from ..wire import PointRow
from .events import Event
from .names import parameters, readable, reason
from .notes import TaskEnd, TaskNote, ValueNote, check_numbers
from .times import Times, epoch_s

Key = tuple[int, int]  # session and task, as Rain numbers them
_SURE = frozenset({"finished", "failed"})
"""States that no event changes any more: a line of ends.jsonl may come long before Rain's event."""


class Points:
    """Rows by session and task.  ``changed()`` returns those that differ from what it returned before.

    The points of a session are its tasks with ``key=value`` in their names; if there is none, those whose
    output the script keeps.  Each event costs as much as the tasks that it is about, however many there are.

    A task whose result the journal keeps is finished when the journal has it, which its ``TaskEnd`` says.
    That Rain finished it counts only if the run ends without one.  A row of an earlier attempt stays as it
    is until this attempt says something about the same task.
    """

    def __init__(
        self, blank: PointRow, *, node_name: Callable[[str], str], known: Iterable[PointRow], files: str = ""
    ) -> None:
        """``blank`` has the fields that all rows share; ``known`` are rows that were written before.

        ``files`` is the absolute path of the run's files, which is left out of errors.
        """
        self._files = files
        self._blank = replace(blank, state="submitted", source="engine")
        self._node_name = node_name
        self._rows: dict[int, dict[int, PointRow]] = {}
        for row in known:
            self._rows.setdefault(row.session, {})[row.task] = row
        self._before: dict[Key, PointRow | None] = {}
        """Rows as ``changed`` returned them, of those touched since."""
        self._named: set[int] = set()
        self._awaited: set[Key] = set()  # tasks that the companion noted and that have not ended
        self._unkept: dict[Key, Json] = {}  # what Rain says of tasks that it finished and the journal has not
        self._noted = False
        self._clients_removed = 0
        self.run_end = ""
        """Why the run ended, once it has.  It is why a session was closed, whatever Rain's log calls it."""
        self.errors: dict[Key, str] = {}  # whole texts, for whoever takes them out
        self.lost = False
        """A node was lost, and the script is ended for it: its sessions close, but no task ends by that."""
        self.progressed = False  # the journal got a result in this attempt
        self.broken: dict[Key, PointRow] = {}  # tasks that failed and ended their session
        self.died: dict[Key, PointRow] = {}  # the same, of those whose process died
        self.alone: set[Key] = set()  # tasks that were started when nothing else was running

    def apply(self, event: Event) -> None:
        """Take one of Rain's events into account."""
        data = event.data
        match event.kind:
            case "ClientSubmit":
                for spec in data["tasks"]:
                    self._name(spec["id"], spec.get("name", ""))
            case "TaskStarted":
                if self._row(data["task"]).state not in _SURE:
                    self._change(data["task"], started_s=epoch_s(event.timestamp), state="running")
            case "TaskFinished":
                self._finish(data["task"], data["info"])
            case "SessionClosed" if not self.lost:
                failed = data["reason"] == "Error"
                why = "another task of its session failed" if failed else ""
                self._drop(data["session"], why or self.run_end or "the script closed its session")
            case "ClientRemoved":
                self._clients_removed += 1

    def note_task(self, note: TaskNote) -> None:
        """Take a note of the companion about a task into account."""
        key = note.session, note.task
        self._change(key, key=note.key, cached=note.hit)
        if note.session not in self._named:
            self._change(key, parameters=note.parameters, point=note.kept)
        if note.name:
            self._name(key, note.name)
        if note.alone:
            self.alone.add(key)
        self._noted = True
        if not note.key and (info := self._unkept.pop(key, None)):
            self._finish(key, info)
        if not self._row(key).ended:
            self._awaited.add(key)

    def note_value(self, note: ValueNote) -> None:
        """Take a value that the script loaded into account.  Raises OverflowError."""
        check_numbers(note.value, note.values)
        self._change((note.session, note.task), source="companion", value=note.value, values=note.values)

    def note_end(self, end: TaskEnd) -> None:
        """Take the end of a task into account; it is final.  Raises ValueError, OverflowError."""
        if end.state not in _SURE:
            raise ValueError(f"a task does not end as {end.state!r}")
        check_numbers(end.value, end.values)
        key = end.session, end.task
        old = self._row(key)
        self._unkept.pop(key, None)
        self.progressed |= bool(old.key) and end.state == "finished" and not end.hit
        if end.state == "failed":
            self.errors[key] = readable(end.message, self._files)
        if end.hard and old.key:
            (self.died if end.died else self.broken)[key] = old
        changes: dict[str, Any] = {}
        if (end.value is not None or end.values) and old.value is None and not old.values:
            changes = {"source": "companion", "value": end.value, "values": end.values}
        self._change(
            key,
            state=end.state,
            message=reason(readable(end.message, self._files)),
            node=end.node or old.node,
            started_s=old.started_s if end.started_s is None else end.started_s,
            ended_s=end.ended_s,
            duration_s=end.duration_s,
            cached=end.hit,
            **changes,
        )

    def close(self, why: str) -> None:
        """End the tasks that have not ended, because the run has."""
        for key, info in self._unkept.items():
            self._change(key, key="", **self._end(key, info))
        self._unkept.clear()
        for row in self._unended():
            self._drop_row(row, why)

    def requeue(self) -> None:
        """Take back what has not ended, because the engine was lost: the next attempt runs it."""
        self._unkept.clear()
        for row in self._unended():
            self._put(replace(row, state="submitted", started_s=None, node=None))

    def complete(self, clients: int) -> bool:
        """Return True when all is read: every noted task has ended, or all clients that were let in left."""
        return (self._noted and not self._awaited) or self._clients_removed >= clients

    def unended(self, tasks: Iterable[Key]) -> dict[Key, PointRow]:
        """Return the rows of those of these tasks that have a key and have not ended in this attempt."""
        rows = {task: self._row(task) for task in tasks}
        return {task: row for task, row in rows.items() if row.key and not row.ended}

    def kept(self) -> tuple[int, int]:
        """Return how many points need not be computed by another attempt, and how many there are."""
        points = [row for rows in self._rows.values() for row in rows.values() if row.point]
        return sum(row.state == "finished" and bool(row.key) for row in points), len(points)

    def changed(self) -> list[PointRow]:
        """Return the rows that differ from those returned before, in order of session and task."""
        before, self._before = self._before, {}
        rows = ((self._rows[session][task], before[session, task]) for session, task in sorted(before))
        return [row for row, old in rows if row != old]

    def _row(self, task: Sequence[int]) -> PointRow:
        """Return the row of a task in this attempt."""
        session, number = task
        row = self._rows.get(session, {}).get(number)
        fresh = row is None or row.attempt != self._blank.attempt
        return replace(self._blank, session=session, task=number) if fresh or row is None else row

    def _change(self, task: Sequence[int], **changes: Any) -> None:
        self._put(replace(self._row(task), **changes))

    def _put(self, row: PointRow) -> None:
        rows = self._rows.setdefault(row.session, {})
        self._before.setdefault((row.session, row.task), rows.get(row.task))
        rows[row.task] = row
        if row.ended:
            self._awaited.discard((row.session, row.task))

    def _name(self, task: Sequence[int], name: str) -> None:
        pairs, session = parameters(name), task[0]
        named = {"parameters": pairs, "point": bool(pairs)}
        self._change(task, name=name, **(named if pairs or session in self._named else {}))
        if pairs and session not in self._named:
            self._named.add(session)
            for row in self._of_attempt(session):  # what the companion noted of them counts no more
                pairs = parameters(row.name)
                self._put(replace(row, parameters=pairs, point=bool(pairs)))

    def _finish(self, task: Sequence[int], info: Json) -> None:
        row, key = self._row(task), (task[0], task[1])
        if row.state in _SURE:
            return
        if row.key and not _error(info):
            self._unkept[key] = info
        else:
            self._change(key, **self._end(key, info))

    def _end(self, task: Key, info: Json) -> Json:
        """Return what Rain's information about a task that ended changes in its row."""
        row, error = self._row(task), readable(_error(info), self._files)
        if error:
            self.errors[task] = error
        governor = info.get("governor")
        return {
            "state": "failed" if error else "finished",
            "message": reason(error) if error else "",
            "node": self._node_name(governor) if governor else row.node,
            **Times.of(info, row.started_s)._asdict(),
        }

    def _of_attempt(self, session: int) -> list[PointRow]:
        rows = self._rows.get(session, {}).values()
        return [row for row in rows if row.attempt == self._blank.attempt]

    def _unended(self) -> list[PointRow]:
        """Return the rows of all attempts that have not ended."""
        return [row for rows in self._rows.values() for row in rows.values() if not row.ended]

    def _drop(self, session: int, why: str) -> None:
        """End what has not ended of a session; nobody will hear of it any more."""
        for row in self._of_attempt(session):
            if not row.ended and (row.session, row.task) not in self._unkept:
                self._drop_row(row, why)

    def _drop_row(self, row: PointRow, why: str) -> None:
        self._put(replace(row, state="not run" if row.started_s is None else "cancelled", message=why))


def _error(info: Json) -> str:
    """Return the error in Rain's information about a task, also of one that failed without failing others."""
    user = info.get("user")
    ours = user.get("rain-deploy") if isinstance(user, dict) else None
    soft = ours.get("failed") if isinstance(ours, dict) else None
    return str(info.get("error") or soft or "")
