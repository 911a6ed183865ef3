"""The points of a run over two numeric parameters: one cell for each pair of values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.text import Text

from rain_deploy.cli.show.columns import BETWEEN, cut, one_line
from rain_deploy.cli.show.points import STYLES, cell
from rain_deploy.core.text import span

if TYPE_CHECKING:
    from rain_deploy.node.wire import Parameter, PointRow
    from rain_deploy.results.tally import Tally

AXES = 2
SPARSE = 4  # a grid has at most this many cells for each point
NARROWEST, WIDEST = 6, 12  # columns of a cell; values come and go, and the grid stays where it is
Cells = list[list["PointRow | None"]]


def grid_lines(tally: Tally, width: int, height: int) -> list[Text]:
    """Return a line for each value of one parameter; none where two do not describe the points, or no room.

    The parameter that is named first goes down, unless only the other way fits.
    """
    if len(tally.points) > width * height:  # no grid of so many fits, so none of them is looked at
        return []
    seen: dict[str, dict[Parameter | None, None]] = {}
    for row in tally.points.values():
        for name, value in row.parameters.items():
            seen.setdefault(name, {})[value] = None
    axes = [name for name, values in seen.items() if len(values) > 1]
    numeric = all(isinstance(value, int | float) for name in axes for value in seen[name])
    if len(axes) != AXES or not numeric:
        return []
    values = {name: sorted(seen[name], key=lambda value: float(value or 0)) for name in axes}
    for down, across in (axes, axes[::-1]):
        where = {(row.parameters.get(down), row.parameters.get(across)): row for row in tally.points.values()}
        size = len(values[down]) * len(values[across])
        if len(where) < len(tally.points) or size > SPARSE * len(where) or len(values[down]) + 2 > height:
            continue
        cells = [[where.get((one, other)) for other in values[across]] for one in values[down]]
        lines = _lines(tally, (down, across), (values[down], values[across]), cells)
        if max(line.cell_len for line in lines[1:]) <= width:
            return [Text(cut(lines[0].plain, width), "bold"), *lines[1:]]
    return []


def _lines(
    tally: Tally, names: Sequence[str], values: Sequence[Sequence[Parameter | None]], cells: Cells
) -> list[Text]:
    shown = _most_common(row for line in cells for row in line if row)
    filled = [[_cell(tally, row, shown) for row in line] for line in cells]
    downs, acrosses = ([_short(cell(value)) for value in axis] for axis in values)
    wide = max(NARROWEST, *map(cell_len, (*acrosses, *(one for line in filled for one in line))))
    first = max(map(cell_len, downs))
    down, across = map(one_line, names)
    title = f"{one_line(shown)} over {down} (down) and {across} (across)".removeprefix(" ")
    head = BETWEEN.join((" " * first, *(_right(value, wide) for value in acrosses)))
    lines = [Text(title), Text(head, "bold")]
    for value, line, texts in zip(downs, cells, filled, strict=True):
        made = Text(_right(value, first), "bold")
        for row, one in zip(line, texts, strict=True):
            made.append(BETWEEN + _right(one, wide), _style(row))
        lines.append(made)
    return lines


def _most_common(rows: Iterable[PointRow]) -> str:
    """Return the name of the value that most points have; an empty text for the one without a name."""
    names = Counter(next(iter(row.values), "") for row in rows if row.values and row.value is None)
    return max(names, key=lambda name: names[name], default="")


def _style(row: PointRow | None) -> str:
    return "not bold dim" if row is None or row.cached else f"not bold {STYLES.get(row.state, '')}".strip()


def _cell(tally: Tally, row: PointRow | None, shown: str) -> str:
    if row is None:
        return ""
    if row.state == "finished":
        value = row.values.get(shown) if row.value is None else row.value
        return (
            "done" if value is None else _short(f"{value:.4g}" if isinstance(value, float) else cell(value))
        )
    return {"running": span(tally.age_s(row)), "failed": "failed"}.get(row.state, "·")


def _short(value: str) -> str:
    return cut(one_line(value), WIDEST)


def _right(value: str, width: int) -> str:
    return " " * (width - cell_len(value)) + value
