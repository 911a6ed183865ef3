"""Decides what is asked of the processes of Python tasks: soft failures, and what they leave."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from .. import FailOpen, warn
from ..wire import NAME

FIRST_HOME = 1 << 30
"""Ids of homes are far from the script's own: those are the same in each attempt, whatever is kept of it."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is asked of a task's process.

    ``soft``: a failure does not end the session.  ``home``: the id of one more output, for what the task
    prints and writes.
    """

    soft: bool = False
    home: Any = None

    def on(self, spec: dict[str, Any]) -> dict[str, Any]:
        """Return a task's spec, as JSON, with the wishes."""
        user = {**spec.get("user", {}), NAME: {"soft": self.soft, "home": self.home is not None}}
        if self.home is None:
            return {**spec, "user": user}
        outputs = [*spec.get("outputs", []), list(self.home)]
        encoded = [*spec["config"]["encode_outputs"], None]
        return {
            **spec,
            "user": user,
            "outputs": outputs,
            "config": {**spec["config"], "encode_outputs": encoded},
        }


def usable() -> bool:
    """Return whether the processes of tasks understand our wishes."""
    with FailOpen("preparing what tasks may do"):
        from .. import executor

        return executor.usable()
    return False


def soft_tasks(tasks: Iterable[Any]) -> set[Any]:
    """Return the ids of the tasks that may fail softly: Python tasks whose results only such tasks take.

    Any other task would take the mark of a failure for data.
    """
    soft: set[Any] = set()
    taken: set[Any] = set()  # objects that a task takes that is not soft
    for task in reversed(list(tasks)):  # a task comes after those whose results it takes
        if task.task_type == "py/" and not any(output.id in taken for output in task.outputs):
            soft.add(task.id)
        else:
            taken.update(each.id for each in task.inputs)
    return soft


class Wishing:
    """Makes the wishes of a script's tasks."""

    def __init__(self, new_id: Callable[..., Any], can_wish: Callable[[], bool]) -> None:
        """``new_id`` is Rain's class of ids; ``can_wish`` returns whether processes understand wishes."""
        self._new_id, self._can_wish = new_id, can_wish
        self._homes = 0

    def softly(self, tasks: Iterable[Any]) -> set[Any]:
        """Return the ids of the tasks whose failure does not end the session."""
        soft: set[Any] = set()
        with FailOpen("deciding which failures end the session"):
            if not os.environ.get("RAIN_DEPLOY_FAIL_FAST") and self._can_wish():
                soft = soft_tasks(tasks)
        return soft

    def wishes(self, session: Any, tasks: list[Any]) -> dict[Any, Wishes]:
        """Return what is asked of the processes of Python tasks, by the ids of the tasks."""
        soft = self.softly(tasks)
        with FailOpen("deciding what tasks may do"):
            python = [task.id for task in tasks if task.task_type == "py/" and self._can_wish()]
            return {task: Wishes(task in soft, self._home(session)) for task in python}
        return {}

    def _home(self, session: Any) -> Any:
        """Return the id of the output for what a task prints and writes; None once there are enough."""
        self._homes, most = self._homes + 1, int(os.environ["RAIN_DEPLOY_MOST_HOMES"])
        if self._homes > most:
            warn(f"what tasks print and write is kept of the first {most} tasks only")
            return None
        return self._new_id(session_id=session.session_id, id=FIRST_HOME + self._homes)
