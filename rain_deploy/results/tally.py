"""Counts the tasks of a run while their rows come.  A row costs the same, however many there were before."""

import itertools
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from rain_deploy.core.events import NodesSeen, PointSeen, RunNodes
from rain_deploy.node.wire import Parameter, PointRow
from rain_deploy.results.forecast import Durations, Forecast, Sweep, forecast, others, used_cpus

Key = tuple[int, int]  # session and task
FORECAST_EVERY_S = 1.0
_NEWEST = 500  # ended points whose order is kept: more than a screen shows
_LONGEST_TEXT = 200  # of what is kept of a name or a text
_MOST_CELLS = 24  # parameters and values that are kept of a point


@dataclass
class Tally:
    """The points of a run, or, while there are none, its tasks."""

    clock: Callable[[], float] = time.time
    nodes: RunNodes = field(default_factory=lambda: RunNodes({}))
    busy: dict[str, int] = field(default_factory=dict)  # percent of a node's CPUs
    points: dict[Key, PointRow] = field(default_factory=dict)  # in the order in which they were submitted
    running: dict[Key, float] = field(default_factory=dict)  # since when, by the nodes' clock; oldest first
    number: dict[Key, int] = field(default_factory=dict)  # of each point, from 1
    kept: int = 0  # finished points that did not run, because their results were in the journal
    by_node: Counter[str] = field(default_factory=Counter)  # points that ended on each node

    def __post_init__(self) -> None:
        self._states: Counter[str] = Counter()
        self._tasks: dict[Key, str] = {}  # states of tasks that are no points
        self._task_states: Counter[str] = Counter()
        self._newest: deque[Key] = deque(maxlen=_NEWEST)
        self._durations, self._known = Durations(), Durations()  # of this attempt; of results that were kept
        self._attempt = 0
        self._at_once = 1  # the most points that were seen to run at the same time
        self._ahead_s: float | None = None  # the nodes' clock minus ours, at least
        self._first_s: float | None = None  # when the first point of this attempt started
        self._heard_s = 0.0  # the newest moment that a row of this attempt names
        self._busy_s = 0.0  # how long the points of this attempt ran, of those that ended
        self._ahead: tuple[float, Forecast | None, tuple[Forecast, ...]] = (-math.inf, None, ())
        self._used: float | None = None  # CPUs that were busy while points waited

    def see(self, event: PointSeen | RunNodes | NodesSeen) -> None:
        """Take note of an event of the run."""
        match event:
            case PointSeen(row):
                self.add(row)
            case RunNodes():
                self.nodes = event
            case NodesSeen(busy, now_s):
                self.busy = busy
                self.hear(now_s)

    def add(self, row: PointRow) -> None:
        """Take the new state of a task."""
        key = row.session, row.task
        if row.attempt > self._attempt:
            self._begin(row.attempt)
        for moment_s in (row.started_s, row.ended_s):
            if moment_s is not None and not row.cached:
                self.hear(moment_s)
                self._heard_s = max(self._heard_s, moment_s)
        if key in self._tasks:
            self._task_states[self._tasks.pop(key)] -= 1
        if not row.point:
            self._forget(key)
            self._tasks[key] = row.state
            self._task_states[row.state] += 1
            return
        old = self._forget(key, keep_place=True)
        row = self.points[key] = _short(row)
        self.number.setdefault(key, len(self.number) + 1)
        self._count(key, row, 1)
        if row.ended and (old is None or not old.ended or old.attempt < row.attempt):
            self._newest.append(key)

    @property
    def cpus(self) -> int:
        """Return how many points can run at a time, or as many as were seen to run if that is not known."""
        return sum(self.nodes.cpus.values()) or self._at_once

    def hear(self, node_now_s: float) -> None:
        """Take a moment of the nodes' clock that has passed."""
        ahead_s = node_now_s - self.clock()
        self._ahead_s = ahead_s if self._ahead_s is None else max(self._ahead_s, ahead_s)

    @property
    def now_s(self) -> float:
        """Return what the nodes' clock shows, as far as we know."""
        return self.clock() + (self._ahead_s or 0.0)

    def counts(self) -> Counter[str]:
        """Return how many points are in each state, or else how many tasks."""
        return self._states if self.points else self._task_states

    def count_texts(self) -> list[str]:
        """Return ``12/20 done``, ``2 running``, ``1 failed``, ``5 cached``."""
        counts, noun = self.counts(), "" if self.points else " tasks"
        more = [(counts[state], state) for state in ("running", "failed")]
        more.append((self.kept, "cached"))
        done = f"{counts['finished']}/{counts.total()}{noun} done"
        return [done, *(f"{number} {what}" for number, what in more if number)]

    def newest(self, most: int) -> list[PointRow]:
        """Return the points that ended last, the newest last."""
        found: dict[Key, None] = {}
        for key in reversed(self._newest):
            if len(found) >= most:
                break
            if key in self.points and self.points[key].ended:
                found[key] = None
        return [self.points[key] for key in reversed(found)]

    def longest_running(self, most: int) -> list[PointRow]:
        """Return the points that have run longest."""
        return [self.points[key] for key in itertools.islice(self.running, most)]

    def age_s(self, row: PointRow) -> float:
        """Return how long a running point has run."""
        return max(0.0, self.now_s - self.running.get((row.session, row.task), self.now_s))

    @property
    def sweep(self) -> Sweep:
        """Return what a forecast needs: it is about the points, without those that failed or were kept."""
        now_s, known = self.now_s, self._durations if len(self._durations) else self._known
        if self._states["submitted"]:
            self._used = self._busy_cpus()
        return Sweep(
            durations=known.means(),
            ages_s=tuple(max(0.0, now_s - since_s) for since_s in self.running.values()),
            waiting=self._states["submitted"],
            cpus=self._used or float(self.cpus),
            nodes=max(1, len(self.nodes.cpus)),
            per_hour=self.nodes.per_hour,
        )

    @property
    def ran(self) -> Durations:
        """Return the durations of the points that finished, without those that were kept."""
        return self._durations

    @property
    def done(self) -> bool:
        """True once a point has finished."""
        return self._states["finished"] > 0

    def ahead(self) -> tuple[Forecast | None, tuple[Forecast, ...]]:
        """Return the forecasts for the nodes that there are and for others, at most a second old."""
        now_s, (made_s, left, more) = self.clock(), self._ahead
        if left is None or not 0 <= now_s - made_s < FORECAST_EVERY_S:
            sweep = self.sweep
            left, more = forecast(sweep), others(sweep)
            self._ahead = now_s, left, more
        return left, more

    @property
    def per_second(self) -> float | None:
        """Return how many points end in a second; None before the first."""
        mean_s = self._durations.mean_s
        return (self._used or float(self.cpus)) / mean_s if mean_s else None

    def _busy_cpus(self) -> float:
        if self._first_s is None or not len(self._durations):
            return float(self.cpus)
        busy_s = self._busy_s + sum(max(0.0, self._heard_s - since_s) for since_s in self.running.values())
        return used_cpus(busy_s, self._heard_s - self._first_s, self._durations.mean_s, self.cpus)

    def _begin(self, attempt: int) -> None:
        """Begin to count for a new attempt: what ran in the last one does not run any more."""
        self._attempt = attempt
        self._first_s, self._busy_s, self._used = None, 0.0, None
        for key in list(self.running):
            row = self.points[key]
            self._count(key, row, -1)
            self.points[key] = replace(row, state="submitted")
            self._count(key, self.points[key], 1)

    def _forget(self, key: Key, *, keep_place: bool = False) -> PointRow | None:
        if old := self.points.get(key):
            self._count(key, old, -1)
            if not keep_place:
                del self.points[key]
        return old

    def _count(self, key: Key, row: PointRow, times: int) -> None:
        """Add a point to all sums, or with ``times=-1`` take it out."""
        self._states[row.state] += times
        if row.state == "running":
            self._count_running(key, row, times)
        if not row.ended:
            return
        if row.node:
            self.by_node[row.node] += times
        if row.cached:
            self.kept += times * (row.state == "finished")
        if row.duration_s is None:
            return
        if row.state == "finished":
            (self._known if row.cached else self._durations).add(row.duration_s, times)
        if not row.cached and row.attempt == self._attempt:
            self._busy_s += times * row.duration_s
            if row.started_s is not None:
                self._first_s = _earlier(self._first_s, row.started_s)

    def _count_running(self, key: Key, row: PointRow, times: int) -> None:
        if times < 0:
            self.running.pop(key, None)
            return
        since_s = self.now_s if row.started_s is None else row.started_s
        self.running[key] = since_s
        self._first_s = _earlier(self._first_s, since_s)
        self._at_once = max(self._at_once, len(self.running))


@dataclass(frozen=True, slots=True)
class Outlook:
    """How far a run is, and about what the rest of it needs."""

    done: int
    points: int
    left: Forecast | None  # None before the first point has finished, and after the last
    others: tuple[Forecast, ...] = ()  # the same with other numbers of nodes


def outlook(rows: Iterable[PointRow], nodes: RunNodes, now_s: float) -> Outlook:
    """Return how far a run is whose newest rows these are, at a moment of the nodes' clock."""
    made = Tally(clock=lambda: now_s, nodes=nodes)
    for row in rows:
        made.add(row)
    made.hear(now_s)
    sweep, counts = made.sweep, made.counts()
    return Outlook(counts["finished"], counts.total(), forecast(sweep), others(sweep))


def with_others(rows: Iterable[PointRow], nodes: RunNodes) -> tuple[Forecast, ...]:
    """Return about what the points of a run that has ended would need with other numbers of nodes."""
    made = Tally(nodes=nodes)
    for row in rows:
        made.add(row)
    ran = made.ran
    return others(replace(made.sweep, ages_s=(), waiting=len(ran), durations=ran.means())) if len(ran) else ()


def _earlier(one_s: float | None, other_s: float) -> float:
    return other_s if one_s is None else min(one_s, other_s)


def _short(row: PointRow) -> PointRow:
    """Return the row with at most what a screen shows of it: values may have 64 KB."""
    return replace(
        row,
        name=row.name[:_LONGEST_TEXT],
        message=row.message[:_LONGEST_TEXT],
        value=_text(row.value),
        parameters=_cells(row.parameters),
        values=_cells(row.values),
    )


def _cells(given: dict[str, Parameter | None]) -> dict[str, Parameter | None]:
    first = itertools.islice(given.items(), _MOST_CELLS)
    return {name[:_LONGEST_TEXT]: _text(value) for name, value in first}


def _text(value: Parameter | None) -> Parameter | None:
    return value[:_LONGEST_TEXT] if isinstance(value, str) else value
