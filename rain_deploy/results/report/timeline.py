"""Lay the tasks of a run out over its nodes and over time, with its attempts."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeGuard

from rain_deploy.core.text import count
from rain_deploy.node.wire import PointRow
from rain_deploy.results.report.charts import is_number, short

WIDE = 1000.0  # units from the start of the run to its end
MOST_BARS = 2000  # more are drawn as one where nobody could tell them apart
MOST_NODES = 64
MOST_LANES = 64  # of a node: tasks that run at the same time
_LATEST_S = 1e11  # the year 5138
_THIN = 1.0  # units; a bar is at least so wide
_UNKNOWN = "unknown node"
_ORDER = ("finished", "failed", "lost")
_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)


@dataclass(frozen=True, slots=True)
class Bar:
    """A task, or several that follow each other closely."""

    x: float
    width: float
    lane: int
    state: str
    title: str
    tasks: int = 1


@dataclass(frozen=True, slots=True)
class NodeLanes:
    """A node with its bars; tasks that run at the same time lie below each other."""

    name: str
    lanes: int
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True)
class Timeline:
    """All nodes, over one axis of time; ``ticks`` and ``attempts`` are places in percent, with labels."""

    nodes: tuple[NodeLanes, ...] = ()
    ticks: tuple[tuple[float, str], ...] = ()
    attempts: tuple[tuple[float, str], ...] = ()
    states: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class _Span:
    row: PointRow
    start_s: float
    end_s: float
    state: str


def timeline(tasks: Sequence[PointRow], started_s: object, ended_s: object) -> Timeline:
    """Return where each task is drawn that was executed; a kept result was not."""
    ran = [row for row in tasks if _is_time(row.started_s) and not row.cached]
    starts = [row.started_s or 0.0 for row in ran]
    if not starts:
        return Timeline()
    ends = [end for row in ran if (end := _end(row)) is not None]
    first_s = min([*starts, *([started_s] if _is_time(started_s) else [])])
    last_s = max([*starts, *ends, *([ended_s] if _is_time(ended_s) else [])])
    begins = _begins(ran)
    spans = [_span(row, begins, last_s) for row in ran]
    whole_s = max(last_s - first_s, 1e-3)
    by_node: dict[str, list[_Span]] = defaultdict(list)
    for span in sorted(spans, key=lambda span: span.start_s):
        by_node[span.row.node or _UNKNOWN].append(span)
    nodes = sorted(by_node, key=lambda name: (name == _UNKNOWN, len(name), name))
    laid = [_lay(name, by_node[name], first_s, whole_s) for name in nodes[:MOST_NODES]]
    if sum(len(node.bars) for node in laid) > MOST_BARS:
        laid = [replace(node, bars=tuple(_joined(node.bars))) for node in laid]
    more = len(nodes) - MOST_NODES
    marks = [((at - first_s) / whole_s * 100, f"attempt {number}") for number, at in begins if number > 1]
    return Timeline(
        nodes=tuple(laid),
        ticks=_ticks(whole_s),
        attempts=tuple(marks),
        states=tuple(sorted({bar.state for node in laid for bar in node.bars}, key=_order)),
        note=f"{count(more, 'more node')} not drawn" if more > 0 else "",
    )


def _is_time(value: object) -> TypeGuard[float]:
    """Return whether it can be a time since the epoch; a node may have sent anything."""
    return is_number(value) and 0 <= value < _LATEST_S


def _order(state: str) -> tuple[int, str]:
    return (_ORDER.index(state) if state in _ORDER else len(_ORDER)), state


def _end(row: PointRow) -> float | None:
    if _is_time(row.ended_s):
        return row.ended_s
    end_s = (row.started_s or 0.0) + (math.nan if row.duration_s is None else row.duration_s)
    return end_s if _is_time(end_s) else None


def _begins(ran: Iterable[PointRow]) -> list[tuple[int, float]]:
    """Return each attempt with the time of its first task."""
    begins: dict[int, float] = {}
    for row in ran:
        begins[row.attempt] = min(begins.get(row.attempt, math.inf), row.started_s or 0.0)
    return sorted(begins.items())


def _span(row: PointRow, begins: list[tuple[int, float]], last_s: float) -> _Span:
    """Return when the task ran; one without an end ran until its attempt, or all of it, ended."""
    start_s, end_s, state = row.started_s or 0.0, _end(row), row.state
    if end_s is None:
        end_s = min((at for number, at in begins if number > row.attempt), default=last_s)
        state = "lost" if end_s < last_s else row.state
    return _Span(row, start_s, max(start_s, end_s), state)


def _lay(name: str, spans: Sequence[_Span], first_s: float, whole_s: float) -> NodeLanes:
    free: list[float] = []  # when each lane is free again
    bars = []
    for span in spans:
        lane = next((lane for lane, at in enumerate(free) if at <= span.start_s), len(free))
        lane = min(lane, MOST_LANES - 1)
        free[lane : lane + 1] = [span.end_s]
        x = (span.start_s - first_s) / whole_s * WIDE
        width = max(_THIN, (span.end_s - span.start_s) / whole_s * WIDE)
        bars.append(
            Bar(round(min(x, WIDE - _THIN), 2), round(width, 2), lane, span.state, _title(span, first_s))
        )
    return NodeLanes(short(name), len(free), tuple(bars))


def _title(span: _Span, first_s: float) -> str:
    row = span.row
    named = short(row.name, 120) or f"task {row.task}"
    took = f"{span.end_s - span.start_s:.3g} s, from {span.start_s - first_s:.3g} s"
    return f"{named}: {span.state}, {took}{f', attempt {row.attempt}' if row.attempt > 1 else ''}"


def _joined(bars: Iterable[Bar]) -> list[Bar]:
    """Return the bars with neighbours in a lane joined where they are of one state and touch."""
    joined: list[Bar] = []
    last: dict[int, int] = {}
    for bar in bars:
        at = last.get(bar.lane)
        before = joined[at] if at is not None else None
        end = before.x + before.width if before else 0.0
        if before and at is not None and before.state == bar.state and bar.x - end < _THIN:
            tasks = before.tasks + 1
            width = max(end, bar.x + bar.width) - before.x
            joined[at] = replace(
                before, width=round(width, 2), tasks=tasks, title=f"{tasks} tasks: {bar.state}"
            )
        else:
            last[bar.lane] = len(joined)
            joined.append(bar)
    return joined


def _ticks(whole_s: float) -> tuple[tuple[float, str], ...]:
    """Return round times on the axis, about five of them."""
    step = next((step for step in _STEPS_S if whole_s / step <= 6), None)  # noqa: PLR2004
    if whole_s < _STEPS_S[0] * 2:
        step = 10 ** math.floor(math.log10(whole_s))
    elif step is None:
        step = math.ceil(whole_s / 5 / 86400) * 86400
    return tuple(
        (at * step / whole_s * 100, _time(at * step)) for at in range(math.floor(whole_s / step) + 1)
    )


def _time(seconds: float) -> str:
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= unit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds:.3g} s"
