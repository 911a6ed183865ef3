"""Calls of Exoscale's API, with the deadlines and repetitions that the official client lacks.

Reads are repeated until they are answered or ``Patience.api_s`` is over.  A write is repeated only where
nothing can have been done: no connection was made, or the API asked to wait (429).  Otherwise it raises
Unclear, and ``made_once`` searches before it repeats: a resource is made at most once.  A delete is repeated
until it is done: absent is done, "in use" is tried again for minutes, and accepted does not mean gone.
"""

import collections
import contextlib
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from rain_deploy.errors import REFUSALS, ApiError, CredentialsError, DownIncomplete, InputError, PartlyUp
from rain_deploy.providers.exoscale import answers
from rain_deploy.providers.exoscale.account import Account
from rain_deploy.providers.exoscale.answers import Absent, NoAnswer, Operation, Refused, Unclear, UnknownForm
from rain_deploy.providers.exoscale.patience import Patience, Silence, Voice, Watch
from rain_deploy.providers.exoscale.sdk import LIST_ZONES, Connections, default_endpoint, described, schema

if TYPE_CHECKING:
    from requests.adapters import HTTPAdapter

DEFAULT_ZONE = "ch-dk-2"  # the zone of ``exo`` where neither environment nor account name one
AT_ONCE = 16  # requests of one command
READ_S = 4.0  # how long to search after a lost answer with reads by id or name, which do not lag as lists do
T = TypeVar("T")
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
        adapter: Callable[[], "HTTPAdapter"] | None = None,
        notice: Callable[[str], None] = lambda _sentence: None,
    ) -> None:
        self.account = account
        self.patience = replace(patience or Patience(), notice=notice)
        self.zone = account.zone or DEFAULT_ZONE
        self.ahead_s: float | None = None
        """Seconds by which the clock here is ahead of the API's by its last answer; None before the first."""
        self.notice = notice
        self._connections = Connections(account, adapter)
        self._lock = threading.Lock()
        self._zones: dict[str, str] = {}
        self._voice = Voice(self.patience)
        self._view_s = math.inf
        self._answered_s = 0.0  # when it last answered, since ``within`` began
        self._silent = ""  # why it does not answer
        self._listing: collections.defaultdict[Any, threading.Lock] = collections.defaultdict(threading.Lock)
        self._listed: dict[Any, tuple[float, Rows]] = {}

    @property
    def now_s(self) -> float:
        """Return the time by the API's clock here, for ``since_s`` of ``rows``."""
        return self.patience.clock()

    @contextlib.contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Give up all reads inside, of all threads, once the API has not answered for ``seconds``."""
        before = self._view_s
        self._view_s, self._answered_s, self._silent = min(before, seconds), self.now_s, ""
        try:
            yield
        finally:
            self._view_s = before

    def zones(self) -> dict[str, str]:
        """Return the endpoint of every zone.  Raises ApiError; InputError for a wrong endpoint."""
        if not self._zones:
            try:
                found = self.read(LIST_ZONES)
            except (Absent, Refused, CredentialsError, UnknownForm) as error:
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
        if described(operation)["verb"] != "get":
            raise ValueError(f"{operation} is not a read")
        return self._until_answered(operation, zone, arguments, repeat_unclear=True)

    def rows(
        self, operation: str, *, zone: str | None = None, since_s: float = 0.0, **arguments: str
    ) -> Rows:
        """Return a list as it was at ``since_s`` or later (0: in this process), asked once for all."""
        key = (operation, zone, *sorted(arguments.items()))
        with self._lock:
            listing = self._listing[key]
        with listing:
            began_s, rows = self._listed.get(key, (float("-inf"), ()))
            if began_s < since_s:
                began_s = self.now_s
                answer = self.read(operation, zone=zone, **arguments)
                if isinstance(answer, dict):  # the list is bare or under a name
                    answer = next((value for value in answer.values() if isinstance(value, list)), [])
                rows = tuple(answer)
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
        verb = described(operation)["verb"]
        if verb == "get":
            raise ValueError(f"{operation} is not a write")
        if verb == "post" and (wrong_clock := answers.clock_error(self.ahead_s)):
            raise wrong_clock
        try:
            answer = self._until_answered(operation, zone, arguments, repeat_unclear=False)
        except NoAnswer as no:
            raise Unclear(operation, str(no)) from no
        except UnknownForm as unknown:
            raise Unclear(operation, unknown.message, again=False) from unknown
        if "state" not in answer:
            raise Unclear(operation, "the answer is not an operation", again=False)
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
            answer = self._once("get-operation", operation.zone, {"id": operation.id})
        except NoAnswer as no:
            if no.after_s:
                self._say(no, 0.0)
                # One look does not wait longer, whatever the API asks for.
                self.patience.pause(self.patience.spread(min(no.after_s, 30.0)))
            return False
        except (Absent, Refused):
            return False
        except CredentialsError as error:
            error.accepted = True
            raise
        found = Operation.parse(answer, operation.zone)
        if not (succeeded := found.succeeded(what)) and found.state != "pending":
            _log.debug("%s: unknown state in %r", what, answer)
        return succeeded

    def wait(self, operation: Operation, *, what: str) -> None:
        """Wait until an operation succeeded.  Raises as ``is_done``; ApiError after ``operation_s``."""
        rounds = self.patience.rounds(self.patience.operation_s, f"Exoscale to end {what}")
        next(rounds)  # the answer was the first look
        if operation.succeeded(what) or any(self.is_done(operation, what=what) for _ in rounds):
            return
        raise ApiError(
            f"{what}: not finished at Exoscale after {self.patience.operation_s:.0f} s",
            next_step="rain-deploy status shows what came of it, rain-deploy down deletes it",
        )

    def change(self, operation: str, *, what: str, zone: str | None = None, **arguments: Any) -> Operation:
        """Send one change and wait until it is made.  Raises as ``write`` and ``wait``."""
        begun = self.write(operation, zone=zone, **arguments)
        self.wait(begun, what=what)
        return begun

    def made_once(
        self,
        find: Callable[[], T | None],
        make: Callable[[], T],
        *,
        what: str,
        unsettled_s: float | None = None,
        settle_s: float | None = None,
    ) -> T:
        """Return what ``make`` makes, never twice: after a lost answer, search until lists are settled.

        ``find`` looks once, at the cloud itself.  ``unsettled_s``: since when (epoch seconds) an earlier
        attempt is without outcome.  ``settle_s``: how long to search after a lost answer, by default as long
        as lists may lag; little where a name can be taken only once.  Raises what ``make`` raises, ApiError
        when no attempt had an outcome before the API's deadline.
        """
        patience = self.patience
        settle_s = patience.settle_s if settle_s is None else settle_s
        if unsettled_s is not None:
            left_s = settle_s - max(0.0, time.time() - unsettled_s)
            if (found := patience.search(find, left_s, what)) is not None:
                return found
        # Not a Watch: a long search would look like a suspension.
        deadline_s = patience.clock() + patience.api_s
        without_outcome = False
        while True:
            try:
                return make()
            except (*REFUSALS, Unclear) as error:
                unclear = isinstance(error, Unclear)
                without_outcome |= unclear
                taken = isinstance(error, Refused) and error.name_taken  # by one that no list shows yet
                search_s = patience.settle_s if taken else settle_s
                try:
                    found = patience.search(find, search_s, what) if unclear or taken else None
                except REFUSALS as lost:
                    lost.accepted |= without_outcome  # it may have been made
                    raise
                if found is not None:
                    return found
                if not without_outcome:
                    raise
                if isinstance(error, Unclear) and error.again and patience.clock() < deadline_s:
                    continue
                # Not the refusal itself, which would claim that nothing was made.
                why = f"Exoscale did not say whether it was made, and does not show it ({error.message})"
                next_step = "repeat the command: it searches for it first"
                raise ApiError(f"{what}: {why}", next_step=next_step) from error

    def done_once(self, is_done: Callable[[], bool], do: Callable[[], object], *, what: str) -> None:
        """Make a change at most once; after a lost answer ``is_done`` looks whether it was made."""

        def make() -> bool:
            do()
            return True

        self.made_once(lambda: is_done() or None, make, what=what, settle_s=READ_S)

    def delete(self, operation: str, what: str, *, zone: str | None = None, **arguments: Any) -> None:
        """Delete until Exoscale says that it is done, or that there is none.  Raises DownIncomplete."""
        patience = self.patience
        # Not a Watch: a long wait would look like a suspension.
        deadline_s = patience.clock() + patience.operation_s
        silence = Silence(patience, f"Exoscale to let go of {what}, which is in use or busy")
        for pause_s in patience.pauses():
            try:
                self.change(operation, what=f"removal of {what}", zone=zone, **arguments)
            except Absent:
                return
            except (ApiError, PartlyUp, Refused) as error:
                if isinstance(error, Refused) and error.protected:
                    lift = f"exo compute instance update {arguments['id']} --zone {zone} --protection=false"
                    raise DownIncomplete(
                        f"{what} is protected against deletion at Exoscale; this lifts it: {lift}",
                        next_step=lift,
                    ) from error
                hopeless = isinstance(error, Refused) and not error.in_use
                hopeless |= isinstance(error, Unclear) and not error.again
                if hopeless or isinstance(error, UnknownForm) or patience.clock() >= deadline_s:
                    why = f"{what} could not be deleted: {error.message}"
                    raise DownIncomplete(why, next_step="the same command again, later") from error
            else:
                return
            silence.before(pause_s)
            patience.pause(pause_s)

    def _until_answered(
        self, operation: str, zone: str | None, arguments: Mapping[str, Any], *, repeat_unclear: bool
    ) -> Any:
        limit_s = self.patience.api_s
        if repeat_unclear:
            limit_s = min(limit_s, self._answered_s + self._view_s - self.now_s)
        if limit_s <= 0 and self._silent:  # another call has used up the time of all
            raise self._gave_up(operation, self._silent)
        watch = Watch(self.patience, limit_s)
        for pause_s in self.patience.pauses():
            try:
                answer = self._once(operation, zone, arguments, watch.left_s if repeat_unclear else math.inf)
            except NoAnswer as no:
                if not (repeat_unclear or no.nothing_done):
                    raise
                self._silent = str(no)
                left_s = watch.left_s
                if left_s <= max(0.0, no.after_s):
                    asked = f"it asks to wait {no.after_s:.0f} s"
                    why = f"{no}; {asked if no.after_s else f'tried for {limit_s:.0f} s'}"
                    raise self._gave_up(operation, why) from no
                self._say(no, left_s)
                watch.pause(self.patience.spread(no.after_s) if no.after_s else min(pause_s, left_s))
            else:
                self._answered_s = self.now_s
                return answer
        raise AssertionError

    @staticmethod
    def _gave_up(operation: str, why: str) -> ApiError:
        next_step = "the same command, later; Exoscale's status page lists outages"
        return ApiError(f"Exoscale's API did not do {operation}: {why}", next_step=next_step)

    def _say(self, no: NoAnswer, left_s: float) -> None:
        asked = f"Exoscale's API asks to wait {no.after_s:.0f} s ({no})"
        again = f"Exoscale's API does not answer ({no}): trying again, for {left_s:.0f} s"
        self._voice.say(asked if no.after_s else again, no.after_s or left_s)

    def _once(
        self, operation: str, zone: str | None, arguments: Mapping[str, Any], left_s: float = math.inf
    ) -> Any:
        """Send one request and return its answer.  Raises its error, NoAnswer for anything improper."""
        # A write gets its full time: cut short it would be unclear.
        limit_s = max(left_s, 1.0)
        timeout = min(self.patience.connect_s, limit_s), min(self.patience.answer_s, limit_s)
        endpoint = self._endpoint(operation, zone)
        sent_s = time.time()
        waits = f"waiting for Exoscale's API to answer {operation} (up to {timeout[1]:.0f} s)"
        with self._voice.unless_soon(waits, timeout[1]):
            response = self._connections.send(operation, arguments, endpoint, timeout, limit_s)
        ahead = answers.ahead_s(response, sent_s)
        signed = operation != LIST_ZONES  # a cache may serve the unsigned list with an old date
        if signed and ahead is not None:
            self.ahead_s = ahead
        try:
            source = self.account.source
            return answers.understand(response, operation, schema(operation), source=source, ahead=ahead)
        except Exception:
            _log.debug("%s answered: %r", operation, answers.cut(response.text, 4000))
            raise

    def _endpoint(self, operation: str, zone: str | None) -> str:
        """Return where a call goes.  Raises InputError for a zone that does not exist."""
        if operation == LIST_ZONES or (zone is None and self.account.endpoint):
            return self.account.endpoint or default_endpoint()
        zones, name = self.zones(), zone or self.zone
        if name not in zones:
            raise InputError(f"Exoscale has no zone {name!r}; it has {', '.join(sorted(zones))}")
        return zones[name]
