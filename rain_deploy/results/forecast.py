"""Estimate how long a sweep still takes, from how long its points took.  Nothing here reads a clock.

The durations are kept as counts in buckets, so a forecast costs the same for 20 points and for 20,000.  A
point that still runs counts too: it takes at least as long as it has run.  Without it, the forecast of a
sweep whose points differ much would be too short, because the short points finish first.
"""

import bisect
import heapq
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from rain_deploy.core.text import HOUR_S

_SHORTEST_S = 1e-3
_BUCKET = math.log(1.04)  # durations in one bucket differ by at most 4 %
_DRAWN = 256  # points that are put on CPUs one by one; of more, the first share all CPUs evenly
_ROUNDS = 4  # each with other durations; the mean moves less than one of them
_GOLDEN = (math.sqrt(5) - 1) / 2
_MEAN_IS_KNOWN = 3.0  # after so many mean durations, the CPUs that the tasks really used are known


@dataclass
class Durations:
    """Counts durations.  What was added can be taken out again."""

    _buckets: dict[int, tuple[int, float]] = field(default_factory=dict)  # (how many, sum of seconds)

    def add(self, seconds: float, times: int = 1) -> None:
        """Add a duration, or with ``times=-1`` take it out."""
        bucket = math.floor(math.log(max(seconds, _SHORTEST_S)) / _BUCKET)
        number, total = self._buckets.get(bucket, (0, 0.0))
        self._buckets[bucket] = number + times, total + times * max(seconds, 0.0)
        if number + times <= 0:
            del self._buckets[bucket]

    def __len__(self) -> int:
        return sum(number for number, _ in self._buckets.values())

    @property
    def mean_s(self) -> float:
        return sum(total for _, total in self._buckets.values()) / max(1, len(self))

    def means(self) -> list[tuple[float, int]]:
        """Return the mean of each bucket and how many durations it holds, the shortest first."""
        return [(total / number, number) for _, (number, total) in sorted(self._buckets.items())]


@dataclass(frozen=True, slots=True)
class Sweep:
    """What is known of a sweep at one moment."""

    durations: Sequence[tuple[float, int]]  # of finished points, the shortest first, and how many took it
    ages_s: tuple[float, ...] = ()  # how long each running point has run
    waiting: int = 0
    cpus: float = 1.0  # how many points run at a time
    nodes: int = 1
    per_hour: float = 0.0  # price of all nodes

    @property
    def left(self) -> int:
        return len(self.ages_s) + self.waiting


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a number of nodes still needs for the rest of a sweep.  All of it is approximate."""

    nodes: int
    seconds: float
    cost: float


def forecast(sweep: Sweep, nodes: int = 0) -> Forecast | None:
    """Return what is left, with ``nodes`` nodes (0: those that there are); None before the first point."""
    if not sweep.durations or not sweep.left:
        return None
    nodes = nodes or sweep.nodes
    likely = _Likely(sweep.durations, sweep.ages_s)
    seconds = likely.makespan_s(sweep.ages_s, sweep.waiting, max(1.0, sweep.cpus * nodes / sweep.nodes))
    return Forecast(nodes, seconds, seconds / HOUR_S * sweep.per_hour * nodes / sweep.nodes)


def others(sweep: Sweep) -> tuple[Forecast, ...]:
    """Return the forecasts for half as many nodes, twice as many and four times as many."""
    numbers = {max(1, sweep.nodes // 2), sweep.nodes * 2, sweep.nodes * 4} - {sweep.nodes}
    return tuple(found for number in sorted(numbers) if (found := forecast(sweep, number)))


class _Likely:
    """How long a point probably takes: the Kaplan-Meier estimate from those that ended and those that run."""

    def __init__(self, durations: Sequence[tuple[float, int]], ages_s: Sequence[float]) -> None:
        ages, alive, share = sorted(ages_s), sum(number for _, number in durations) + len(ages_s), 1.0
        at_risk, younger = alive, 0
        self._seconds: list[float] = []
        weights: list[float] = []
        for seconds, number in durations:
            passed = bisect.bisect_left(ages, seconds)
            at_risk -= passed - younger
            younger = passed
            weights.append(share * number / at_risk)
            self._seconds.append(seconds)
            share -= weights[-1]
            at_risk -= number
        if share > 1e-9 and ages:  # noqa: PLR2004  some run longer than every point that ended
            known_s = sum(map(float.__mul__, self._seconds, weights)) / (1 - share)
            self._seconds.append(ages[-1] + known_s / 2)
            weights.append(share)
        self._shares = [*accumulate(weights)]
        self._mean_s = sum(map(float.__mul__, self._seconds, weights)) / self._shares[-1]

    def duration_s(self, share: float, *, over_s: float = 0.0) -> float:
        """Return the duration that this share of the points that take longer than ``over_s`` stays under."""
        before = bisect.bisect_right(self._seconds, over_s)
        low = self._shares[before - 1] if before else 0.0
        wanted = low + share * (self._shares[-1] - low)
        place = bisect.bisect_left(self._shares, wanted, lo=min(before, len(self._seconds) - 1))
        return self._seconds[min(place, len(self._seconds) - 1)]

    def makespan_s(self, ages_s: Sequence[float], waiting: int, cpus: float) -> float:
        """Return when the last point ends, if each CPU takes the next point when it is free."""
        slots = math.ceil(cpus - 1e-6)
        drawn = min(waiting, max(_DRAWN, 2 * slots))
        evenly_s = (waiting - drawn) * self._mean_s / slots
        rounds = []
        for turn in range(_ROUNDS):
            shares = _spread(turn / _ROUNDS)
            rest = [max(0.0, self.duration_s(next(shares), over_s=age) - age) for age in ages_s]
            work = (*rest, *(self.duration_s(next(shares)) for _ in range(drawn)))
            rounds.append(_last_end_s(work, slots))
        return (evenly_s + sum(rounds) / _ROUNDS) * slots / cpus


def _spread(start: float) -> Iterator[float]:
    """Yield numbers that fill 0 to 1 evenly."""
    while True:
        start = (start + _GOLDEN) % 1.0
        yield start


def _last_end_s(work: Iterable[float], slots: int) -> float:
    """Return when all work is done; the next piece starts on the slot that is free first."""
    free = [0.0] * slots
    for seconds in work:
        heapq.heapreplace(free, free[0] + seconds)
    return max(free)


def used_cpus(busy_s: float, span_s: float, mean_s: float, cpus: int) -> float:
    """Return how many points ran at a time: ``cpus``, until enough was seen of ``busy_s`` of work.

    It is fewer if each task asks for several CPUs, or if the script does not keep all of them busy.
    """
    if span_s < _MEAN_IS_KNOWN * mean_s or span_s <= 0:
        return float(cpus)
    return min(float(cpus), max(1.0, busy_s / span_s))
