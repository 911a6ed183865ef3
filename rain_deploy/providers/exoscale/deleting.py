"""Deleting anything: absent is done, in use is tried again for minutes, accepted is not yet gone."""

from __future__ import annotations

from typing import Any

from rain_deploy.errors import ApiError, DownIncomplete, RainDeployError
from rain_deploy.providers.exoscale.api import Api
from rain_deploy.providers.exoscale.errors import Absent, OperationFailed, Refused
from rain_deploy.providers.exoscale.listing import rounds


def delete(api: Api, operation: str, what: str, *, zone: str | None = None, **arguments: Any) -> None:
    """Until Exoscale says that it is done, or that there is none.

    A delete may be repeated, so a lost answer needs no search.  Raises DownIncomplete, CredentialsError.
    """
    patience = api.patience
    deadline_s = patience.clock() + patience.operation_s  # no Watch: it takes a long wait for a sleep
    for pause_s in patience.pauses():
        try:
            api.wait(api.write(operation, zone=zone, **arguments), what=f"removal of {what}", zone=zone)
        except Absent:
            return
        except (ApiError, OperationFailed, Refused) as error:
            final = isinstance(error, Refused) and (not error.in_use or _protected(error))
            if final or patience.clock() >= deadline_s:
                raise _refused(what, error) from error
        else:
            return
        patience.pause(pause_s)


def await_absence(api: Api, operation: str, what: str, *, zone: str, **arguments: Any) -> None:
    """Until a read of it says 404.  Raises DownIncomplete for what was deleted and is still there."""
    for _ in rounds(api, api.patience.settle_s):
        try:
            api.read(operation, zone=zone, **arguments)
        except Absent:
            return
    raise DownIncomplete(
        f"{what}: its delete was accepted, but it is still there", next_step="the same command again, later"
    )


def _protected(error: RainDeployError) -> bool:
    return isinstance(error, Refused) and "protect" in error.said.lower()


def _refused(what: str, error: RainDeployError) -> DownIncomplete:
    if not _protected(error):
        return DownIncomplete(
            f"{what} could not be deleted: {error.message}", next_step="the same command again, later"
        )
    return DownIncomplete(
        f"{what} is protected against deletion, by somebody who set that at Exoscale",
        next_step="remove the protection in Exoscale's portal, then the same command again",
    )
