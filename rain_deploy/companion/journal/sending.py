"""Sends tasks and objects to Rain's server as its client does, with what the journal adds on the wire alone.

Rain's message to the server is at most 64 MB, so many constants go ahead in messages of their own.
"""

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from .. import FailOpen
from ..wire import NAME
from .keyed import Keyed

BATCH_BYTES = 16 << 20


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


def send(
    client: Any,
    tasks: Collection[Any],
    objects: Collection[Any],
    *,
    wishes: dict[Any, Wishes],
    kept: Collection[Any],
) -> None:
    """Send tasks and new objects, as ``Client._submit`` does.  ``kept`` are ids that Rain keeps for us."""
    homes = [wish.home for task in tasks if (wish := wishes.get(task.id)) and wish.home is not None]
    request = client._service.submit_request()
    request.init("tasks", len(tasks))
    for place, task in enumerate(tasks):
        spec = task.spec._to_json()
        wish = wishes.get(task.id)
        request.tasks[place].spec = json.dumps(wish.on(spec) if wish else spec)
    request.init("objects", len(objects) + len(homes))
    for place, each in enumerate(objects):
        each._to_capnp(request.objects[place])
        if each.id in kept:
            request.objects[place].keep = True
    for place, home in enumerate(homes, len(objects)):
        request.objects[place].spec = json.dumps({"id": list(home), "data_type": "blob"})
        request.objects[place].keep = True
        request.objects[place].hasData = False
    request.send().wait()


def account(states: Any, session: Any, done: Collection[Any]) -> None:
    """Do what ``Session.submit`` does once all is sent; ``done`` are the ids of what is finished already."""
    tasks, objects = states.TaskState, states.DataObjectState
    for task in session._tasks:
        task._state = tasks.finished if task.id in done else tasks.notAssigned
        session._submitted_tasks.append(task)
    for each in session._dataobjs:
        each._state = objects.finished if each.id in done else objects.unfinished
        session._submitted_dataobjs.append(each)
    session._tasks, session._dataobjs = [], []


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


def watched(task: Any, known: Keyed, wish: Wishes | None) -> dict[str, Any]:
    """Return what the helper needs to know of a task that was sent."""
    outputs = [
        {
            "id": output.id.id,
            "kept": output._keep,
            "data_type": output.spec.data_type.value,
            "content_type": output.spec.content_type or "",
        }
        for output in task.outputs
    ]
    return {
        "session": task.id.session_id,
        "task": task.id.id,
        "key": known.keys.get(task.id, ""),
        "parts": known.parts.get(task.id, {}),
        "name": task.name or "",
        "task_type": task.task_type,
        "outputs": outputs,
        "home": wish.home.id if wish and wish.home else None,
    }
