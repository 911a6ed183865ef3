"""The end of a process at a chosen call to the API, seen from the client: SIGKILL, nothing is tidied up."""

from __future__ import annotations

import enum
import http.client
import os
import select
import signal
import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NoReturn
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter

from tests.lab.spec import find

ANSWER_S = 20.0
"""For the server to have done what it was asked."""


class When(enum.StrEnum):
    """Where in a call the process ends."""

    BEFORE = "before"
    """Nothing was sent."""
    SENT = "sent"
    """The server has done it and said so; nobody reads that."""
    ANSWERED = "answered"
    """The answer has been read whole; nothing is recorded yet."""
    LATE = "late"
    """It is on its way; the server will do it when the next command is at work already."""


AT_REST = (When.BEFORE, When.SENT, When.ANSWERED)
"""Moments after which nothing more happens by itself."""


@dataclass(frozen=True, slots=True)
class Kill:
    """A crash point: the ``nth`` call (from 1) of an operation."""

    operation: str
    nth: int
    when: When


def operation_of(request: requests.PreparedRequest) -> str:
    """Its name in the API's own description."""
    path = urlsplit(request.url or "").path
    found = find(request.method or "", path.partition("/v2")[2])
    return found[0].name if found else f"{request.method} {path}"


@dataclass
class Calls:
    """Counts the calls of one process, from all its threads, and ends it at ``kill``."""

    kill: Kill | None = None
    counted: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fatal(self, operation: str) -> bool:
        """Whether this call, the next of its operation, is the one."""
        with self.lock:
            self.counted[operation] += 1
            nth = self.counted[operation]
        return self.kill is not None and (operation, nth) == (self.kill.operation, self.kill.nth)

    def adapter(self) -> HTTPAdapter:
        """For one of the process's sessions."""
        return _Adapter(self)


class _Adapter(HTTPAdapter):
    def __init__(self, calls: Calls) -> None:
        super().__init__()
        self._calls = calls

    def send(self, request: requests.PreparedRequest, *args: Any, **named: Any) -> requests.Response:
        """As every HTTPAdapter, but for the one call."""
        kill = self._calls.kill
        fatal = self._calls.fatal(operation_of(request))
        if fatal and kill:
            if kill.when in {When.SENT, When.LATE}:
                _sent(request, done=kill.when is When.SENT)
            if kill.when is When.ANSWERED:
                assert super().send(request, *args, **named).content is not None
            _die()
        return super().send(request, *args, **named)


def _sent(request: requests.PreparedRequest, *, done: bool) -> None:
    """Send it; when ``done``, wait until an answer lies in the socket."""
    url = urlsplit(request.url or "")
    body = request.body or b""
    assert isinstance(body, bytes)
    connection = http.client.HTTPConnection(str(url.hostname), url.port, timeout=ANSWER_S)
    connection.request(request.method or "", request.path_url, body, dict(request.headers))
    if done:
        assert select.select([connection.sock], [], [], ANSWER_S)[0], "the server never answered"


def _die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    while True:  # until the signal is there
        signal.pause()
