"""Calls of Exoscale's API, with the deadlines and repetitions that the official client lacks.

Reads are repeated until they are answered or ``Patience.api_s`` is over.  A write is repeated only where
nothing can have been done: no connection was made, or the API asked to wait (429).  Otherwise it raises
Unclear, and the caller searches before it repeats.
"""

from __future__ import annotations

import collections
import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rain_deploy.errors import ApiError, CredentialsError, InputError
from rain_deploy.providers.exoscale import answers
from rain_deploy.providers.exoscale.account import Account
from rain_deploy.providers.exoscale.answers import Absent, NoAnswer, Operation, Refused, Unclear
from rain_deploy.providers.exoscale.patience import Patience
from rain_deploy.providers.exoscale.sdk import LIST_ZONES, Call, Connections, default_endpoint

if TYPE_CHECKING:
    from requests.adapters import HTTPAdapter

DEFAULT_ZONE = "ch-dk-2"
"""The zone of ``exo`` where neither environment nor account name one."""
AT_ONCE = 16
"""Requests of one command that wait for answers at the same time."""
_LONGEST_RAW = 4000
_LONGEST_ASKED_S = 30.0
"""One look at an operation does not wait longer, whatever the API asks for."""
Rows = tuple[dict[str, Any], ...]
_log = logging.getLogger("rain_deploy.providers.exoscale")


class Api:
    """The account's API.  Thread-safe: each thread has its own connections.

    ``adapter`` makes what requests sends with, a seam for tests.  ``notice`` gets one sentence when there is
    something to wait for, and what a caller has to report.
    """

    def __init__(
        self,
        account: Account,
        *,
        patience: Patience | None = None,
        adapter: Callable[[], HTTPAdapter] | None = None,
        notice: Callable[[str], None] = lambda _sentence: None,
    ) -> None:
        self.account = account
        self.patience = patience or Patience()
        self.zone = account.zone or DEFAULT_ZONE
        self.ahead_s: float | None = None
        """How far the clock here is ahead of the API's by its last answer; None before the first."""
        self.notice = notice
        self._connections = Connections(account, adapter)
        self._lock = threading.Lock()
        self._zones: dict[str, str] = {}
        self._quiet_until_s = 0.0
        self._born_s = self.now_s
        self._listing: collections.defaultdict[Any, threading.Lock] = collections.defaultdict(threading.Lock)
        self._listed: dict[Any, tuple[float, Rows]] = {}

    @property
    def now_s(self) -> float:
        """The time by the API's clock here, for ``since_s`` of ``rows``."""
        return self.patience.clock()

    def zones(self) -> dict[str, str]:
        """Return the endpoint of every zone.  Raises ApiError; InputError for a wrong endpoint."""
        if not self._zones:
            try:
                found = self._until_answered(Call(LIST_ZONES, None, {}), repeat_unclear=True)
            except (Absent, Refused, CredentialsError) as error:
                raise InputError(
                    f"{self._endpoint(LIST_ZONES, None)} does not answer as Exoscale's API v2: {error}",
                    next_step="give EXOSCALE_API_ENDPOINT with /v2 at its end, or unset it",
                ) from error
            self._zones = {
                zone["name"]: zone["api-endpoint"].rstrip("/")
                for zone in found.get("zones", ())
                if zone.keys() >= {"name", "api-endpoint"}
            }
        if not self._zones:
            raise ApiError("Exoscale's API names no zone", next_step="the same command, later")
        return self._zones

    def read(self, operation: str, *, zone: str | None = None, **arguments: Any) -> Any:
        """Return what a GET answers.  Raises Absent, Refused, CredentialsError; ApiError at the deadline."""
        call = Call(operation, zone, arguments)
        if call.verb != "get":
            raise ValueError(f"{operation} is not a read")
        return self._until_answered(call, repeat_unclear=True)

    def rows(
        self, operation: str, *, zone: str | None = None, since_s: float | None = None, **arguments: str
    ) -> Rows:
        """Return a list as it was at ``since_s`` or later (None: at any time in this process).

        One thread fetches it for all that want it at that time.
        """
        key = (operation, zone, *sorted(arguments.items()))
        with self._lock:
            listing = self._listing[key]
        with listing:
            began_s, rows = self._listed.get(key, (float("-inf"), ()))
            if began_s < (self._born_s if since_s is None else since_s):
                began_s = self.now_s
                rows = _rows(self.read(operation, zone=zone, **arguments))
                self._listed[key] = began_s, rows
            return rows

    def known_rows(self, operation: str, *, zone: str | None = None, **arguments: str) -> Rows:
        """Return the list if this process has fetched it, else nothing; sends no request."""
        return self._listed.get((operation, zone, *sorted(arguments.items())), (0.0, ()))[1]

    def write(self, operation: str, *, zone: str | None = None, **arguments: Any) -> Operation:
        """Send one change and return the operation that it started.

        Raises Unclear when its outcome is unknown; ApiError when it was never accepted; Absent, Refused,
        QuotaError, CredentialsError when nothing was done.  With a wrong clock nothing is created.
        """
        call = Call(operation, zone, arguments)
        if call.verb == "get":
            raise ValueError(f"{operation} is not a write")
        if call.verb == "post" and (wrong_clock := answers.clock_error(self.ahead_s)):
            raise wrong_clock
        try:
            answer = self._until_answered(call, repeat_unclear=False)
        except NoAnswer as no:
            raise Unclear(operation, str(no)) from no
        if "state" not in answer:
            raise Unclear(operation, "the answer is not an operation")
        return Operation.parse(answer, zone)

    def is_done(self, operation: Operation, *, what: str = "the operation") -> bool:
        """Look at an operation once, unless it is final already, and return True if it succeeded.

        Without a proper answer it is not done: the caller has the deadline.  Raises PartlyUp, ApiError or
        QuotaError when it ended otherwise; CredentialsError; Unclear where it has no id.
        """
        if operation.succeeded(what):
            return True
        if not operation.id:
            raise Unclear(what, "the answer has no id of an operation")
        try:
            answer = self._once(Call("get-operation", operation.zone, {"id": operation.id}), self._timeout())
        except NoAnswer as no:
            if no.after_s:
                self._say_wait(no)
                self.patience.pause(self.patience.spread(min(no.after_s, _LONGEST_ASKED_S)))
            return False
        except (Absent, Refused):
            return False
        found = Operation.parse(answer, operation.zone)
        if not (succeeded := found.succeeded(what)) and found.state != "pending":
            _log.debug("%s: unknown state in %r", what, answer)
        return succeeded

    def wait(self, operation: Operation, *, what: str) -> None:
        """Wait until an operation succeeded.  Raises as ``is_done``; ApiError after ``operation_s``."""
        if operation.succeeded(what):
            return
        watch = self.patience.watch(self.patience.operation_s)
        for pause_s in self.patience.pauses():
            watch.pause(pause_s)
            if self.is_done(operation, what=what):
                return
            if watch.over:
                break
        raise ApiError(
            f"{what}: not finished at Exoscale after {self.patience.operation_s:.0f} s",
            next_step="rain-deploy status shows what came of it, rain-deploy down deletes it",
        )

    def _until_answered(self, call: Call, *, repeat_unclear: bool) -> Any:
        watch = self.patience.watch(self.patience.api_s)
        for pause_s in self.patience.pauses():
            try:
                return self._once(call, self._timeout(watch.left_s if repeat_unclear else None))
            except NoAnswer as no:
                if not (repeat_unclear or no.nothing_done):
                    raise
                left_s = watch.left_s
                if left_s <= max(0.0, no.after_s):
                    raise self._gave_up(call, no) from no
                if no.after_s:
                    self._say_wait(no)
                    watch.pause(self.patience.spread(no.after_s))
                else:
                    self._say(f"Exoscale's API does not answer ({no}): trying again", left_s)
                    watch.pause(min(pause_s, left_s))
        raise AssertionError

    def _gave_up(self, call: Call, no: NoAnswer) -> ApiError:
        asked = f"it asks to wait {no.after_s:.0f} s"
        tried = asked if no.after_s else f"tried for {self.patience.api_s:.0f} s"
        return ApiError(
            f"Exoscale's API did not do {call.operation}: {no}; {tried}",
            next_step="the same command, later; Exoscale's status page lists outages",
        )

    def _say_wait(self, no: NoAnswer) -> None:
        self._say(f"Exoscale's API asks to wait {no.after_s:.0f} s ({no})", no.after_s)

    def _say(self, sentence: str, quiet_s: float) -> None:
        """Send one notice for all threads, and no other for ``quiet_s``."""
        now_s = self.now_s
        with self._lock:
            if now_s < self._quiet_until_s:
                return
            self._quiet_until_s = now_s + quiet_s
        self.notice(sentence)

    def _timeout(self, left_s: float | None = None) -> tuple[float, float]:
        """Return (connect, answer) in seconds.  A write gets its full time: cut short it would be unclear."""
        connect_s, answer_s = self.patience.connect_s, self.patience.answer_s
        if left_s is None:
            return connect_s, answer_s
        return min(connect_s, max(left_s, 1.0)), min(answer_s, max(left_s, 1.0))

    def _once(self, call: Call, timeout: tuple[float, float]) -> Any:
        """Send one request and return its answer.  Raises its error, NoAnswer for anything improper."""
        endpoint = self._endpoint(call.operation, call.zone)
        sent_s = time.time()
        response = self._connections.send(call, endpoint, timeout)
        ahead = answers.ahead_s(response, sent_s)
        signed = call.operation != LIST_ZONES  # a cache may serve the unsigned list with an old date
        if signed and ahead is not None:
            self.ahead_s = ahead
        try:
            return answers.understand(
                response, call.operation, call.schema, source=self.account.source, ahead=ahead
            )
        except Exception:
            _log.debug("%s answered: %r", call.operation, answers.cut(response.text, _LONGEST_RAW))
            raise

    def _endpoint(self, operation: str, zone: str | None) -> str:
        """Return where a call goes.  Raises InputError for a zone that does not exist."""
        if operation == LIST_ZONES or (zone is None and self.account.endpoint):
            return self.account.endpoint or default_endpoint()
        zones, name = self.zones(), zone or self.zone
        if name not in zones:
            raise InputError(f"Exoscale has no zone {name!r}; it has {', '.join(sorted(zones))}")
        return zones[name]


def _rows(answer: Any) -> Rows:
    """Return the one list in an answer, which is bare or under a name."""
    if isinstance(answer, dict):
        answer = next((value for value in answer.values() if isinstance(value, list)), [])
    return tuple(answer)
