"""How long the cloud is waited for, and how often it is asked."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

_FIRST_S, _GROWTH, _LONGEST_S, _JITTER = 0.2, 1.6, 3.0, 0.2
_random = random.SystemRandom()
SLEPT_S = 120.0
"""No request (with its name look-up) and no pause takes so much longer than planned, unless all slept."""


@dataclass(frozen=True, slots=True)
class Patience:
    """Deadlines in seconds; clock and pause are injectable."""

    clock: Callable[[], float] = time.monotonic
    pause: Callable[[float], None] = time.sleep
    api_s: float = 150.0
    """Until a call that the API does not answer properly fails."""
    settle_s: float = 120.0
    """Until what is in no list counts as not made: lists lag."""
    operation_s: float = 600.0
    source_ip_s: float = 20.0
    """Until the event that tells the operator's address must have appeared."""
    connect_s: float = 10.0
    answer_s: float = 30.0
    """Longest silence of the API within one request."""

    def pauses(self) -> Iterator[float]:
        """Pauses between looks: the first soon, then growing to 3 s, with jitter; without end."""
        length_s = _FIRST_S
        while True:
            yield length_s * _random.uniform(1 - _JITTER, 1 + _JITTER)
            length_s = min(_LONGEST_S, length_s * _GROWTH)

    def late(self, told_s: float) -> float:
        """A bit more than was asked for, so that not all threads come back at once."""
        return told_s + _random.uniform(0, 0.1 + told_s * _JITTER)

    def watch(self, limit_s: float) -> Watch:
        """Start a deadline."""
        return Watch(self, limit_s)


class Watch:
    """A deadline that does not count the time in which this process slept (a closed laptop, SIGSTOP).

    Look first, ask ``over`` after: then there was a look after every sleep.  Not thread-safe.
    """

    def __init__(self, patience: Patience, limit_s: float) -> None:
        self._patience = patience
        self._left_s = limit_s
        self._read_s = patience.clock()

    @property
    def left_s(self) -> float:
        """Seconds that are left; negative when it is over."""
        self._count(0.0)
        return self._left_s

    @property
    def over(self) -> bool:
        return self.left_s <= 0

    def pause(self, seconds: float) -> None:
        self._count(0.0)
        self._patience.pause(seconds)
        self._count(seconds)

    def _count(self, planned_s: float) -> None:
        now = self._patience.clock()
        gap_s, self._read_s = now - self._read_s, now
        self._left_s -= gap_s if gap_s <= planned_s + SLEPT_S else planned_s
