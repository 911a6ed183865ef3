"""Does the same work on many hosts at once and collects every outcome."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from rain_deploy.errors import HostKeyError, RainDeployError


class Named(Protocol):
    """Anything with a name: a host, an intent, a resource."""

    @property
    def name(self) -> str: ...


T = TypeVar("T")
N = TypeVar("N", bound=Named)

MAX_AT_ONCE = 64
"""Threads of one fan-out; measured: more of them gain nothing."""


@dataclass(frozen=True, slots=True)
class Outcomes(Generic[T]):
    """Results and errors by host name; each host has one of the two."""

    values: Mapping[str, T]
    errors: Mapping[str, RainDeployError]

    def require(self) -> Mapping[str, T]:
        """Return the values.  If a host failed, raise one error that lists all; host keys take precedence."""
        if not self.errors:
            return self.values
        name = min(self.errors, key=lambda name: not isinstance(self.errors[name], HostKeyError))
        others = ", ".join(other for other in self.errors if other != name)
        if others:
            self.errors[name].message += f" (failed as well: {others})"
        raise self.errors[name]


def fan_out(hosts: tuple[N, ...], work: Callable[[N], T], *, finish: bool = False) -> Outcomes[T]:
    """Run ``work`` for each host in threads.  Only a RainDeployError is an outcome; a bug is raised.

    ``finish``: on Ctrl-C, wait for the calls that have begun, because they must be recorded.
    """
    values: dict[str, T] = {}
    errors: dict[str, RainDeployError] = {}
    pool = ThreadPoolExecutor(max_workers=min(max(len(hosts), 1), MAX_AT_ONCE))
    try:
        futures = [(host, pool.submit(work, host)) for host in hosts]
        for host, future in futures:
            try:
                values[host.name] = future.result()
            except RainDeployError as error:
                error.node = error.node or host.name
                errors[host.name] = error
    except BaseException:
        pool.shutdown(wait=finish, cancel_futures=True)
        raise
    pool.shutdown()
    return Outcomes(values, errors)
