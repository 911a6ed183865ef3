"""Calls of Exoscale's API through its SDK, with the deadlines and repetitions that the SDK lacks.

Reads are repeated until they are answered or ``Patience.api_s`` is over.  A write is repeated only where
nothing can have been done: no connection was made, or the API asked to wait (429).  In all other cases it
raises Unclear, and the caller looks before it repeats.  No exception of the SDK leaves this module.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from rain_deploy.errors import ApiError, CredentialsError, InputError
from rain_deploy.providers.exoscale import answers, errors
from rain_deploy.providers.exoscale.account import Account
from rain_deploy.providers.exoscale.patience import Patience, Watch

if TYPE_CHECKING:
    import requests
    from requests.adapters import HTTPAdapter

__all__ = ["DEFAULT_ZONE", "Api", "Patience"]

DEFAULT_ZONE = "ch-dk-2"
"""The zone of ``exo`` where neither environment nor account name one."""
_ZONES = "list-zones"
_LONGEST_RAW = 4000
_LONGEST_TOLD_S = 30.0
"""One look at an operation does not wait longer, whatever the API asks for."""
_log = logging.getLogger("rain_deploy.providers.exoscale")


def _ignore(_sentence: str) -> None:
    """Nobody wants to hear."""


@dataclass(frozen=True, slots=True)
class _Call:
    """One operation with its arguments; ``zone`` None: of the whole organization."""

    operation: str
    zone: str | None
    arguments: Mapping[str, Any]


class Api:
    """The account's API.  Thread-safe: each thread has its own connections.

    ``adapter`` makes what requests sends with, a seam for tests.  ``notice`` gets one sentence when there
    is something to wait for, and what a caller has to tell.
    """

    def __init__(
        self,
        account: Account,
        *,
        patience: Patience | None = None,
        adapter: Callable[[], HTTPAdapter] | None = None,
        notice: Callable[[str], None] = _ignore,
    ) -> None:
        self.account = account
        self.patience = patience or Patience()
        self.zone = account.zone or DEFAULT_ZONE
        self.ahead_s: float | None = None
        """How far the clock here is ahead of the API's by its last answer; None before the first."""
        self._adapter = adapter
        self.notice = notice
        self._local = threading.local()
        self._lock = threading.Lock()
        self._zones: tuple[tuple[str, str], ...] = ()
        self._told_until_s = 0.0

    def zones(self) -> tuple[tuple[str, str], ...]:
        """(name, endpoint) of every zone, asked once.  ApiError; InputError for a wrong endpoint."""
        if not self._zones:
            try:
                found = self._until_answered(_Call(_ZONES, None, {}), repeat_unclear=True)
            except (errors.Absent, errors.Refused, CredentialsError) as error:
                raise InputError(
                    f"{self._endpoint(_ZONES, None)} does not answer as Exoscale's API v2: {error}",
                    next_step="give EXOSCALE_API_ENDPOINT with /v2 at its end, or unset it",
                ) from error
            self._zones = tuple(
                (zone["name"], zone["api-endpoint"].rstrip("/"))
                for zone in found.get("zones", ())
                if zone.keys() >= {"name", "api-endpoint"}
            )
        if not self._zones:
            raise ApiError("Exoscale's API tells of no zone", next_step="the same command, later")
        return self._zones

    def read(self, operation: str, *, zone: str | None = None, **arguments: Any) -> Any:
        """What a GET answers.  Absent, Refused, CredentialsError; ApiError at the deadline."""
        if _described(operation)["verb"] != "get":
            raise ValueError(f"{operation} is no read")
        return self._until_answered(_Call(operation, zone, arguments), repeat_unclear=True)

    def write(self, operation: str, *, zone: str | None = None, **arguments: Any) -> dict[str, Any]:
        """Send one change; the operation that it started.

        Unclear when it is not known what came of it; ApiError when it was never taken; Absent, Refused,
        QuotaError, CredentialsError when nothing was done.  Nothing is created by a clock that is wrong.
        """
        verb = _described(operation)["verb"]
        if verb == "get":
            raise ValueError(f"{operation} is no write")
        if verb == "post":
            self.check_clock()
        try:
            answer = self._until_answered(_Call(operation, zone, arguments), repeat_unclear=False)
        except answers.NoAnswer as no:
            raise _unclear(operation, str(no)) from no
        if "state" not in answer:
            raise _unclear(operation, "the answer is no operation")
        return dict(answer)

    def check_clock(self) -> None:
        """CredentialsError when the last answer told that the clock here is more than 5 minutes off."""
        if self.ahead_s is not None and abs(self.ahead_s) > errors.SKEW_S:
            raise errors.clock_wrong(self.ahead_s)

    def look(
        self, operation: Mapping[str, Any], *, zone: str | None = None, what: str = "the operation"
    ) -> Literal["pending", "success"]:
        """How an operation stands: asked once, unless what is given is final already.

        No proper answer is ``pending``: the caller has the deadline.  OperationFailed, OperationTimeout,
        CloudBusy, QuotaError when it ended otherwise; CredentialsError; Unclear where it has no id.
        """
        if _judged(operation, what) == "success":
            return "success"
        if "id" not in operation:
            raise errors.Unclear(
                f"{what}: Exoscale's answer names no operation", next_step="rain-deploy status"
            )
        try:
            found = self._once(_Call("get-operation", zone, {"id": operation["id"]}), self._timeout())
        except answers.NoAnswer as no:
            if no.after_s:
                self._say_wait(no)
                self.patience.pause(self.patience.late(min(no.after_s, _LONGEST_TOLD_S)))
            return "pending"
        except (errors.Absent, errors.Refused):
            return "pending"
        return _judged(found, what)

    def wait(self, operation: Mapping[str, Any], *, what: str, zone: str | None = None) -> None:
        """Until it succeeded.  As ``look``; ApiError when ``Patience.operation_s`` is over."""
        if _judged(operation, what) == "success":
            return
        watch = self.patience.watch(self.patience.operation_s)
        for pause_s in self.patience.pauses():
            watch.pause(pause_s)
            if self.look(operation, zone=zone, what=what) == "success":
                return
            if watch.over:
                break
        raise ApiError(
            f"{what}: not finished at Exoscale after {self.patience.operation_s:.0f} s",
            next_step="rain-deploy status shows what came of it, rain-deploy down removes it",
        )

    def _until_answered(self, call: _Call, *, repeat_unclear: bool) -> Any:
        watch = self.patience.watch(self.patience.api_s)
        for pause_s in self.patience.pauses():
            try:
                return self._once(call, self._timeout(watch.left_s if repeat_unclear else None))
            except answers.NoAnswer as no:
                if not (repeat_unclear or no.nothing_done):
                    raise
                left_s = watch.left_s
                if left_s <= max(0.0, no.after_s):
                    raise self._gave_up(call, no) from no
                self._pause(watch, no, min(pause_s, left_s))
        raise AssertionError

    def _pause(self, watch: Watch, no: answers.NoAnswer, pause_s: float) -> None:
        if no.after_s:
            self._say_wait(no)
            watch.pause(self.patience.late(no.after_s))
        else:
            self._say(f"Exoscale's API does not answer ({no}): asking again", watch.left_s)
            watch.pause(pause_s)

    def _gave_up(self, call: _Call, no: answers.NoAnswer) -> ApiError:
        tried = (
            f"it asks to wait {no.after_s:.0f} s" if no.after_s else f"tried for {self.patience.api_s:.0f} s"
        )
        return ApiError(
            f"Exoscale's API did not do {call.operation}: {no}; {tried}",
            next_step="the same command, later; Exoscale's status page tells of outages",
        )

    def _say_wait(self, no: answers.NoAnswer) -> None:
        self._say(f"Exoscale's API asks to wait {no.after_s:.0f} s ({no})", no.after_s)

    def _say(self, sentence: str, quiet_s: float) -> None:
        """One notice of all threads for the time in which it holds."""
        now = self.patience.clock()
        with self._lock:
            if now < self._told_until_s:
                return
            self._told_until_s = now + quiet_s
        self.notice(sentence)

    def _timeout(self, left_s: float | None = None) -> tuple[float, float]:
        """(connect, answer) in seconds.  A write gets its full time: cut short it would be unclear."""
        connect_s, answer_s = self.patience.connect_s, self.patience.answer_s
        if left_s is None:
            return connect_s, answer_s
        return min(connect_s, max(left_s, 1.0)), min(answer_s, max(left_s, 1.0))

    def _once(self, call: _Call, timeout: tuple[float, float]) -> Any:
        """One request: its answer or its error; NoAnswer when nothing proper came back."""
        endpoint = self._endpoint(call.operation, call.zone)
        sent_s = time.time()
        response = self._send(call, endpoint, timeout)
        ahead = answers.ahead_s(response, sent_s)
        if (
            ahead is not None and call.operation != _ZONES
        ):  # unsigned, it may come from a cache with its old date
            self.ahead_s = ahead
        try:
            return answers.understand(
                response, call.operation, _form(call.operation), source=self.account.source, ahead=ahead
            )
        except Exception:
            _log.debug("%s answered: %r", call.operation, errors.cut(response.text, _LONGEST_RAW))
            raise

    def _send(self, call: _Call, endpoint: str, timeout: tuple[float, float]) -> requests.Response:
        """The response, whatever it is: it says more than the exception that the SDK makes of it."""
        import requests  # noqa: PLC0415 - heavy

        client = self._client(endpoint)
        session = client.http_client
        session.request = functools.partial(requests.Session.request, session, timeout=timeout)
        self._local.response = None
        try:
            if call.operation == _ZONES:
                session.request("GET", f"{endpoint}{_described(_ZONES)['path']}", auth=_unsigned)
            else:
                getattr(client, call.operation.replace("-", "_"))(**call.arguments)
        except (_sdk_error(), requests.JSONDecodeError):
            pass  # read again from the response
        except OSError as error:  # those of requests are, too
            why = answers.unsent(error, endpoint, self.account.source)
            _log.debug("%s at %s: %s", call.operation, endpoint, why)
            raise why from error
        response: requests.Response = self._local.response
        _log.debug("%s at %s: %s", call.operation, endpoint, response.status_code)
        return response

    def _client(self, endpoint: str) -> Any:
        """This thread's client of an endpoint."""
        clients: dict[str, Any] = self._local.__dict__.setdefault("clients", {})
        if endpoint not in clients:
            client = clients[endpoint] = _sdk()(self.account.key, self.account.secret, url=endpoint)
            session = client.http_client
            session.max_redirects = 0  # a redirected POST would be sent as GET
            session.hooks["response"].append(self._keep)
            if self._adapter:
                session.mount("http://", self._adapter())
                session.mount("https://", self._adapter())
        return clients[endpoint]

    def _keep(self, response: requests.Response, **_options: Any) -> None:
        self._local.response = response

    def _endpoint(self, operation: str, zone: str | None) -> str:
        """Where a call goes.  InputError for a zone that does not exist."""
        if operation == _ZONES or (zone is None and self.account.endpoint):
            return self.account.endpoint or _sdk()("", "").endpoint
        zones = dict(self.zones())
        name = zone or self.zone
        if name not in zones:
            raise InputError(f"Exoscale has no zone {name!r}; it has {', '.join(sorted(zones))}")
        return zones[name]


def _unclear(operation: str, why: str) -> errors.Unclear:
    return errors.Unclear(
        f"it is not known whether Exoscale did {operation}: {why}", next_step="rain-deploy status"
    )


def _judged(operation: Mapping[str, Any], what: str) -> Literal["pending", "success"]:
    """The state of an operation, where an unknown one is pending; the error of one that did not succeed."""
    state = operation.get("state")
    if state in {"failure", "timeout"}:
        raise errors.ended(
            what, state, str(operation.get("reason", "unknown")), str(operation.get("message", ""))
        )
    if state not in {"pending", "success"}:
        _log.debug("%s: unknown state in %r", what, dict(operation))
    return "success" if state == "success" else "pending"


def _unsigned(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Zones are asked without a signature, as by the SDK: a restricted key would get 403."""
    return request


@functools.cache
def _sdk() -> Any:
    from exoscale.api.v2 import Client  # noqa: PLC0415 - heavy: it reads a description of 1 MB

    return Client


@functools.cache
def _sdk_error() -> type[Exception]:
    from exoscale.api.exceptions import ExoscaleAPIException  # noqa: PLC0415 - as above

    return ExoscaleAPIException  # type: ignore[no-any-return]


def _described(operation: str) -> Any:
    """{verb, path, operation} of the API's description that the SDK ships.  KeyError: a bug of ours."""
    return _sdk()._by_operation[operation]  # noqa: SLF001 - the one place where the SDK has it


@functools.cache
def _form(operation: str) -> Any:
    """The schema of the answer of ``operation``."""
    content = _described(operation)["operation"]["responses"]["200"].get("content", {})
    schema = content.get("application/json", {}).get("schema", {})
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return _sdk()._api_spec["components"]["schemas"][name]  # noqa: SLF001 - as above
    return schema
