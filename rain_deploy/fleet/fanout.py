"""The same work on many hosts at once; every outcome is collected, none hides another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from rain_deploy.core.model import Host
from rain_deploy.errors import RainDeployError

T = TypeVar("T")

MAX_AT_ONCE = 64
"""Threads of one fan-out (reference figures: more gain nothing below 64 hosts)."""


@dataclass(frozen=True, slots=True)
class Outcomes(Generic[T]):
    """What came of the work, by host name; each host is in one of the two."""

    values: Mapping[str, T]
    errors: Mapping[str, RainDeployError]

    def require(self) -> Mapping[str, T]:
        """The values, or the first error when any host failed, with the names of all that failed."""
        if not self.errors:
            return self.values
        first = next(iter(self.errors.values()))
        if len(self.errors) > 1:
            others = ", ".join(list(self.errors)[1:])
            first.message += f" (failed as well: {others})"
        raise first


def fan_out(hosts: tuple[Host, ...], work: Callable[[Host], T]) -> Outcomes[T]:
    """Run ``work`` for each host in threads.  Only RainDeployError is an outcome; a bug is raised."""
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
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()
    return Outcomes(values, errors)
