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
from ..wire import NAME
from .alone import Held
from .decide import Stored, decided
from .helper import Helper, HelperLost
from .keyed import Keyed, keyed
from .keys import Keys
from .rest import TASKS_PER_QUESTION, Rest
from .sending import BATCH_BYTES, account, send, watched
from .wishes import Wishes, Wishing, usable


def hook_client(client: Any) -> None:
    """Hook ``rain.client``, which was just imported."""
    run_dir = Path(os.environ["RAIN_DEPLOY_RUN_DIR"])
    helper = Helper(run_dir, Path(os.environ["RAIN_DEPLOY_COMPANION"]).parent)
    keys = Keys(os.environ.get("RAIN_DEPLOY_SWEEP") or run_dir.name, str(run_dir / "files"))
    helper.start()
    journal = Journal(client, helper, keys, functools.cache(usable))
    journal.install()
    atexit.register(journal.end)


class Journal:
    """The journal in the script's process."""

    def __init__(self, client: Any, helper: Helper, keys: Keys, wishes: Callable[[], bool]) -> None:
        """``wishes`` returns whether processes of tasks understand our wishes."""
        self._rain, self._helper, self._keys = client, helper, keys
        self._wishing = Wishing(client.session.ID, wishes)
        self._thread = threading.get_ident()
        self._hits: dict[Any, dict[str, Any]] = {}  # what is kept of a task, by its id
        self._stored: dict[Any, Stored] = {}  # outputs of hits, by id
        self._unsent: dict[Any, Any] = {}  # objects that no task needed so far, by id
        self._watched: dict[Any, Any] = {}  # tasks by the ids of their outputs
        self._soft: set[Any] = set()  # tasks that may have failed softly
        self._failed: dict[Any, tuple[Any, str]] = {}  # task and text, by the ids of the task and its outputs
        self._plain: dict[str, Callable[..., Any]] = {}
        self._held = Held(self._start, self._wait_for_all)
        self._rest = Rest(self._failed)
        self._lost = False

    def install(self) -> None:
        """Replace the names of Rain's client."""
        client, session = self._rain.client.Client, self._rain.session.Session
        session.submit = _wrapped(session.submit, self._submit)
        for name in ("_fetch", "_wait", "_wait_all", "_unkeep", "_get_state", "_close_session"):
            self._plain[name] = getattr(client, name)
            setattr(client, name, _wrapped(getattr(client, name), getattr(self, name)))

    def end(self) -> None:
        """Wait until the helper has kept what is finished."""
        self._rest.before_end()
        with FailOpen("ending the journal's helper"):
            self._helper.end()

    def _submit(self, plain: Callable[..., Any], session: Any) -> Any:
        tasks, objects = list(session._tasks), list(session._dataobjs)
        if not tasks and not objects:
            return plain(session)
        self._held.release(each.id for task in tasks for each in task.inputs)
        known = Keyed()
        answer, hits, withheld = dict[str, Any](), dict[Any, dict[str, Any]](), dict[Any, str]()
        with FailOpen("looking for kept results"):
            known = keyed(self._keys, tasks)
            answer = self._found(known.keys)
        self._wait_for_needed(session.client, tasks)
        with FailOpen("deciding what to run"):
            hits, withheld = decided(tasks, known.keys, answer, self._failed)
        run = [task for task in tasks if task.id not in hits and task.id not in withheld]
        wishes = self._wishing.wishes(session, run)
        self._soft |= {task for task, wish in wishes.items() if wish.soft}
        with FailOpen("holding tasks back"):
            run = self._held.hold(run, known, wishes, answer.get("suspects", ()))
        self._take(tasks, hits, withheld)
        made = {output.id for task in tasks for output in task.outputs}
        new = [each for each in objects if each.id not in made]
        self._unsent |= {each.id: each for each in new if each._data is not None}
        unmade = [each for each in new if each._data is None]
        self._send(session.client, run, unmade, wishes, known)
        done = (self._hits, self._failed, self._stored)  # of all submits: only the new ones are looked up
        new_ids = {each.id for each in (*tasks, *objects)}
        account(
            self._rain.rpc.common, session, {name for name in new_ids if any(name in one for one in done)}
        )
        with FailOpen("noting submitted tasks"):
            points.note_tasks(session, tasks, known.keys, known.doubts, hits)
        with FailOpen("watching the tasks"):
            self._watch(session, run, known, wishes)
            self._serve(tasks, known.keys, hits, withheld)
        return None

    def _found(self, keys: dict[Any, str]) -> dict[str, Any]:
        """Return the helper's answer: which results are kept, and what is not tried again."""
        if not keys or self._lost:
            return {}
        try:
            return self._helper.find(list(keys.values()))
        except HelperLost as error:
            self._lose(error)
            return {}

    def _wait_for_needed(self, client: Any, tasks: list[Any]) -> None:
        """Wait for the tasks of earlier submits that might fail softly, where data is needed of them.

        Only Python tasks understand the mark of a failure; others would take it for data.
        """
        soft = self._wishing.softly(tasks)
        needed = (self._watched.get(each.id) for task in tasks if task.id not in soft for each in task.inputs)
        if waited := [made for made in needed if made and made.id in self._soft]:
            self._plain["_wait"](client, waited, [])
            self._check(client, waited)

    def _take(self, tasks: list[Any], hits: dict[Any, Any], withheld: dict[Any, str]) -> None:
        for task in tasks:
            if found := hits.get(task.id):
                self._hits[task.id] = found
                for number, output in enumerate(task.outputs):
                    self._stored[output.id] = Stored(found, number)
                    self._unsent[output.id] = output
            elif text := withheld.get(task.id):
                self._fail(task, text)

    def _fail(self, task: Any, text: str) -> None:
        self._failed |= dict.fromkeys((task.id, *(output.id for output in task.outputs)), (task, text))

    def _start(self, task: Any, known: Keyed, wishes: dict[Any, Wishes]) -> None:
        """Start a task that was held back."""
        session = task._session
        self._send(session.client, [task], [], wishes, known)
        with FailOpen("watching the tasks"):
            self._watch(session, [task], known, wishes)

    def _wait_for_all(self) -> None:
        """Wait for all tasks that were sent."""
        for session in {task.id.session_id: task._session for task in self._watched.values()}.values():
            self._plain["_wait_all"](session.client, session)

    def _send(
        self, client: Any, tasks: list[Any], objects: list[Any], wishes: dict[Any, Wishes], known: Keyed
    ) -> None:
        """Send the tasks, and before them the constants that they need and that were not sent."""
        kept = {each.id for task in tasks if task.id in known.keys for each in task.outputs}
        objects = [*objects, *(each for task in tasks for each in task.outputs)]
        needed = {each.id: each for task in tasks for each in task.inputs if each.id in self._unsent}
        batches, size_bytes = list[list[Any]]([[]]), 0
        for name, each in needed.items():
            if stored := self._stored.get(name):
                each._data = stored.read()
            size_bytes += len(each._data)
            if size_bytes > BATCH_BYTES and batches[-1]:
                batches.append([])
                size_bytes = len(each._data)
            batches[-1].append(each)
        for batch in batches[:-1]:
            send(client, [], batch, wishes={}, kept=kept)
        if batches[-1] or tasks or objects:
            send(client, tasks, [*batches[-1], *objects], wishes=wishes, kept=kept)
        for name, each in needed.items():
            del self._unsent[name]
            if name in self._stored:
                each._data = None  # it is in the journal; memory is for the script

    def _watch(self, session: Any, tasks: list[Any], known: Keyed, wishes: dict[Any, Wishes]) -> None:
        if not tasks or self._lost:
            return
        lines = [watched(task, known, wishes.get(task.id)) for task in tasks]
        try:
            self._helper.watch(session.session_id, lines)
        except HelperLost as error:
            self._lose(error)
        self._watched |= {output.id: task for task in tasks for output in task.outputs}

    def _serve(
        self, tasks: list[Any], keys: dict[Any, str], hits: dict[Any, Any], withheld: dict[Any, str]
    ) -> None:
        served = [
            {
                "session": task.id.session_id,
                "task": task.id.id,
                "key": keys.get(task.id, ""),
                "name": task.name or "",
                "message": withheld.get(task.id, ""),
            }
            for task in tasks
            if task.id in hits or task.id in withheld
        ]
        if served and not self._lost:
            self._helper.serve(served)

    def _lose(self, error: Exception) -> None:
        if self._lost:
            return
        self._lost = True
        warn(f"the sweep is not protected: the journal's helper failed ({reason(error)})")
        sessions: dict[int, dict[Any, Any]] = {}
        for task in self._watched.values():
            sessions.setdefault(task.id.session_id, {})[task.id] = task
        for tasks in sessions.values():  # without a key, Rain's own word counts for their ends
            points.note_tasks(next(iter(tasks.values()))._session, list(tasks.values()), {}, {}, ())

    def _is_here(self, each: Any) -> bool:
        """Return whether the content of an object can be had without Rain."""
        return each.id in self._stored or each._data is not None

    def _fetch(self, plain: Callable[..., Any], client: Any, each: Any) -> Any:
        self._release()
        if not each._keep or each.state is None:
            return plain(client, each)  # raises what Rain raises
        self._raise(each.id)
        self._held.release([each.id])
        if not self._is_here(each):
            found = plain(client, each)
            if (ours := each._info.user.pop(NAME, None)) and "failed" in ours:
                self._fail(self._watched[each.id], ours["failed"])
                self._raise(each.id)
            return found
        stored, info = self._stored.get(each.id), self._rain.client.ObjectInfo
        if stored:
            each._info = info._from_json(stored.info)
        elif each._info is None:
            each._info = info._from_json({"size": len(each._data)})
        data = stored.read() if stored else each._data
        return self._rain.client.DataInstance(data=data, data_object=each, data_type=each.spec.data_type)

    def _wait(self, plain: Callable[..., Any], client: Any, tasks: Any, objects: Any) -> Any:
        self._release()
        self._held.release(each.id for each in (*tasks, *objects))
        mine = [task for task in tasks if task.id not in self._hits and task.id not in self._failed]
        sent = [
            each
            for each in objects
            if each.state is None or not (self._is_here(each) or each.id in self._failed)
        ]
        if mine or sent:
            plain(client, mine, sent)
        self._check(client, [*mine, *(self._watched[each.id] for each in sent if each.id in self._watched)])
        self._raise(*(each.id for each in (*tasks, *objects)))

    def _wait_all(self, plain: Callable[..., Any], client: Any, session: Any) -> Any:
        self._release()
        tasks = session._submitted_tasks
        self._held.release(task.id for task in tasks)
        sent = [task for task in tasks if task.id not in self._hits and task.id not in self._failed]
        if sent:
            plain(client, session)
        self._check(client, sent)
        self._raise(*(task.id for task in tasks))

    def _check(self, client: Any, tasks: list[Any]) -> None:
        """Find out which of these tasks, which have ended, have failed softly."""
        unknown = list({task.id: task for task in tasks if task.id in self._soft}.values())
        for start in range(0, len(unknown), TASKS_PER_QUESTION):
            batch = unknown[start : start + TASKS_PER_QUESTION]
            self._get_state(self._plain["_get_state"], client, batch, [])

    def _raise(self, *names: Any) -> None:
        """Raise the failure of the first of these that has failed, in Rain's words."""
        if not self._failed:
            return
        for name in names:
            if name in self._failed:
                task, text = self._failed[name]
                self._rest.note(task)
                where = f"Task created at:\n{task._stack}"
                message = f"Task {task} failed\nMessage: {text}\nTask failed in executor\n{where}"
                raise self._rain.TaskException(message)

    def _unkeep(self, plain: Callable[..., Any], client: Any, objects: Iterable[Any]) -> Any:
        """Let Rain delete objects: at once, or by the helper when their content is kept."""
        others = []
        for each in objects:
            if each.id in self._unsent or each.id in self._failed or each.id in self._held:
                continue  # Rain does not have it
            if each.id in self._watched and self._helper.usable and not self._lost:
                self._helper.unkept.append(tuple(each.id))
            elif threading.get_ident() == self._thread:  # a call of another thread would end the process
                others.append(each)
        return plain(client, others) if others else None

    def _get_state(self, plain: Callable[..., Any], client: Any, tasks: Any, objects: Any) -> Any:
        self._held.release(each.id for each in (*tasks, *objects))
        for task in tasks:
            if found := self._hits.get(task.id):
                task._info = self._rain.client.TaskInfo._from_json(found["info"])
        for each in objects:
            if stored := self._stored.get(each.id):
                each._info = self._rain.client.ObjectInfo._from_json(stored.info)
        mine = [task for task in tasks if task.id not in self._hits and task.id not in self._failed]
        sent = [each for each in objects if not self._is_here(each) and each.id not in self._failed]
        if mine or sent:
            plain(client, mine, sent)
        for task in mine:
            if task._info and (ours := task._info.user.pop(NAME, None)) and "failed" in ours:
                self._fail(task, ours["failed"])
            if task._info and task._info.duration is not None:
                self._soft.discard(task.id)

    def _close_session(self, plain: Callable[..., Any], client: Any, session: Any) -> Any:
        self._rest.before_close(session)
        if not self._lost:
            with FailOpen("keeping the last results"):
                try:
                    self._helper.close(session.session_id)
                except HelperLost as error:
                    self._lose(error)
        result = plain(client, session)
        known: dict[Any, Any]
        for known in (self._hits, self._stored, self._unsent, self._watched, self._failed):
            for name in [name for name in known if name.session_id == session.session_id]:
                del known[name]
        self._held.forget(session)
        self._soft = {name for name in self._soft if name.session_id != session.session_id}
        return result

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
