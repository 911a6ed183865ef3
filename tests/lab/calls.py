"""How the lab's operations are written: a function of a Call, registered under the operation's name."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from tests.lab.faults import Faults
from tests.lab.log import Request
from tests.lab.machines import Machines
from tests.lab.store import Resource, Store, Zone

R = TypeVar("R", bound=Resource)


@dataclass(frozen=True, slots=True)
class Call:
    """One request, checked against the specification, and the world it is about."""

    request: Request
    body: dict[str, Any]
    store: Store
    zone: Zone
    zone_urls: dict[str, str]
    machines: Machines
    faults: Faults

    @property
    def id(self) -> str:
        """The path's id."""
        return self.request.parameters["id"]

    def listed(self, resources: Iterable[R]) -> list[R]:
        """Without those that a slow list does not show yet."""
        lag_s = self.faults.list_lag_s.get(self.request.operation, 0.0)
        return [each for each in resources if each.created_s <= time.time() - lag_s]


class Handler(Protocol):
    """Answers a read with a JSON value and a mutation with a Change; raises RefusedError."""

    def __call__(self, call: Call, /) -> Any: ...


HANDLERS: dict[str, Handler] = {}


def handles(operation: str) -> Callable[[Handler], Handler]:
    """Register what answers an operation."""

    def register(handler: Handler) -> Handler:
        HANDLERS[operation] = handler
        return handler

    return register
