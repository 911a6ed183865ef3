"""Choose the pictures of a sweep: which parameters are on the axes, and which values are drawn."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeGuard

from rain_deploy.node.wire import Parameter, PointRow
from rain_deploy.results.points import value_names

MOST_PICTURES = 6
MOST_CELLS = 250  # of a heatmap, on each axis
MOST_SERIES = 8  # lines that a reader can tell apart
MOST_BARS = 40
MOST_PANELS = 6
_FEW = 12  # a parameter with more values than this was not chosen from a grid
_FILLED = 0.25  # the part of a grid's cells that must have a point
_LONGEST = 24  # letters of a label; the table has all of it
_LARGEST = 1e100  # beyond, and for what is not finite, there is no axis
_DECADES = 30.0  # highest to lowest, from which on an axis is logarithmic


@dataclass(frozen=True, slots=True)
class Axis:
    """A parameter with its values in order: numbers ascending, others as the script used them."""

    name: str
    values: tuple[Parameter, ...]

    @property
    def numeric(self) -> bool:
        return all(is_number(value) for value in self.values)

    @property
    def labels(self) -> list[str]:
        return [label(value) for value in self.values]

    @property
    def log(self) -> bool:
        return self.numeric and is_log(self.values)


@dataclass(frozen=True, slots=True)
class Chart:
    """What all pictures have: the value that they show, and a sentence on what is not plain to see."""

    value: str
    note: str

    @property
    def title(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class Heatmap(Chart):
    """A colour for each pair of parameters; None: no value."""

    x: Axis
    y: Axis
    cells: tuple[tuple[float | None, ...], ...]  # a row for each value of ``y``

    @property
    def title(self) -> str:
        return f"{self.value} by {short(self.y.name)} and {short(self.x.name)}"


@dataclass(frozen=True, slots=True)
class Lines(Chart):
    """A line over a numeric parameter for each value of another; one line without a name if there is none."""

    x: str
    by: str
    series: tuple[tuple[str, tuple[float, ...], tuple[float, ...]], ...]
    log: bool

    @property
    def title(self) -> str:
        return f"{self.value} by {short(self.x)}{f' and {short(self.by)}' if self.by else ''}"


@dataclass(frozen=True, slots=True)
class Bars(Chart):
    """A bar for each label."""

    by: str
    bars: tuple[tuple[str, float], ...]

    @property
    def title(self) -> str:
        return f"{self.value} by {self.by}"


@dataclass(frozen=True, slots=True)
class Clouds(Chart):
    """A panel for each numeric parameter, with a dot for each point."""

    panels: tuple[tuple[str, tuple[float, ...], tuple[float, ...], bool], ...]  # name, x, y, logarithmic

    @property
    def title(self) -> str:
        return f"{self.value} by each parameter"


@dataclass(frozen=True, slots=True)
class Measured:
    """One kind of value: its number at each point, None where there is none."""

    name: str
    rows: tuple[PointRow, ...]
    numbers: tuple[float | None, ...]

    @property
    def constant(self) -> float | None:
        """Return the number if it is the same at all points: then there is nothing to draw."""
        different = {number for number in self.numbers if number is not None}
        return different.pop() if len(different) == 1 else None

    def pairs(self) -> Iterable[tuple[PointRow, float | None]]:
        return zip(self.rows, self.numbers, strict=True)


def is_number(value: object) -> TypeGuard[int | float]:
    """Return whether it is a number that can be drawn."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < _LARGEST


def is_log(values: Iterable[object]) -> bool:
    """Return whether these numbers need a logarithmic axis: all positive, over more than a decade."""
    numbers = [float(value) for value in values if isinstance(value, int | float)]
    return min(numbers, default=0) > 0 and max(numbers) / min(numbers) >= _DECADES


def label(value: Parameter | None) -> str:
    """Return a value as it stands beside an axis."""
    if value is None:
        return "none"
    return f"{value:.4g}" if isinstance(value, float) else short(str(value))


def short(text: str, longest: int = _LONGEST) -> str:
    """Return text of others in one line that can be printed, with an ellipsis where it is long."""
    plain = "".join(char if char.isprintable() else "·" for char in text[: longest + 1])
    return plain if len(plain) <= longest else plain[: longest - 1] + "…"


def measured(rows: Sequence[PointRow]) -> list[Measured]:
    """Return each kind of value that has numbers: what the tasks returned, and its named parts."""
    names = value_names(rows)
    columns = [("value", [row.value for row in rows])]
    columns += [(name, [row.values.get(name) for row in rows]) for name in names]
    found = []
    for name, values in columns:
        numbers = tuple(float(one) if is_number(one) else None for one in values)
        if any(number is not None for number in numbers):
            found.append(Measured(short(name), tuple(rows), numbers))
    return found


def axes(rows: Sequence[PointRow]) -> list[Axis]:
    """Return the parameters that most points have and that differ, each with its values in order."""
    found = []
    had = Counter(name for row in rows for name, one in row.parameters.items() if one is not None)
    for name in (name for name, number in had.items() if number * 2 > len(rows)):
        values = {key(one): one for row in rows if (one := row.parameters.get(name)) is not None}
        if len(values) > 1:
            ordered = list(values.values())
            if all(is_number(one) for one in ordered):
                ordered.sort()
            found.append(Axis(name, tuple(ordered)))
    return found


def key(value: Parameter | None) -> tuple[bool, object]:
    """Return what tells values apart: ``True`` is not ``1``, and one NaN is like another."""
    other = isinstance(value, str | bool) or value is None
    return other, str(value) if other or value != value else value  # noqa: PLR0124


def charts(rows: Sequence[PointRow]) -> tuple[list[Chart], int]:
    """Return the pictures for these points, and how many values have none because there are too many."""
    found = [one for one in measured(rows) if one.constant is None]
    varied = axes(rows)
    return [_chart(one, varied) for one in found[:MOST_PICTURES]], max(0, len(found) - MOST_PICTURES)


def _chart(one: Measured, varied: list[Axis]) -> Chart:
    numeric = sorted((axis for axis in varied if axis.numeric), key=lambda axis: -len(axis.values))
    if not varied:
        return _bars(one, [])
    if len(varied) == 1:
        return _lines(one, varied, varied[0], None) if numeric else _bars(one, varied)
    if len(varied) == 2 and _is_grid(one, varied):  # noqa: PLR2004
        return _heatmap(one, *varied)
    if numeric and all(len(axis.values) <= _FEW for axis in varied):
        others = [axis for axis in varied if axis is not numeric[0] and len(axis.values) <= MOST_SERIES]
        return _lines(one, varied, numeric[0], min(others, key=lambda axis: len(axis.values), default=None))
    return _clouds(one, numeric) if numeric else _bars(one, varied)


def _is_grid(one: Measured, varied: Sequence[Axis]) -> bool:
    sizes = [len(axis.values) for axis in varied]
    cells = {tuple(key(row.parameters.get(axis.name)) for axis in varied) for row in one.rows}
    return max(sizes) <= MOST_CELLS and len(cells) >= _FILLED * math.prod(sizes)


def _means(
    one: Measured, varied: Sequence[Axis], *names: str
) -> tuple[dict[tuple[tuple[bool, object], ...], float], str]:
    """Return the mean value for each combination of these parameters, and a sentence if it is a mean."""
    groups: dict[tuple[tuple[bool, object], ...], list[float]] = defaultdict(list)
    for row, number in one.pairs():
        if number is not None:
            groups[tuple(key(row.parameters.get(name)) for name in names)].append(number)
    most = max(map(len, groups.values()))
    over = ", ".join(short(axis.name) for axis in varied if axis.name not in names)
    note = (
        f"Each value is the mean of up to {most} points{f', over {over}' * bool(over)}." if most > 1 else ""
    )
    return {at: math.fsum(numbers) / len(numbers) for at, numbers in groups.items()}, note


def _heatmap(one: Measured, first: Axis, second: Axis) -> Heatmap:
    means, note = _means(one, (), first.name, second.name)
    cells = tuple(tuple(means.get((key(y), key(x))) for x in second.values) for y in first.values)
    return Heatmap(one.name, note, second, first, cells)


def _lines(one: Measured, varied: Sequence[Axis], x: Axis, by: Axis | None) -> Lines:
    means, note = _means(one, varied, x.name, *([by.name] if by else []))
    series = []
    for value in by.values if by else [None]:
        tail = (key(value),) if by else ()
        drawn = [(float(at), means[key(at), *tail]) for at in x.values if (key(at), *tail) in means]
        if drawn:
            xs, ys = zip(*drawn, strict=True)
            series.append((label(value) if by else "", xs, ys))
    return Lines(one.name, note, x.name, by.name if by else "", tuple(series), x.log)


def _bars(one: Measured, varied: Sequence[Axis]) -> Bars:
    names = [axis.name for axis in varied]
    means, note = _means(one, varied, *names) if names else ({}, "")
    every: dict[object, tuple[str, float]] = {}  # in the order of the tasks
    for row, number in one.pairs():
        at = tuple(key(row.parameters.get(name)) for name in names)
        if number is not None and names:
            every[at] = ", ".join(label(row.parameters.get(name)) for name in names), means[at]
        elif number is not None:
            every[row.session, row.task] = short(row.name) or f"task {row.task}", number
    by = short(", ".join(names), 60) if names else "task"
    bars = list(every.values())
    if len(bars) > MOST_BARS:
        note = f"{note} These are the {MOST_BARS} highest of {len(bars)}.".strip()
        bars = sorted(bars, key=lambda bar: -bar[1])[:MOST_BARS]
    return Bars(one.name, note, by, tuple(bars))


def _clouds(one: Measured, numeric: Sequence[Axis]) -> Clouds:
    panels = []
    for axis in numeric[:MOST_PANELS]:
        drawn = [
            (float(at), number)
            for row, number in one.pairs()
            if number is not None and is_number(at := row.parameters.get(axis.name))
        ]
        if drawn:
            xs, ys = zip(*drawn, strict=True)
            panels.append((axis.name, xs, ys, axis.log))
    note = (
        f"{len(numeric) - MOST_PANELS} more parameters are not drawn." if len(numeric) > MOST_PANELS else ""
    )
    return Clouds(one.name, note, tuple(panels))
