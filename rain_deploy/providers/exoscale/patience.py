"""Deadlines and pauses of the waits for the cloud."""

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from rain_deploy import workers

T = TypeVar("T")
_FIRST_S, _GROWTH, _LONGEST_S, _JITTER = 0.2, 1.6, 3.0, 0.2
_random = random.SystemRandom()
SUSPENDED_S = 120.0  # A gap that is longer than planned by this much means that the machine was suspended
SILENT_S = 3.0  # no wait is longer without a word


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
    notice: Callable[[str], None] = lambda _sentence: None
    """Gets a sentence about each wait that becomes longer than SILENT_S."""

    def pauses(self) -> Iterator[float]:
        """Yield pauses between attempts, without end: short at first, then up to 3 s, with jitter."""
        length_s = _FIRST_S
        while True:
            yield length_s * _random.uniform(1 - _JITTER, 1 + _JITTER)
            length_s = min(_LONGEST_S, length_s * _GROWTH)

    def rounds(self, limit_s: float, waits_for: str) -> Iterator[None]:
        """Yield at once, then after each pause, the last time when ``limit_s`` has passed.

        ``waits_for`` is shown to the user when it takes longer than SILENT_S.
        """
        watch, silence = Watch(self, limit_s), Silence(self, f"{waits_for} (up to {limit_s:.0f} s)")
        for pause_s in self.pauses():
            yield
            if watch.left_s <= 0:
                return
            pause_s = min(pause_s, max(watch.left_s, 0.01))  # noqa: PLW2901 - the last one ends with the limit
            silence.before(pause_s)
            watch.pause(pause_s)

    def search(self, find: Callable[[], T | None], limit_s: float, what: str) -> T | None:
        """Look at least once, and again until something is found or ``limit_s`` have passed: lists lag."""
        looks = (find() for _ in self.rounds(limit_s, f"Exoscale's lists to show {what}, if it exists"))
        return next((found for found in looks if found is not None), None)

    def spread(self, seconds: float) -> float:
        """Return a little more than ``seconds``, so that threads do not all come back at once."""
        return seconds + _random.uniform(0, 0.1 + seconds * _JITTER)


class Silence:
    """Says once what is waited for, before a pause in which the wait becomes longer than SILENT_S."""

    def __init__(self, patience: Patience, waits_for: str) -> None:
        self._patience = patience
        self._sentence = f"waiting for {waits_for}"
        self._until_s = patience.clock() + SILENT_S

    def before(self, pause_s: float) -> None:
        """Say what is waited for if the wait becomes too long with this pause."""
        if self._sentence and self._patience.clock() + pause_s > self._until_s:
            self._patience.notice(self._sentence)
            self._sentence = ""


class Voice:
    """Says one sentence for all threads that wait for the same thing, and nothing else meanwhile."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._lock = threading.Lock()
        self._quiet_until_s = 0.0

    def say(self, sentence: str, quiet_s: float) -> None:
        """Say the sentence, unless something was said; then say nothing more for ``quiet_s``."""
        now_s = self._patience.clock()
        with self._lock:
            if now_s < self._quiet_until_s:
                return
            self._quiet_until_s = now_s + quiet_s
        self._patience.notice(sentence)

    @contextlib.contextmanager
    def unless_soon(self, sentence: str, quiet_s: float) -> Iterator[None]:
        """Say the sentence if the work inside takes longer than SILENT_S."""
        timer = threading.Timer(SILENT_S, self.say, (sentence, quiet_s))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


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
        """Return the seconds that are left; negative after the deadline."""
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
