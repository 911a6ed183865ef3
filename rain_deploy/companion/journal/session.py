"""The names of Rain's client that are replaced, so that finished tasks are not run again.

When tasks are submitted, each gets a key.  A task whose result is kept in the journal is not sent to Rain:
its outputs are served from the journal, and are sent as constants only to tasks that need them.  The helper
watches the others.  A constant is never fetched from Rain's server, which would panic.

A fault in this code does not end the script: it goes on as on bare Rain, with one warning.
"""

import atexit
import contextlib
import functools
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from .. import FailOpen, points
from ..wire import NAME
from .alone import Held
from .decide import Hits, Stored, decided
from .helper import Helper
from .keyed import Keyed, keyed
from .keys import Keys
from .protection import Protection
from .rest import TASKS_PER_QUESTION, Rest
from .sending import batches, not_run, prepared, watched
from .state import State
from .wishes import Wishes, Wishing, usable

NAMES = ("_submit", "_fetch", "_wait", "_wait_all", "_unkeep", "_get_state", "_close_session")
"""Methods of Rain's client that are replaced by ours."""
ASKED_AFTER, ASKED_AFTER_BYTES = 16, 4_000_000
"""A script that fetches so much is served the other results from the journal, as far as they are kept."""
Plain = Callable[..., Any]


def hook_client(client: Any) -> None:
    """Hook ``rain.client``, which was just imported."""
    run_dir = Path(os.environ["RAIN_DEPLOY_RUN_DIR"])
    helper = Helper(run_dir, Path(os.environ["RAIN_DEPLOY_COMPANION"]).parent)
    keys = Keys(os.environ.get("RAIN_DEPLOY_SWEEP") or run_dir.name, str(run_dir / "files"))
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
        self._state = State()
        self._plain: dict[str, Plain] = {}
        self._held = Held(self._start, self._wait_for_all)
        self._rest = Rest(self._state.failed)
        self._protection = Protection(self._state)
        self._sent = False  # something of the submit that is going on
        self._fetched = self._fetched_bytes = 0  # from Rain, since the helper was asked for results

    def install(self) -> None:
        """Start the helper, and replace the names of Rain's client."""
        self._protection.ask(self._helper.start)
        client = self._rain.client.Client
        hooks = {name: self._hooked(getattr(client, name), getattr(self, name)) for name in NAMES}
        self._plain = {name: getattr(client, name) for name in NAMES}
        for name, hook in hooks.items():
            setattr(client, name, hook)

    def end(self) -> None:
        """Wait until the helper has kept what is finished."""
        with FailOpen("waiting for the other tasks"):
            self._rest.before_end()
        with FailOpen("ending the journal's helper"):
            self._helper.end()

    def _hooked(self, plain: Plain, ours: Plain) -> Plain:
        """Return what calls ours, and after a fault of ours does what Rain does."""

        def of_rain(*args: Any) -> Any:
            with self._protection.rain():
                return plain(*args)

        @functools.wraps(plain)
        def hook(*args: Any) -> Any:
            submitting = ours == self._submit
            self._sent = self._sent and not submitting
            for last in (submitting, True):  # after a fault it is tried again, without the helper
                try:
                    return ours(of_rain, *args)
                except Exception as fault:
                    if isinstance(fault, self._rain.RainException) or self._protection.is_rains(fault):
                        raise
                    self._protection.lose(fault)
                    only_ours = ours == self._fetch and self._state.is_here(args[1])
                    if last and (only_ours or (submitting and self._sent)):
                        raise
                if last:
                    break
            if ours == self._unkeep:
                return None  # it costs memory; in another thread than Rain's, its call would end the process
            return self._submit_plainly(plain, *args) if submitting else plain(*args)

        return hook

    def _submit(self, plain: Plain, client: Any, tasks: list[Any], objects: list[Any]) -> Any:
        if not tasks and not objects:
            return plain(client, tasks, objects)
        session = (*tasks, *objects)[0]._session
        self._held.release(each.id for task in tasks for each in task.inputs)
        self._wait_for_needed(client, tasks)
        known, hits, withheld, suspects = self._decided(tasks)
        run = [task for task in tasks if task.id not in hits and task.id not in withheld]
        wishes = self._wishing.wishes(session, run)
        self._state.take(tasks, hits, withheld)
        self._state.known.keys.update(known.keys)
        self._state.known.parts.update(known.parts)
        made = {output.id for task in tasks for output in task.outputs}
        new = [each for each in objects if each.id not in made]
        self._state.unsent |= {each.id: each for each in new if each._data is not None}
        with FailOpen("holding tasks back"):
            run = self._held.hold(run, known, wishes, suspects)
        run = self._send(client, run, [each for each in new if each._data is None], wishes)
        with FailOpen("noting submitted tasks"):
            points.note_tasks(session, tasks, known.keys, known.doubts, self._state.hits)
        self._protection.ask(lambda: self._watch(run, wishes))
        self._protection.ask(lambda: self._helper.serve(not_run(tasks, self._state, withheld)))
        return None

    def _submit_plainly(self, plain: Plain, client: Any, tasks: list[Any], objects: list[Any]) -> Any:
        """Submit as Rain does, with what the tasks need of earlier submits and Rain does not have."""
        lacking, state = dict[Any, Any](), self._state
        with FailOpen("sending kept results"):
            for task in tasks:
                state.hits.pop(task.id, None)
                for output in task.outputs:
                    if state.stored.pop(output.id, None):
                        output._data = None  # it may have been loaded to be sent
            mine = {each.id for each in objects}
            needed = [each for task in tasks for each in task.inputs if each.id not in mine]
            lacking = {each.id: each for each in needed if each.id in state.unsent}
            for name, each in lacking.items():
                if stored := state.stored.get(name):
                    each._data = stored.read()
            state.unsent = {name: each for name, each in state.unsent.items() if name not in mine}
        plain(client, tasks, [*lacking.values(), *objects])
        with FailOpen("noting submitted tasks"):
            state.were_sent(lacking)
            points.note_tasks((*tasks, *objects)[0]._session, tasks, {}, {}, ())

    def _decided(self, tasks: list[Any]) -> tuple[Keyed, Hits, dict[Any, str], list[str]]:
        """Return the keys of tasks, what is kept of them, why some are withheld, and keys of suspects."""
        known, answer = Keyed() if self._protection.lost else keyed(self._keys, tasks), dict[str, Any]()
        if known.keys:
            keys = list(known.keys.values())
            answer = self._protection.ask(lambda: self._helper.find(keys)) or {}
            known = known if answer else Keyed()
        hits, withheld = decided(tasks, known.keys, answer, self._state.failed)
        return known, hits, withheld, answer.get("suspects", [])

    def _wait_for_needed(self, client: Any, tasks: list[Any]) -> None:
        """Wait for the tasks of earlier submits that might fail softly, where data is needed of them.

        Only Python tasks understand the mark of a failure; others would take it for data.
        """
        soft = self._wishing.softly(tasks)
        known = self._state.watched
        needed = (known.get(each.id) for task in tasks if task.id not in soft for each in task.inputs)
        if waited := [made for made in needed if made and made.id in self._state.soft]:
            with self._protection.rain():
                self._plain["_wait"](client, waited, [])
            self._check(client, waited)

    def _start(self, task: Any, _known: Keyed, wishes: dict[Any, Wishes]) -> None:
        """Start a task of an earlier submit."""
        run = self._send(task._session.client, [task], [], wishes)
        self._protection.ask(lambda: self._watch(run, wishes))

    def _wait_for_all(self) -> None:
        """Wait for all tasks that were sent."""
        sessions = {task.id.session_id: task._session for task in self._state.watched.values()}
        for session in sessions.values():
            with self._protection.rain():
                self._plain["_wait_all"](session.client, session)

    def _send(
        self, client: Any, tasks: list[Any], objects: list[Any], wishes: dict[Any, Wishes]
    ) -> list[Any]:
        """Send tasks, after the constants that they need; return them, with those that run again."""
        tasks, needed = self._state.needed(tasks)
        kept = {each.id for task in tasks if task.id in self._state.known.keys for each in task.outputs}
        objects = [*objects, *(each for task in tasks for each in task.outputs)]
        *ahead, last = batches(needed.values())
        request = None
        if last or tasks or objects:
            request = prepared(client, tasks, [*last, *objects], wishes=wishes, kept=kept)
        for name in needed:
            self._state.unsent.pop(name, None)
        for batch in ahead:
            with self._protection.rain():
                self._sent = True
                prepared(client, [], batch, wishes={}, kept=()).send().wait()
        with self._protection.rain():
            self._sent = True
            if request:
                request.send().wait()
        with FailOpen("noting what was sent"):
            self._state.were_sent(needed)
            self._state.soft |= {task.id for task in tasks if task.id in wishes and wishes[task.id].soft}
        return tasks

    def _watch(self, tasks: list[Any], wishes: dict[Any, Wishes]) -> None:
        """Let the helper watch tasks that were sent.  Raises HelperLost."""
        self._state.watched |= {output.id: task for task in tasks for output in task.outputs}
        if tasks:
            lines = [watched(task, self._state.known, wishes.get(task.id)) for task in tasks]
            self._helper.watch(tasks[0].id.session_id, lines)

    def _fetch(self, plain: Plain, client: Any, each: Any) -> Any:
        self._release()
        if not each._keep or each.state is None:
            return plain(client, each)  # raises what Rain raises
        self._raise(each.id)
        self._held.release([each.id])
        state = self._state
        if stored := state.stored.get(each.id):
            try:
                return self._instance(each, stored.read(), stored.info)
            except OSError:
                if not state.revive(stored.task):
                    raise
                self._start(stored.task, self._state.known, {})
        if each._data is not None:
            return self._instance(each, each._data, {"size": len(each._data)})
        if copy := self._copy(each):
            with contextlib.suppress(OSError):  # Rain has it, too
                return self._instance(each, copy.read(), copy.info)
        found = plain(client, each)
        self._fetched += 1
        self._fetched_bytes += each._info.size or 0
        if (ours := each._info.user.pop(NAME, None)) and "failed" in ours:
            state.fail(state.watched[each.id], ours["failed"])
            self._raise(each.id)
        return found

    def _copy(self, each: Any) -> Stored | None:
        """Return what the journal has of an output, if the script fetches many: Rain is slower."""
        state = self._state
        if each.id in state.copies or each.id not in state.watched:
            return state.copies.get(each.id)
        if self._fetched >= ASKED_AFTER or self._fetched_bytes >= ASKED_AFTER_BYTES:
            self._fetched = self._fetched_bytes = 0
            tasks = state.uncopied(each)
            answer = self._protection.ask(lambda: self._helper.kept(list(tasks))) or {}
            state.copy((tasks[key], found) for key, found in answer.get("found", {}).items())
        return state.copies.get(each.id)

    def _instance(self, each: Any, data: bytes, info: dict[str, Any]) -> Any:
        """Return the content of an object as Rain would."""
        each._info = each._info or self._rain.client.ObjectInfo._from_json(info)
        return self._rain.client.DataInstance(data=data, data_object=each, data_type=each.spec.data_type)

    def _wait(self, plain: Plain, client: Any, tasks: Any, objects: Any) -> Any:
        self._release()
        self._held.release(each.id for each in (*tasks, *objects))
        state, mine = self._state, self._state.sent(tasks)
        sent = [
            each
            for each in objects
            if each.state is None or not (state.is_here(each) or each.id in state.failed)
        ]
        if mine or sent:
            plain(client, mine, sent)
        self._check(client, [*mine, *(state.watched[each.id] for each in sent if each.id in state.watched)])
        self._raise(*(each.id for each in (*tasks, *objects)))

    def _wait_all(self, plain: Plain, client: Any, session: Any) -> Any:
        self._release()
        tasks = session._submitted_tasks
        self._held.release(task.id for task in tasks)
        if sent := self._state.sent(tasks):
            plain(client, session)
        self._check(client, sent)
        self._raise(*(task.id for task in tasks))

    def _check(self, client: Any, tasks: list[Any]) -> None:
        """Find out which of these tasks, which have ended, have failed softly."""
        unknown = list({task.id: task for task in tasks if task.id in self._state.soft}.values())
        for start in range(0, len(unknown), TASKS_PER_QUESTION):
            batch = unknown[start : start + TASKS_PER_QUESTION]
            client._get_state(batch, [])

    def _raise(self, *names: Any) -> None:
        """Raise the failure of the first of these that has failed, in Rain's words."""
        failed = self._state.failed
        for name in names if failed else ():
            if name in failed:
                task, text = failed[name]
                self._rest.note(task)
                where = f"Task created at:\n{task._stack}"
                message = f"Task {task} failed\nMessage: {text}\nTask failed in executor\n{where}"
                raise self._rain.TaskException(message)

    def _unkeep(self, plain: Plain, client: Any, objects: Iterable[Any]) -> Any:
        """Let Rain delete objects: at once, or by the helper when their content is kept."""
        others, state = [], self._state
        for each in objects:
            if each.id in state.unsent or each.id in state.failed or each.id in self._held:
                continue  # Rain does not have it
            if each.id in state.watched and self._helper.usable and not self._protection.lost:
                self._helper.unkept.append(tuple(each.id))
            elif threading.get_ident() == self._thread:  # a call of another thread would end the process
                others.append(each)
        return plain(client, others) if others else None

    def _get_state(self, plain: Plain, client: Any, tasks: Any, objects: Any) -> Any:
        self._held.release(each.id for each in (*tasks, *objects))
        state, mine = self._state, self._state.sent(tasks)
        for task in tasks:
            if found := state.hits.get(task.id):
                task._info = self._rain.client.TaskInfo._from_json(found["info"])
        for each in objects:
            if stored := state.stored.get(each.id):
                each._info = self._rain.client.ObjectInfo._from_json(stored.info)
        sent = [each for each in objects if not state.is_here(each) and each.id not in state.failed]
        if mine or sent:
            plain(client, mine, sent)
        for task in mine:
            if task._info and (ours := task._info.user.pop(NAME, None)) and "failed" in ours:
                state.fail(task, ours["failed"])
            if task._info and task._info.duration is not None:
                state.soft.discard(task.id)

    def _close_session(self, plain: Plain, client: Any, session: Any) -> Any:
        self._rest.before_close(session)
        self._protection.ask(lambda: self._helper.close(session.session_id))
        result = plain(client, session)
        with FailOpen("forgetting a session"):
            self._held.forget(session)
            self._state.forget(session.session_id)
        return result

    def _release(self) -> None:
        if self._helper.unkept:
            self._protection.ask(self._helper.release)
