"""Resources are made at most once, and deleted until they are gone.

After a lost answer of a create the resource is searched for before the create is repeated.  A delete may be
repeated freely: absent is done, "in use" is tried again for minutes, and accepted does not mean gone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from rain_deploy.errors import ApiError, DownIncomplete, InputError, PartlyUp, QuotaError
from rain_deploy.providers.exoscale.answers import Absent, Refused, Unclear
from rain_deploy.providers.exoscale.api import Api

T = TypeVar("T")
READ_S = 4.0
"""How long to search after a lost answer with reads by id or name, which do not lag as lists do."""


def made_once(
    api: Api,
    find: Callable[[], T | None],
    make: Callable[[], T],
    *,
    what: str,
    unsettled_s: float | None = None,
    settle_s: float | None = None,
) -> T:
    """Return what ``make`` makes, never twice: after a lost answer, search until lists are settled.

    ``find`` looks once, at the cloud itself.  ``unsettled_s``: since when (epoch seconds) an earlier attempt
    is without outcome.  ``settle_s``: how long to search after a lost answer, by default as long as lists may
    lag; little where a name can be taken only once.  Raises what ``make`` raises, ApiError when no attempt
    had an outcome before the API's deadline.
    """
    patience = api.patience
    settle_s = patience.settle_s if settle_s is None else settle_s
    if unsettled_s is not None:
        left_s = settle_s - max(0.0, time.time() - unsettled_s)
        if (found := patience.search(find, left_s)) is not None:
            return found
    # Not a Watch: a long search would look like a suspension.
    deadline_s = patience.clock() + patience.api_s
    without_outcome = False
    while True:
        try:
            return make()
        except (InputError, QuotaError, Unclear) as error:
            unclear = isinstance(error, Unclear)
            without_outcome |= unclear
            taken = isinstance(error, Refused) and error.name_taken  # by one that no list shows yet
            if (unclear or taken) and (
                found := patience.search(find, patience.settle_s if taken else settle_s)
            ) is not None:
                return found
            if not without_outcome:
                raise
            if unclear and patience.clock() < deadline_s:
                continue
            # Not the refusal itself, which would claim that nothing was made.
            raise ApiError(
                f"{what}: Exoscale did not say whether it was made, and does not show it ({error.message})",
                next_step="repeat the command: it searches for it first",
            ) from error


def done_once(api: Api, is_done: Callable[[], bool], do: Callable[[], None], *, what: str) -> None:
    """Make a change at most once; after a lost answer ``is_done`` looks whether it was made."""

    def make() -> bool:
        do()
        return True

    made_once(api, lambda: is_done() or None, make, what=what, settle_s=READ_S)


def delete(api: Api, operation: str, what: str, *, zone: str | None = None, **arguments: Any) -> None:
    """Delete until Exoscale says that it is done, or that there is none.

    Raises DownIncomplete, CredentialsError.
    """
    patience = api.patience
    # Not a Watch: a long wait would look like a suspension.
    deadline_s = patience.clock() + patience.operation_s
    for pause_s in patience.pauses():
        try:
            api.wait(api.write(operation, zone=zone, **arguments), what=f"removal of {what}")
        except Absent:
            return
        except (ApiError, PartlyUp, Refused) as error:
            if isinstance(error, Refused) and error.protected:
                raise DownIncomplete(
                    f"{what} is protected against deletion; somebody set that at Exoscale",
                    next_step="remove the protection in Exoscale's portal, then repeat the command",
                ) from error
            if patience.clock() >= deadline_s or (isinstance(error, Refused) and not error.in_use):
                raise DownIncomplete(
                    f"{what} could not be deleted: {error.message}", next_step="the same command again, later"
                ) from error
        else:
            return
        patience.pause(pause_s)
