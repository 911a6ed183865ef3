"""Rain's server as the journal's helper sees it: states of tasks, contents of objects, what was asked."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

Id = tuple[int, int]


class Disconnected(Exception):  # noqa: N818 - as pycapnp's error says it
    type = "DISCONNECTED"


class Failed(Exception):  # noqa: N818
    type = "FAILED"


@dataclass
class Request:
    """A request that is being made; ``send`` does what it asks for."""

    rain: FakeRain
    kind: str
    id: Any = field(default_factory=SimpleNamespace)
    offset: int = 0
    size: int = 0
    includeInfo: bool = False  # noqa: N815 - Rain's name
    taskIds: Any = ()  # noqa: N815
    objectIds: Any = ()  # noqa: N815

    def init(self, name: str, count: int) -> None:
        setattr(self, name, [SimpleNamespace() for _ in range(count)])

    def send(self) -> Any:
        self.rain.requests[self.kind] += 1
        if self.kind == "fetch":
            content = self.rain.objects.get((self.id.sessionId, self.id.id), b"")
            self.rain.asked_bytes += len(content[self.offset : self.offset + self.size])
        is_lost = self.rain.requests.total() > self.rain.lost_after
        return SimpleNamespace(wait=lambda: self._answer(is_lost=is_lost))

    def _answer(self, *, is_lost: bool) -> Any:
        if is_lost:
            raise Disconnected("Peer disconnected.")
        return getattr(self.rain, self.kind)(self)


@dataclass
class FakeRain:
    """``tasks`` has the infos of tasks: what is not in it is unknown; an empty one has not finished."""

    tasks: dict[Id, dict[str, Any]] = field(default_factory=dict)
    objects: dict[Id, bytes] = field(default_factory=dict)
    unkept: list[Id] = field(default_factory=list)
    requests: Counter[str] = field(default_factory=Counter)
    closed: set[int] = field(default_factory=set)  # sessions
    object_info: dict[Id, str] = field(default_factory=dict)  # Rain's words of an object, if not "{}"
    asked_bytes: int = 0  # of objects
    lost_after: int = 1 << 30
    """After so many requests the connection is gone."""

    def finish(self, session: int, task: int, content: bytes = b"1", **info: Any) -> None:
        """Let a task finish whose one output has the number of the task and a thousand."""
        self.tasks[session, task] = {"start_time": "2026-11-30T00:00:00Z", "duration": 0.5, **info}
        self.objects[session, task + 1000] = content

    def getState_request(self) -> Request:  # noqa: N802
        return Request(self, "states")

    def fetch_request(self) -> Request:
        return Request(self, "fetch")

    def unkeep_request(self) -> Request:
        return Request(self, "unkeep")

    def states(self, request: Request) -> Any:
        names = [(one.sessionId, one.id) for one in request.taskIds]
        if closed := [session for session, _ in names if session in self.closed]:
            raise Failed(f"Session {closed[0]} not found")
        if unknown := [name for name in names if name not in self.tasks]:
            raise Failed(f"Task {unknown[0]} not found")
        tasks = [SimpleNamespace(info=json.dumps(self.tasks[name])) for name in names]
        return SimpleNamespace(state=SimpleNamespace(which=lambda: "ok"), tasks=tasks)

    def fetch(self, request: Request) -> Any:
        if (content := self.objects.get((request.id.sessionId, request.id.id))) is None:
            raise Failed("Object not found")
        data = content[request.offset : request.offset + request.size]
        status = SimpleNamespace(which=lambda: "ok")
        info = self.object_info.get((request.id.sessionId, request.id.id), "{}")
        return SimpleNamespace(status=status, data=data, transportSize=len(content), info=info)

    def unkeep(self, request: Request) -> None:
        names = [(one.sessionId, one.id) for one in request.objectIds]
        if any(name not in self.objects for name in names):
            raise Failed("Object not found")
        self.unkept += names
