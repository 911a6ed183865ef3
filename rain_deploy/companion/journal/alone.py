"""Holds back tasks under which something died twice, and starts each alone, after all others.

If something dies again, it is that task's own fault.  What needs the result of such a task waits with it.
They are started when the script first asks for one of them: a script that never does needs none.
"""

from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .. import FailOpen, points
from .keyed import Keyed


@dataclass(frozen=True, slots=True)
class _Task:
    task: Any
    known: Keyed
    wishes: dict[Any, Any]
    alone: bool


class Held:
    """The tasks that are held back, in the order in which the script made them."""

    def __init__(self, start: Callable[[Any, Keyed, dict[Any, Any]], None], wait: Callable[[], None]) -> None:
        """``start`` sends a task to Rain; ``wait`` waits for all that were sent."""
        self._start, self._wait = start, wait
        self._tasks: list[_Task] = []
        self._names: set[Any] = set()  # ids of the tasks and of their outputs

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def hold(
        self, tasks: Sequence[Any], known: Keyed, wishes: dict[Any, Any], suspects: Container[str]
    ) -> list[Any]:
        """Hold back suspects (keys), and what needs their results; return the other tasks."""
        others, held, names = [], list[_Task](), set[Any]()
        for task in tasks:
            alone = known.keys.get(task.id) in suspects
            if alone or any(each.id in names for each in task.inputs):
                held.append(_Task(task, known, wishes, alone))
                names |= {task.id, *(output.id for output in task.outputs)}
            else:
                others.append(task)
        self._tasks += held
        self._names |= names
        return others

    def release(self, names: Iterable[Any]) -> None:
        """Start what is held back if the script asks for some of it, and wait for those that run alone."""
        if not self._tasks or self._names.isdisjoint(names):
            return
        while self._tasks:
            one = self._tasks[0]
            if one.alone:
                self._wait()
                with FailOpen("noting that a task runs alone"):
                    points.note_alone(one.task, one.known.keys)
            del self._tasks[0]
            self._names -= {one.task.id, *(output.id for output in one.task.outputs)}
            self._start(one.task, one.known, one.wishes)
            if one.alone:
                self._wait()

    def forget(self, session: Any) -> None:
        """Forget the tasks of a session that is closed."""
        self._tasks = [one for one in self._tasks if one.task.id.session_id != session.session_id]
        self._names = {name for name in self._names if name.session_id != session.session_id}
