"""Faults that a test plants in front of, inside and behind single operations of the lab's API.

A fault names an operation (``create-instance``; ``*`` and ``create-*`` match as file names do), how often it
strikes (``times``; None: always), how many requests it lets pass first (``skip``), and which ones it is for
(``match``).  Where several are planted the first ones planted strike first.
"""

from __future__ import annotations

import fnmatch
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal, TypedDict, Unpack

from tests.lab.log import Request

HTML = b"<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>\n"

Stage = Literal["before", "committed", "ending", "answered"]
Effect = Literal["done", "none", "error"]


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


CUT = Reply(0, b"")  # no answer: the connection is closed

# Gets the answer so far, returns what replaces it
Action = Callable[[Request, Reply | None], Reply | None]
Match = Callable[[Request], object]


class Rule(TypedDict, total=False):
    """Which requests a fault strikes (``committed``: after they were done), and how an operation ends."""

    times: int | None
    skip: int
    match: Match
    committed: bool
    reason: str | None
    message: str | None
    effect: Effect
    effect_after_s: float


@dataclass(slots=True, eq=False)
class Fault:
    """One that was planted; ``struck``: how often it did."""

    operation: str
    stage: Stage
    action: Action
    rule: Rule
    state: str = "success"  # in which the operation ends
    seen: int = 0
    struck: int = 0
    released: threading.Event = field(default_factory=threading.Event)

    def release(self) -> None:
        """End a hang or a barrier, and strike no more."""
        self.rule["times"] = 0
        self.released.set()

    def takes(self, request: Request) -> bool:
        """Count the request; whether it is struck."""
        if not fnmatch.fnmatchcase(request.operation, self.operation):
            return False
        if "match" in self.rule and not self.rule["match"](request):
            return False
        self.seen += 1
        times = self.rule.get("times", 1)
        strikes = self.seen > self.rule.get("skip", 0) and (times is None or self.struck < times)
        self.struck += strikes
        return strikes


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

    def clear(self) -> None:
        """Release and remove all."""
        with self._lock:
            for each in self._planted:
                each.release()
            self._planted.clear()

    def status(
        self, operation: str, code: int, said: str = "", *, retry_after: str | None = "", **rule: Unpack[Rule]
    ) -> Fault:
        headers = (("Retry-After", retry_after),) if retry_after else ()
        answer = reply(code, {"message": said or f"Injected {code}"}, *headers)
        return self.answer(operation, answer, **rule)

    def html(self, operation: str, status: int = 502, **rule: Unpack[Rule]) -> Fault:
        """Answer with a proxy's page; with status 200 too."""
        return self.answer(operation, Reply(status, HTML, (), "text/html"), **rule)

    def answer(self, operation: str, answer: Reply, **rule: Unpack[Rule]) -> Fault:
        return self._plant(operation, lambda _request, _reply: answer, rule)

    def truncate(self, operation: str, **rule: Unpack[Rule]) -> Fault:
        """Do it, and send half of the JSON as a whole answer."""
        return self._plant(operation, lambda _, whole: whole and _half(whole), {"committed": True, **rule})

    def cut(self, operation: str, **rule: Unpack[Rule]) -> Fault:
        """Close the connection without an answer; after it was done unless the rule says otherwise."""
        return self._plant(operation, lambda _request, _reply: CUT, {"committed": True, **rule})

    def hang(
        self, operation: str, seconds: float | None = None, count: int = 0, **rule: Unpack[Rule]
    ) -> Fault:
        """Answer only after ``seconds``, after ``release()``, or when it has struck ``count`` times."""

        def wait(_request: Request, answer: Reply | None) -> Reply | None:
            if 0 < count <= fault.struck:
                fault.released.set()
            fault.released.wait(seconds)
            return answer

        fault = self._plant(operation, wait, rule)
        return fault

    def barrier(self, operation: str, count: int, *, timeout_s: float = 10.0) -> Fault:
        """Hold the first ``count`` requests until all of them are in flight (or ``timeout_s`` is over)."""
        return self.hang(operation, timeout_s, count, times=count)

    def call(
        self, operation: str, callback: Match, *, stage: Stage = "before", **rule: Unpack[Rule]
    ) -> Fault:
        """Call the test before the request is acted on, after that, or after it was answered."""

        def act(request: Request, answer: Reply | None) -> Reply | None:
            callback(request)
            return answer

        return self._plant(operation, act, rule, stage)

    def outcome(self, operation: str, state: str, **ending: Unpack[Rule]) -> Fault:
        """Let the pending operation end in ``state``, or never where that is "pending".

        ``effect``: "done"; "none", as if it had not been asked for (for a "failure" where nothing is said);
        "error": an instance is left in it.  ``effect_after_s``: it comes that much later than the end.
        """
        usual: Rule = {"effect": "none" if state == "failure" else "done"}
        fault = self._plant(operation, lambda _request, answer: answer, {**usual, **ending}, "ending")
        fault.state = state
        return fault

    def _plant(self, operation: str, action: Action, rule: Rule, stage: Stage | None = None) -> Fault:
        usual: Stage = "committed" if rule.get("committed") else "before"
        fault = Fault(operation, stage or usual, action, rule)
        with self._lock:
            self._planted.append(fault)
        return fault

    def strike(self, stage: Stage, request: Request, answer: Reply | None = None) -> Reply | None:
        """Return the answer after all faults of a stage, or of those up to a cut."""
        for fault in self._struck(stage, request):
            if (answer := fault.action(request, answer)) is CUT:
                break
        return answer

    def ending(self, request: Request) -> Fault:
        """How the operation that a request started ends."""
        return next(self._struck("ending", request), Fault("", "ending", lambda *_: None, {}))

    def _struck(self, stage: Stage, request: Request) -> Iterator[Fault]:
        for fault in list(self._planted):
            with self._lock:
                strikes = fault.stage == stage and fault.takes(request)
            if strikes:
                yield fault


def _half(whole: Reply) -> Reply:
    return replace(whole, body=whole.body[: len(whole.body) // 2])
