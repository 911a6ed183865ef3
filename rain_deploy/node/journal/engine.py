"""The helper's own connection to Rain's server: states of tasks, content of outputs.

Rain 0.4.0's server does not check which client a session belongs to.  It panics if a session is closed while
another client waits for one of its tasks, or fetches an output that is not finished; and if anybody fetches
an object that a client uploaded.  So states are asked for, and only outputs of finished tasks are fetched.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..files import Json

TASKS_PER_QUESTION = 500
FIRST_BYTES = 256 << 10  # of the first request for an output; most outputs are smaller
CHUNK_BYTES = 8 << 20  # of further ones; the server refuses more than 32 MB
AT_ONCE = 64  # requests for outputs that are sent before the first answer is awaited
LARGEST_BYTES = 1 << 30
"""An output that is larger is not fetched, and so not kept."""


class EngineLost(Exception):  # noqa: N818 - a fact about Rain's server
    """The connection to Rain's server is gone."""


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
    name: str = ""
    task_type: str = ""
    outputs: tuple[WatchedOutput, ...] = ()

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

    ``contents`` are those of the outputs, None for one that was not fetched.
    """

    task: Watched
    info: Json
    contents: tuple[Content | None, ...] = ()
    error: str = ""


class Engine:
    """Rain's server, as a second client sees it."""

    def __init__(self, address: str, port: str) -> None:
        import rain.client  # noqa: PLC0415 - takes 0.2 s
        from rain.common.ids import ID, id_from_capnp, id_to_capnp  # noqa: PLC0415

        self._id, self._read_id, self._write_id = ID, id_from_capnp, id_to_capnp
        self._service = rain.client.Client(address, int(port))._service  # noqa: SLF001 - its client waits

    def ended(self, tasks: Iterable[Watched]) -> Iterator[list[Ended]]:
        """Yield batches of the tasks that have ended.  Raises EngineLost."""
        by_session: dict[int, list[Watched]] = {}
        for task in tasks:
            by_session.setdefault(task.session, []).append(task)
        for mine in by_session.values():
            for start in range(0, len(mine), TASKS_PER_QUESTION):
                found = list(self._states(mine[start : start + TASKS_PER_QUESTION]))
                for first in range(0, len(found), AT_ONCE):
                    yield self._with_contents(found[first : first + AT_ONCE])
                if any(one.error for one in found):  # the session has failed, and Rain forgets its tasks
                    break

    def _states(self, tasks: Sequence[Watched]) -> Iterator[Ended]:
        request = self._service.getState_request()
        request.init("taskIds", len(tasks))
        for place, task in enumerate(tasks):
            self._write_id(self._id(*task.id), request.taskIds[place])
        answer = _answer(request.send())
        if answer.state.which() == "error":
            failed = self._read_id(answer.state.error.task)
            for task in tasks:
                if task.id == tuple(failed):
                    yield Ended(task, {}, error=answer.state.error.message)
            return
        for task, state in zip(tasks, answer.tasks, strict=True):
            info = json.loads(state.info)
            if info.get("duration") is not None:  # Rain leaves the state itself empty
                yield Ended(task, info)

    def _with_contents(self, batch: list[Ended]) -> list[Ended]:
        wanted = [
            (place, number, self._fetch(one.task.session, output.id, 0, FIRST_BYTES, info=True))
            for place, one in enumerate(batch)
            for number, output in enumerate(one.task.outputs)
            if not one.error and (one.task.key or output.kept)
        ]
        contents: list[list[Content | None]] = [[None] * len(one.task.outputs) for one in batch]
        for place, number, promise in wanted:
            task = batch[place].task
            contents[place][number] = self._content(promise, task.session, task.outputs[number].id)
        return [
            Ended(one.task, one.info, tuple(got), one.error) for one, got in zip(batch, contents, strict=True)
        ]

    def _content(self, first: Any, session: int, number: int) -> Content | None:
        answer = _answer(first)
        if answer.status.which() == "error" or answer.transportSize > LARGEST_BYTES:
            return None
        parts, size_bytes = [answer.data], len(answer.data)
        while size_bytes < answer.transportSize:
            more = _answer(self._fetch(session, number, size_bytes, CHUNK_BYTES, info=False))
            if more.status.which() == "error" or not more.data:
                return None
            parts.append(more.data)
            size_bytes += len(more.data)
        return Content(b"".join(parts), json.loads(answer.info))

    def _fetch(self, session: int, number: int, offset: int, size_bytes: int, *, info: bool) -> Any:
        request = self._service.fetch_request()
        self._write_id(self._id(session, number), request.id)
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
            self._write_id(self._id(session, number), request.objectIds[place])
        _answer(request.send())  # an error names an object that is gone already


def _answer(promise: Any) -> Any:
    """Return Rain's answer.  Raises EngineLost; any other fault of a request is an empty error."""
    try:
        return promise.wait()
    except Exception as error:  # of pycapnp, whose classes differ between versions
        raise EngineLost(str(error)) from error
