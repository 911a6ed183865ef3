"""Faults that a test plants in front of, inside and behind single operations of the lab's API.

A fault names an operation (``create-instance``; ``*`` and ``create-*`` match as file names do), how often it
strikes (``times``; None: always), how many requests it lets pass first (``skip``), and which ones it is for
(``match``).  Where several are planted the first ones planted strike first.
"""

from __future__ import annotations

import fnmatch
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypedDict, Unpack

from tests.lab.log import Request

HTML = b"<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>\n"

Stage = Literal["before", "committed", "answered"]
Effect = Literal["done", "none", "error"]


class CutError(Exception):
    """The connection is to be closed without an answer."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer as it goes out."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    content_type: str = "application/json; charset=utf-8"


def reply(status: int, value: object, *headers: tuple[str, str]) -> Reply:
    """An answer in JSON."""
    return Reply(status, json.dumps(value).encode(), headers)


Action = Callable[[Request, Reply | None], Reply | None]
"""Gets the answer so far, returns what replaces it; CutError closes the connection."""


class Rule(TypedDict, total=False):
    """Which requests a fault strikes."""

    times: int | None
    skip: int
    match: Callable[[Request], bool]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a pending operation ends, and what was really done meanwhile.

    ``effect``: "done"; "none", as if it had not been asked for; "error": an instance is left in it.
    """

    state: str = "success"
    reason: str | None = None
    message: str | None = None
    effect: Effect = "done"
    effect_after_s: float = 0.0  # later than the end of the operation


def anything(request: Request) -> bool:
    """Match every request."""
    return True


@dataclass(slots=True, eq=False)
class Fault:
    """One that was planted."""

    operation: str
    stage: Stage | None = None
    action: Action | None = None
    outcome: Outcome | None = None
    times: int | None = 1
    skip: int = 0
    match: Callable[[Request], bool] = anything
    struck: int = 0
    released: threading.Event = field(default_factory=threading.Event)

    def release(self) -> None:
        """End a hang or a barrier, and strike no more."""
        self.times = 0
        self.released.set()


@dataclass(slots=True)
class Faults:
    """All that are planted, and the lags of a slow cloud (plain settings, in seconds)."""

    list_lag_s: dict[str, float] = field(default_factory=dict)  # by list operation: what is younger is absent
    late_address_s: float = 0.0  # after an instance's create
    group_in_use_s: float = 0.0  # how long a delete is refused after the group's last instance went
    group_in_use_status: int = 409  # the real one is not known: 409 or 412
    clock_offset_s: float = 0.0  # of the server's clock: its Date header and what it takes for expired
    _planted: list[Fault] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    # ---- planting

    def add(self, fault: Fault, rule: Rule) -> Fault:
        """Plant one made by hand."""
        fault.times = rule.get("times", 1)
        fault.skip = rule.get("skip", 0)
        fault.match = rule.get("match", anything)
        self._planted.append(fault)
        return fault

    def clear(self) -> None:
        """Release and remove all."""
        with self._lock:
            for each in self._planted:
                each.release()
            self._planted.clear()

    def status(
        self,
        operation: str,
        status: int,
        message: str = "",
        *,
        retry_after: str | None = None,
        committed: bool = False,
        **rule: Unpack[Rule],
    ) -> Fault:
        """Answer with an error; ``committed``: although it was done."""
        headers = () if retry_after is None else (("Retry-After", retry_after),)
        answer = reply(status, {"message": message or f"Injected {status}"}, *headers)
        return self.answer(operation, answer, committed=committed, **rule)

    def html(
        self, operation: str, status: int = 502, *, committed: bool = False, **rule: Unpack[Rule]
    ) -> Fault:
        """Answer with a proxy's page; with status 200 too."""
        answer = Reply(status, HTML, content_type="text/html")
        return self.answer(operation, answer, committed=committed, **rule)

    def answer(
        self, operation: str, answer: Reply, *, committed: bool = False, **rule: Unpack[Rule]
    ) -> Fault:
        """Answer with this instead of doing it, or although it was done."""
        return self._plant(operation, lambda _request, _reply: answer, committed=committed, **rule)

    def truncate(self, operation: str, **rule: Unpack[Rule]) -> Fault:
        """Do it, and send half of the JSON as a whole answer."""

        def half(_request: Request, answer: Reply | None) -> Reply:
            assert answer is not None
            return Reply(answer.status, answer.body[: len(answer.body) // 2], answer.headers)

        return self._plant(operation, half, committed=True, **rule)

    def cut(self, operation: str, *, committed: bool = True, **rule: Unpack[Rule]) -> Fault:
        """Close the connection without an answer, after it was done or before."""

        def close(_request: Request, _reply: Reply | None) -> Reply:
            raise CutError

        return self._plant(operation, close, committed=committed, **rule)

    def hang(
        self, operation: str, seconds: float | None = None, *, committed: bool = False, **rule: Unpack[Rule]
    ) -> Fault:
        """Answer only after ``seconds``, or after ``release()``."""
        fault = self._plant(operation, lambda _request, answer: answer, committed=committed, **rule)

        def wait(_request: Request, answer: Reply | None) -> Reply | None:
            fault.released.wait(seconds)
            return answer

        fault.action = wait
        return fault

    def barrier(self, operation: str, count: int, *, timeout_s: float = 10.0) -> Fault:
        """Hold the first ``count`` requests until all of them are in flight (or ``timeout_s`` is over)."""
        fault = self._plant(operation, lambda _request, answer: answer, committed=False, times=count)

        def wait(_request: Request, answer: Reply | None) -> Reply | None:
            if fault.struck >= count:
                fault.released.set()
            fault.released.wait(timeout_s)
            return answer

        fault.action = wait
        return fault

    def call(
        self,
        operation: str,
        callback: Callable[[Request], object],
        *,
        stage: Stage = "before",
        **rule: Unpack[Rule],
    ) -> Fault:
        """Call the test before the request is acted on, after that, or after it was answered."""

        def act(request: Request, answer: Reply | None) -> Reply | None:
            callback(request)
            return answer

        return self.add(Fault(operation, stage, act), rule)

    def outcome(
        self,
        operation: str,
        state: str,
        *,
        reason: str | None = None,
        message: str | None = None,
        effect: Effect | None = None,
        effect_after_s: float = 0.0,
        **rule: Unpack[Rule],
    ) -> Fault:
        """Let the pending operation end in ``state``, or never where that is "pending".

        Unless ``effect`` says otherwise nothing is done by one that fails, and all by any other.
        """
        happens = effect or ("none" if state == "failure" else "done")
        ends = Outcome(state, reason, message, happens, effect_after_s)
        return self.add(Fault(operation, outcome=ends), rule)

    def _plant(self, operation: str, action: Action, *, committed: bool, **rule: Unpack[Rule]) -> Fault:
        return self.add(Fault(operation, "committed" if committed else "before", action), rule)

    # ---- striking

    def strike(self, stage: Stage, request: Request, answer: Reply | None = None) -> Reply | None:
        """Return the answer after all faults of a stage; raises CutError."""
        for fault in list(self._planted):
            if fault.stage == stage and self._takes(fault, request):
                assert fault.action is not None
                answer = fault.action(request, answer)
        return answer

    def ending(self, request: Request) -> Outcome:
        """How the operation that a request started ends."""
        for fault in list(self._planted):
            if fault.outcome is not None and self._takes(fault, request):
                return fault.outcome
        return Outcome()

    def _takes(self, fault: Fault, request: Request) -> bool:
        if not fnmatch.fnmatchcase(request.operation, fault.operation) or not fault.match(request):
            return False
        with self._lock:
            if fault.skip > 0:
                fault.skip -= 1
                return False
            if fault.times is not None and fault.struck >= fault.times:
                return False
            fault.struck += 1
            return True
