"""The helper's own connection to Rain's server: states of tasks, content of outputs.

Rain 0.4.0's server does not check which client a session belongs to.  It panics if a session is closed while
another client waits for one of its tasks, or fetches an output that is not finished; and if anybody fetches
an object that a client uploaded.  So states are asked for, and only outputs of finished tasks are fetched.
"""

import contextlib
import json
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

from ..files import Json

TASKS_PER_QUESTION = 500
LISTENS_S = 2.0  # for a server to take a connection; it is on this machine
OURS = "rain-deploy"  # the name of our entry in a task's info, as in the companion's wire.py
FIRST_BYTES = 256 << 10  # of the first request for an output; most outputs are smaller
CHUNK_BYTES = 8 << 20  # of further ones; the server refuses more than 32 MB
AT_ONCE = 64  # tasks whose outputs are asked for before the first answer is awaited
FEW = 2  # where outputs are large: the script may want something, and all that was asked for is taken first
LARGEST_BYTES = 1 << 30
"""An output that is larger is not fetched, and so not kept."""


class EngineLost(Exception):  # noqa: N818 - a fact about Rain's server
    """The connection to Rain's server is gone."""


class Refused(Exception):  # noqa: N818 - a fact about one request
    """Rain's server does not know the session, task or object of a request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedOutput:
    """An output of a task; ``kept`` says that the script asked Rain to keep it."""

    id: int
    kept: bool
    data_type: str
    content_type: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """A task that was submitted.  Without a key its result cannot be kept."""

    session: int
    task: int
    key: str = ""
    parts: dict[str, str] = field(default_factory=dict)  # of the key
    name: str = ""
    task_type: str = ""
    outputs: tuple[WatchedOutput, ...] = ()
    home: int | None = None  # one more output: what the task printed and wrote

    @property
    def id(self) -> tuple[int, int]:
        return self.session, self.task


@dataclass(frozen=True, slots=True)
class Content:
    """What an output holds, with Rain's description of it."""

    data: bytes
    info: Json


@dataclass(frozen=True, slots=True)
class Ended:
    """A task that has ended: finished if there is no ``error``.

    ``contents`` are those of the outputs, None for one that was not fetched.  ``ours`` is our entry in the
    task's info.
    """

    task: Watched
    info: Json
    ours: Json = field(default_factory=dict)
    contents: tuple[Content | None, ...] = ()
    home: Content | None = None
    error: str = ""
    hard: bool = False  # its session has failed with it, so Rain has forgotten all of its tasks

    @property
    def size_bytes(self) -> int:
        return sum(len(one.data) for one in (*self.contents, self.home) if one) + len(self.error)

    @property
    def warnings(self) -> list[str]:
        return [str(text) for text in self.ours.get("warnings", ())]


def listens(address: str, port: int) -> bool:
    """Return whether a server listens at a port."""
    with contextlib.suppress(OSError), socket.create_connection((address, port), LISTENS_S):
        return True
    return False


class Engine:
    """Rain's server, as a second client sees it."""

    def __init__(self, service: Any) -> None:
        """``service`` is that of a client of Rain."""
        self._service = service

    @classmethod
    def at(cls, address: str, port: int) -> Self:
        """Connect to a server.  Raises EngineLost."""
        import rain.client  # noqa: PLC0415 - takes 0.2 s

        try:
            return cls(rain.client.Client(address, port)._service)  # noqa: SLF001 - its client waits
        except Exception as error:  # as for ``_answer``
            raise EngineLost(str(error)) from error

    def ended(
        self, tasks: Sequence[Watched], tell: Callable[[], None], enough: Callable[[], bool]
    ) -> Iterator[Ended]:
        """Yield those tasks of a session that have ended, with their contents, until there are ``enough``.

        ``tell`` is called before each answer that may take long.  Only one content is in memory, and the
        first bytes of some more.  Take all that is yielded: if its first fetch from a governor is dropped,
        Rain 0.4.0 may never answer another.  Raises EngineLost, Refused.
        """
        for start in range(0, len(tasks), TASKS_PER_QUESTION):
            if enough():
                break
            found = list(self._states(tasks[start : start + TASKS_PER_QUESTION]))
            yield from self._with_contents(found, tell, enough)
            if any(one.hard for one in found):
                break

    def _states(self, tasks: Sequence[Watched]) -> Iterator[Ended]:
        request = self._service.getState_request()
        request.init("taskIds", len(tasks))
        for place, task in enumerate(tasks):
            _name(request.taskIds[place], *task.id)
        answer = self._sent(request)
        if answer.state.which() == "error":
            failed = answer.state.error.task
            for task in tasks:
                if task.id == (failed.sessionId, failed.id):
                    yield Ended(task, {}, error=answer.state.error.message, hard=True)
            return
        for task, state in zip(tasks, answer.tasks, strict=True):
            if '"duration"' not in (text := state.info):
                continue  # this is quicker than to read them all
            info = _object(text)
            if info and info.get("duration") is not None:  # Rain leaves the state itself empty
                ours = user.pop(OURS, {}) if isinstance(user := info.get("user"), dict) else {}
                ours = ours if isinstance(ours, dict) else {}  # a task may call something of its own so
                yield Ended(task, info, ours, error=str(ours.get("failed", "")))

    def _with_contents(
        self, found: Iterable[Ended], tell: Callable[[], None], enough: Callable[[], bool]
    ) -> Iterator[Ended]:
        """Yield tasks with their outputs.  Small ones are asked for before earlier ones are answered."""
        asked, ahead = deque[Callable[[], Ended]](), FEW
        for one in found:
            if enough():
                break
            asked.append(self._fetching(one, tell))
            while len(asked) >= ahead:
                got = asked.popleft()()
                ahead = min(2 * ahead, AT_ONCE) if got.size_bytes < FIRST_BYTES else FEW
                yield got
                del got  # its content takes memory
        while asked:
            yield asked.popleft()()

    def _fetching(self, one: Ended, tell: Callable[[], None]) -> Callable[[], Ended]:
        """Ask for the outputs of a task; the function that is returned waits for them."""
        task = one.task

        def ask(number: int) -> Any:
            return self._fetch(task.session, number, 0, FIRST_BYTES, info=True)

        wanted = [not one.error and bool(task.key or output.kept) for output in task.outputs]
        asked = [ask(each.id) if want else None for each, want in zip(task.outputs, wanted, strict=True)]
        home = ask(task.home) if task.home is not None and one.ours.get("home") else None

        def finish() -> Ended:
            contents = tuple(
                self._content(promise, task.session, output.id, tell) if promise else None
                for promise, output in zip(asked, task.outputs, strict=True)
            )
            kept = None
            if home and task.home is not None:
                kept = self._content(home, task.session, task.home, tell)
            return replace(one, contents=contents, home=kept)

        return finish

    def _content(self, first: Any, session: int, number: int, tell: Callable[[], None]) -> Content | None:
        try:
            tell()
            answer = _answer(first)
            if answer.status.which() == "error" or answer.transportSize > LARGEST_BYTES:
                return None
            parts = [answer.data]  # each look at it makes a copy
            size_bytes, whole_bytes = len(parts[0]), answer.transportSize
            while size_bytes < whole_bytes:
                tell()
                more = _answer(self._fetch(session, number, size_bytes, CHUNK_BYTES, info=False))
                if more.status.which() == "error" or not (part := more.data):
                    return None
                parts.append(part)
                size_bytes += len(part)
        except Refused:  # it is gone: the script does not need it any more, and was quicker
            return None
        info = _object(answer.info)
        return None if info is None else Content(b"".join(parts), info)

    def _fetch(self, session: int, number: int, offset: int, size_bytes: int, *, info: bool) -> Any:
        request = self._service.fetch_request()
        _name(request.id, session, number)
        request.offset, request.size, request.includeInfo = offset, size_bytes, info
        return request.send()

    def unkeep(self, objects: Iterable[tuple[int, int]]) -> None:
        """Let Rain delete objects.  Raises EngineLost."""
        objects = list(objects)
        if not objects:
            return
        request = self._service.unkeep_request()
        request.init("objectIds", len(objects))
        for place, (session, number) in enumerate(objects):
            _name(request.objectIds[place], session, number)
        try:
            self._sent(request)
        except Refused:  # because of an object that is gone already
            if len(objects) > 1:
                for one in objects:
                    self.unkeep([one])

    def _sent(self, request: Any) -> Any:
        return _answer(request.send())


def _object(text: str) -> Json | None:
    """Return a JSON object; None if the text is none: one such task must not stop the others."""
    with contextlib.suppress(ValueError):
        found = json.loads(text)
        return found if isinstance(found, dict) else None
    return None


def _name(place: Any, session: int, number: int) -> None:
    """Write an id into a request."""
    place.sessionId, place.id = session, number


def _answer(promise: Any) -> Any:
    """Return Rain's answer.  Raises EngineLost, Refused."""
    try:
        return promise.wait()
    except Exception as error:  # of pycapnp, whose classes differ between versions
        lost = isinstance(error, OSError) or getattr(error, "type", "") == "DISCONNECTED"
        raise (EngineLost if lost else Refused)(str(error).partition("\n")[0]) from error
