"""The names of Rain's client that are replaced, so that finished tasks are not run again.

At ``Session.submit`` each task gets a key.  A task whose result is kept in the journal is not sent to Rain:
its outputs are served from the journal, and are sent as constants only to tasks that need them.  The helper
watches the others.  A constant is never fetched from Rain's server, which would panic.
"""

import atexit
import functools
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from .. import FailOpen, points, reason, warn
from .helper import Helper, HelperLost
from .keys import Doubt, Keys

BATCH_BYTES = 16 << 20  # of constants in one message to the server, which takes at most 64 MB
LARGEST_SENT_BYTES = 60 << 20
"""A kept result that is larger cannot be sent to a task that needs it, so its task runs again."""
MOST_NAMED = 3


def hook_client(client: Any) -> None:
    """Hook ``rain.client``, which was just imported."""
    run_dir = Path(os.environ["RAIN_DEPLOY_RUN_DIR"])
    helper = Helper(run_dir, Path(os.environ["RAIN_DEPLOY_COMPANION"]).parent)
    keys = Keys(os.environ.get("RAIN_DEPLOY_SWEEP") or run_dir.name, str(run_dir / "files"))
    helper.start()
    journal = Journal(client, helper, keys)
    journal.install()
    atexit.register(journal.end)


class Stored:
    """An output whose content is in the journal."""

    def __init__(self, found: dict[str, Any], number: int) -> None:
        self.info = found["record"]["outputs"][number]["info"]
        self._place = found["places"][number]

    @property
    def size_bytes(self) -> int:
        return int(self._place["size_bytes"])

    def read(self) -> bytes:
        """Return the content.  Raises OSError."""
        with open(self._place["file"], "rb") as file:  # noqa: PTH123 - a Path costs more, and there are many
            file.seek(self._place["offset"])
            return file.read(self.size_bytes)


class Journal:
    """The journal in the script's process."""

    def __init__(self, client: Any, helper: Helper, keys: Keys) -> None:
        self._rain, self._helper, self._keys = client, helper, keys
        self._thread = threading.get_ident()
        self._hits: dict[Any, dict[str, Any]] = {}  # what is kept of a task, by its id
        self._stored: dict[Any, Stored] = {}  # outputs of hits, by id
        self._unsent: dict[Any, Any] = {}  # objects that no task needed so far, by id
        self._watched: set[Any] = set()  # outputs of watched tasks
        self._forced: set[Any] = set()  # outputs that Rain keeps for the helper alone
        self._lost = False

    def install(self) -> None:
        """Replace the names of Rain's client."""
        client, session, data = (
            self._rain.client.Client,
            self._rain.session.Session,
            self._rain.data.DataObject,
        )
        session.submit = _wrapped(session.submit, self._submit)
        for name in ("_fetch", "_wait", "_wait_all", "_unkeep", "_get_state", "_close_session"):
            setattr(client, name, _wrapped(getattr(client, name), getattr(self, name)))
        data._to_capnp = _wrapped(data._to_capnp, self._to_capnp)

    def end(self) -> None:
        """Wait until the helper has kept what is finished."""
        with FailOpen("ending the journal's helper"):
            self._helper.end()

    def _submit(self, plain: Callable[..., Any], session: Any) -> Any:
        tasks, objects = list(session._tasks), list(session._dataobjs)
        hits: dict[Any, dict[str, Any]] = {}
        keys: dict[Any, str] = {}
        with FailOpen("looking for kept results"):
            keys = self._keys_of(tasks)
            hits = self._found(tasks, keys)
        if not tasks and not self._unsent and not self._stored:
            return plain(session)
        run = [task for task in tasks if task.id not in hits]
        self._take(tasks, hits)
        made = {output.id for task in tasks for output in task.outputs}
        for each in objects:
            if each.id not in made and each._data is not None:
                self._unsent[each.id] = each
        outputs = [each for task in run for each in task.outputs]
        others = [each for each in objects if each.id not in made and each._data is None]
        self._forced |= {
            each.id for task in run if task.id in keys for each in task.outputs if not each._keep
        }
        self._send(session.client, run, [*others, *outputs])
        self._account(session, tasks, objects, hits)
        with FailOpen("noting submitted tasks"):
            points.note_tasks(session, tasks, keys, hits)
        with FailOpen("watching the tasks"):
            self._watch(session, run, keys)
            self._serve(hits, keys)
        return None

    def _keys_of(self, tasks: list[Any]) -> dict[Any, str]:
        """Return the keys of the tasks that have one; warn of the others."""
        found = self._keys.of_tasks(tasks)
        doubts: dict[str, list[str]] = {}
        for task in tasks:
            if isinstance(doubt := found[task.id], Doubt) and doubt.reason:
                doubts.setdefault(doubt.reason, []).append(task.name or task.task_type)
        for why, names in doubts.items():
            more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
            named = ", ".join(map(repr, names[:MOST_NAMED]))
            warn(f"results of {named}{more} are not kept in the journal: {why}")
        return {name: key.hex for name, key in found.items() if not isinstance(key, Doubt)}

    def _found(self, tasks: list[Any], keys: dict[Any, str]) -> dict[Any, dict[str, Any]]:
        """Return what is kept of the tasks, by their ids."""
        if not keys or self._lost:
            return {}
        try:
            found = self._helper.find(list(keys.values()))["found"]
        except HelperLost as error:
            self._lose(error)
            return {}
        hits = {name: found[key] for name, key in keys.items() if key in found}
        counts = {task.id: len(task.outputs) for task in tasks}
        hits = {name: one for name, one in hits.items() if len(one["places"]) == counts[name]}
        while large := self._too_large(tasks, hits):
            for name in large:
                del hits[name]
        return hits

    def _too_large(self, tasks: list[Any], hits: dict[Any, dict[str, Any]]) -> set[Any]:
        """Return the hits that a task that runs needs, and that no message to the server can hold."""
        makers = {output.id: task.id for task in tasks for output in task.outputs}
        needed = {makers.get(each.id) for task in tasks if task.id not in hits for each in task.inputs}
        return {
            name
            for name in needed & hits.keys()
            if any(place["size_bytes"] > LARGEST_SENT_BYTES for place in hits[name]["places"])
        }

    def _take(self, tasks: list[Any], hits: dict[Any, dict[str, Any]]) -> None:
        for task in tasks:
            if found := hits.get(task.id):
                self._hits[task.id] = found
                for number, output in enumerate(task.outputs):
                    self._stored[output.id] = Stored(found, number)
                    self._unsent[output.id] = output

    def _send(self, client: Any, tasks: list[Any], objects: list[Any]) -> None:
        """Send the tasks, and before them the constants that they need and that were not sent."""
        needed = {each.id: each for task in tasks for each in task.inputs if each.id in self._unsent}
        batch, size_bytes = list[Any](), 0
        for name, each in needed.items():
            stored = self._stored.get(name)
            if stored:
                each._data = stored.read()
            batch.append(each)
            size_bytes += len(each._data)
            if size_bytes > BATCH_BYTES:
                self._send_batch(client, [], batch)
                batch, size_bytes = [], 0
        if batch or tasks or objects:
            self._send_batch(client, tasks, [*batch, *objects])

    def _send_batch(self, client: Any, tasks: list[Any], objects: list[Any]) -> None:
        client._submit(tasks, objects)
        for each in objects:
            self._unsent.pop(each.id, None)
            if each.id in self._stored:
                each._data = None  # it is in the journal; memory is for the script

    def _account(self, session: Any, tasks: list[Any], objects: list[Any], hits: dict[Any, Any]) -> None:
        """Do what ``Session.submit`` does with what it has sent."""
        states = self._rain.rpc.common
        for task in tasks:
            finished = task.id in hits
            task._state = states.TaskState.finished if finished else states.TaskState.notAssigned
            session._submitted_tasks.append(task)
        for each in objects:
            finished = each.id in self._stored
            kinds = states.DataObjectState
            each._state = kinds.finished if finished else kinds.unfinished
            session._submitted_dataobjs.append(each)
        session._tasks, session._dataobjs = [], []

    def _watch(self, session: Any, tasks: list[Any], keys: dict[Any, str]) -> None:
        if not tasks or self._lost:
            return
        watched = [
            {
                "session": task.id.session_id,
                "task": task.id.id,
                "key": keys.get(task.id, ""),
                "name": task.name or "",
                "task_type": task.task_type,
                "outputs": [
                    {
                        "id": output.id.id,
                        "kept": output._keep,
                        "data_type": output.spec.data_type.value,
                        "content_type": output.spec.content_type or "",
                    }
                    for output in task.outputs
                ],
            }
            for task in tasks
        ]
        try:
            self._helper.watch(session.session_id, watched)
        except HelperLost as error:
            self._lose(error)
        self._watched |= {output.id for task in tasks for output in task.outputs}

    def _serve(self, hits: dict[Any, Any], keys: dict[Any, str]) -> None:
        if hits and not self._lost:
            served = [{"session": n.session_id, "task": n.id, "key": keys[n]} for n in hits]
            self._helper.serve(served)

    def _lose(self, error: Exception) -> None:
        if not self._lost:
            self._lost = True
            warn(f"the sweep is not protected: the journal's helper failed ({reason(error)})")

    def _is_here(self, each: Any) -> bool:
        """Return whether an object is no output of a task that Rain runs."""
        return each.id in self._stored or each._data is not None

    def _fetch(self, plain: Callable[..., Any], client: Any, each: Any) -> Any:
        self._release()
        if not each._keep or each.state is None or not self._is_here(each):
            return plain(client, each)
        stored = self._stored.get(each.id)
        info = self._rain.client.ObjectInfo
        if stored:
            each._info = info._from_json(stored.info)
        elif each._info is None:
            each._info = info._from_json({"size": len(each._data)})
        data = stored.read() if stored else each._data
        return self._rain.client.DataInstance(data=data, data_object=each, data_type=each.spec.data_type)

    def _wait(self, plain: Callable[..., Any], client: Any, tasks: Any, objects: Any) -> Any:
        self._release()
        tasks = [task for task in tasks if task.id not in self._hits]
        objects = [each for each in objects if not (each.state is not None and self._is_here(each))]
        return plain(client, tasks, objects) if tasks or objects else None

    def _wait_all(self, plain: Callable[..., Any], client: Any, session: Any) -> Any:
        self._release()
        sent = any(task.id not in self._hits for task in session._submitted_tasks)
        return plain(client, session) if sent else None

    def _unkeep(self, plain: Callable[..., Any], client: Any, objects: Iterable[Any]) -> Any:
        """Let Rain delete objects: at once, or by the helper when their content is kept."""
        others = []
        for each in objects:
            if each.id in self._unsent:
                continue  # Rain never had it
            if each.id in self._watched and self._helper.usable and not self._lost:
                self._helper.unkept.append(tuple(each.id))
            elif threading.get_ident() == self._thread:  # a call of another thread would end the process
                others.append(each)
        return plain(client, others) if others else None

    def _get_state(self, plain: Callable[..., Any], client: Any, tasks: Any, objects: Any) -> Any:
        for task in tasks:
            if found := self._hits.get(task.id):
                task._info = self._rain.client.TaskInfo._from_json(found["record"]["info"])
        for each in objects:
            if stored := self._stored.get(each.id):
                each._info = self._rain.client.ObjectInfo._from_json(stored.info)
        tasks = [task for task in tasks if task.id not in self._hits]
        objects = [each for each in objects if each.id not in self._unsent and each.id not in self._stored]
        return plain(client, tasks, objects) if tasks or objects else None

    def _close_session(self, plain: Callable[..., Any], client: Any, session: Any) -> Any:
        if not self._lost:
            with FailOpen("keeping the last results"):
                try:
                    self._helper.close(session.session_id)
                except HelperLost as error:
                    self._lose(error)
        result = plain(client, session)
        for known in (self._hits, self._stored, self._unsent):
            for name in [name for name in known if name.session_id == session.session_id]:
                del known[name]
        for names in (self._watched, self._forced):
            names -= {name for name in names if name.session_id == session.session_id}
        return result

    def _to_capnp(self, plain: Callable[..., Any], each: Any, out: Any) -> None:
        plain(each, out)
        if each.id in self._forced:
            out.keep = True

    def _release(self) -> None:
        if self._helper.unkept and not self._lost:
            try:
                self._helper.release()
            except HelperLost as error:
                self._lose(error)


def _wrapped(plain: Callable[..., Any], ours: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(plain)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return ours(plain, *args, **kwargs)

    return wrapper
