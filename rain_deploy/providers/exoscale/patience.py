"""How long to wait for the cloud, and how often to ask."""

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from rain_deploy import workers

T = TypeVar("T")
_FIRST_S, _GROWTH, _LONGEST_S, _JITTER = 0.2, 1.6, 3.0, 0.2
_random = random.SystemRandom()
SUSPENDED_S = 120.0  # A gap that is longer than planned by this much means that the machine was suspended


@dataclass(frozen=True, slots=True)
class Patience:
    """Deadlines in seconds; clock and pause are injectable."""

    clock: Callable[[], float] = time.monotonic
    pause: Callable[[float], None] = workers.pause
    api_s: float = 150.0  # until a call without a proper answer fails
    settle_s: float = 120.0  # until a resource that no list shows counts as not made: lists lag
    operation_s: float = 600.0
    source_ip_s: float = 20.0  # until the event with the operator's address must have appeared
    connect_s: float = 10.0
    answer_s: float = 30.0  # longest silence of the API within one request

    def pauses(self) -> Iterator[float]:
        """Yield pauses between attempts, without end: short at first, then up to 3 s, with jitter."""
        length_s = _FIRST_S
        while True:
            yield length_s * _random.uniform(1 - _JITTER, 1 + _JITTER)
            length_s = min(_LONGEST_S, length_s * _GROWTH)

    def rounds(self, limit_s: float) -> Iterator[None]:
        """Yield at once, then after each pause, the last time when ``limit_s`` has passed."""
        watch = Watch(self, limit_s)
        for pause_s in self.pauses():
            yield
            if watch.left_s <= 0:
                return
            watch.pause(pause_s)

    def search(self, find: Callable[[], T | None], limit_s: float) -> T | None:
        """Look at least once, and again until something is found or ``limit_s`` have passed: lists lag."""
        looks = (find() for _ in self.rounds(limit_s))
        return next((found for found in looks if found is not None), None)

    def spread(self, seconds: float) -> float:
        """Return a little more than ``seconds``, so that threads do not all come back at once."""
        return seconds + _random.uniform(0, 0.1 + seconds * _JITTER)


class Watch:
    """A deadline that does not count the time in which this process was suspended (closed laptop, SIGSTOP).

    Make an attempt first and read ``left_s`` after it, so that an attempt follows every suspension.
    Not thread-safe.
    """

    def __init__(self, patience: Patience, limit_s: float) -> None:
        self._patience = patience
        self._left_s = limit_s
        self._read_s = patience.clock()

    @property
    def left_s(self) -> float:
        """Seconds that are left; negative when the deadline has passed."""
        self._count(0.0)
        return self._left_s

    def pause(self, seconds: float) -> None:
        self._count(0.0)
        self._patience.pause(seconds)
        self._count(seconds)

    def _count(self, planned_s: float) -> None:
        now = self._patience.clock()
        gap_s, self._read_s = now - self._read_s, now
        self._left_s -= gap_s if gap_s <= planned_s + SUSPENDED_S else planned_s
