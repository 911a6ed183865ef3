"""Sends tasks and objects to Rain's server as its client does, with what the journal adds on the wire alone.

Rain's message to the server is at most 64 MB, so many constants go ahead in messages of their own.
"""

import json
from collections.abc import Collection, Iterable
from typing import Any

from .keyed import Keyed
from .state import State
from .wishes import Wishes

BATCH_BYTES = 16 << 20


def prepared(
    client: Any,
    tasks: Collection[Any],
    objects: Collection[Any],
    *,
    wishes: dict[Any, Wishes],
    kept: Collection[Any],
) -> Any:
    """Return the request that ``Client._submit`` would send.  ``kept`` are ids that Rain keeps for us."""
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
    return request


def batches(constants: Iterable[Any]) -> list[list[Any]]:
    """Return constants in groups that each fit into a message."""
    groups, size_bytes = list[list[Any]]([[]]), 0
    for each in constants:
        size_bytes += len(each._data)
        if size_bytes > BATCH_BYTES and groups[-1]:
            groups.append([])
            size_bytes = len(each._data)
        groups[-1].append(each)
    return groups


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


def not_run(tasks: Iterable[Any], state: State, withheld: dict[Any, str]) -> list[dict[str, Any]]:
    """Return what the helper needs to know of tasks whose results, or failures, are kept."""
    return [
        {
            "session": task.id.session_id,
            "task": task.id.id,
            "key": state.known.keys.get(task.id, ""),
            "name": task.name or "",
            "message": withheld.get(task.id, ""),
        }
        for task in tasks
        if task.id in state.hits or task.id in withheld
    ]
