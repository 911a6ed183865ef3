"""Lists that threads share, and the search for what a create may have made although no answer came."""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from rain_deploy.errors import ApiError, InputError, QuotaError, RainDeployError
from rain_deploy.providers.exoscale.api import Api
from rain_deploy.providers.exoscale.errors import Refused, Unclear

T = TypeVar("T")
READ_S = 4.0
"""A read by id or name does not lag as lists do: for so long it is looked at after a lost answer."""
Rows = tuple[dict[str, Any], ...]


class Listings:
    """Each list of the account is fetched by one thread for all that want it at that time."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._locks: collections.defaultdict[Any, threading.Lock] = collections.defaultdict(threading.Lock)
        self._guard = threading.Lock()
        self._kept: dict[Any, tuple[float, Rows]] = {}
        self._born = api.patience.clock()

    def rows(
        self, operation: str, *, zone: str | None = None, since: float | None = None, **arguments: str
    ) -> Rows:
        """The list as it was at ``since`` (the API's clock) or later; None: at any time in this process."""
        key = (operation, zone, *sorted(arguments.items()))
        with self._guard:
            lock = self._locks[key]
        with lock:
            began, rows = self._kept.get(key, (float("-inf"), ()))
            if began < (self._born if since is None else since):
                began = self._api.patience.clock()
                rows = _rows(self._api.read(operation, zone=zone, **arguments))
                self._kept[key] = began, rows
            return rows

    def kept(self, operation: str, *, zone: str | None = None, **arguments: str) -> Rows:
        """The list as far as this process has it; asks nobody."""
        return self._kept.get((operation, zone, *sorted(arguments.items())), (0.0, ()))[1]

    def now(self, operation: str, *, zone: str | None = None, **arguments: str) -> Rows:
        """The list as it is from this moment on."""
        return self.rows(operation, zone=zone, since=self._api.patience.clock(), **arguments)


def made_once(
    api: Api,
    find: Callable[[], T | None],
    make: Callable[[], T],
    *,
    what: str,
    unsettled_s: float | None = None,
    settle_s: float | None = None,
) -> T:
    """What ``make`` makes, never twice: after a lost answer it is looked for until lists are settled.

    ``find`` looks once, at the cloud itself.  ``unsettled_s``: since when (epoch seconds) an earlier
    command's attempt is without outcome.  ``settle_s``: how long to look after a lost answer, else as long
    as lists may lag; little where a name is taken once.  Raises what ``make`` raises, ApiError when no
    attempt until the API's deadline had an outcome.
    """
    patience = api.patience
    settle_s = patience.settle_s if settle_s is None else settle_s
    if unsettled_s is not None:
        left_s = settle_s - max(0.0, time.time() - unsettled_s)
        if (found := search(api, find, left_s)) is not None:
            return found
    deadline_s = patience.clock() + patience.api_s  # no Watch: it takes a long search for a sleep
    attempts_without_outcome = 0
    while True:
        try:
            return make()
        except (InputError, QuotaError) as error:
            taken = isinstance(error, Refused) and error.name_taken  # by what lists do not show yet
            if taken and (found := search(api, find, patience.settle_s)) is not None:
                return found
            if attempts_without_outcome:
                raise _not_known(what, error) from error
            raise
        except Unclear as error:
            attempts_without_outcome += 1
            if (found := search(api, find, settle_s)) is not None:
                return found
            if patience.clock() >= deadline_s:
                raise _not_known(what, error) from error


def _not_known(what: str, error: RainDeployError) -> ApiError:
    """Not the refusal itself: that would say that there is nothing."""
    return ApiError(
        f"{what}: Exoscale did not say whether it was made, and it is not to be seen there ({error.message})",
        next_step="the same command again looks for it first",
    )


def search(api: Api, find: Callable[[], T | None], seconds: float) -> T | None:
    """Look at least once, and again until found or ``seconds`` have passed: lists lag."""
    for _ in rounds(api, seconds):
        if (found := find()) is not None:
            return found
    return None


def rounds(api: Api, seconds: float) -> Iterator[None]:
    """Once, and again after a pause until ``seconds`` have passed, the last time after their end."""
    watch = api.patience.watch(seconds)
    for pause_s in api.patience.pauses():
        yield
        if watch.over:
            return
        watch.pause(pause_s)


def _rows(answer: Any) -> Rows:
    """The one list in an answer; the SDK gives some bare and some under a name."""
    if isinstance(answer, dict):
        answer = next((value for value in answer.values() if isinstance(value, list)), [])
    return tuple(answer)
