"""Sends tasks and objects to Rain's server as its client does, with what the journal adds on the wire alone.

Rain's message to the server is at most 64 MB, so many constants go ahead in messages of their own.
"""

import json
from collections.abc import Collection
from typing import Any

from .keyed import Keyed
from .wishes import Wishes

BATCH_BYTES = 16 << 20


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
