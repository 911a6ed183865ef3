"""Does the same work on many hosts at once and collects every outcome."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from rain_deploy.core.machine import Host
from rain_deploy.errors import HostKeyError, RainDeployError, Unreachable
from rain_deploy.transport.base import Transport


class Named(Protocol):
    """Anything with a name: a host, an intent, a resource."""

    @property
    def name(self) -> str: ...


T = TypeVar("T")
N = TypeVar("N", bound=Named)

MAX_AT_ONCE = 64
"""Threads of one fan-out; measured: more of them gain nothing."""
WAITING_S = 10.0
PAUSE_S = 1.0
"""Pause between two tries of a host that does not answer yet."""


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


def meet(transport: Transport, hosts: tuple[Host, ...]) -> None:
    """Connect to all hosts before anything is done on any.  Raises HostKeyError if one has a wrong key.

    A host that does not answer is left to the work that follows.
    """
    for error in fan_out(hosts, transport.connect).errors.values():
        if isinstance(error, HostKeyError):
            raise error


def once_it_answers(
    work: Callable[[], T],
    wait_s: float = 0.0,
    *,
    waiting: Callable[[str], None] = lambda _why: None,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> T:
    """Return what ``work`` on a host returns; a host that is unreachable is tried again for ``wait_s``.

    It may still be booting.  After WAITING_S ``waiting`` is called once, with the reason.
    """
    began_s, reported = clock(), False
    while True:
        try:
            return work()
        except Unreachable as error:
            if clock() + PAUSE_S > began_s + wait_s:
                raise
            if not reported and clock() > began_s + WAITING_S:
                reported = True
                waiting(error.message)
            pause(PAUSE_S)
