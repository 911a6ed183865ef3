"""Put a report together.  The template escapes what others wrote, also what does not print."""

import functools
import math
import shlex
import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import jinja2

from rain_deploy import __version__
from rain_deploy.core.text import duration
from rain_deploy.node.wire import Parameter, PointRow
from rain_deploy.parts.shell import templates_directory
from rain_deploy.results import points
from rain_deploy.results.report.charts import Chart, axes, charts, is_number, label, measured
from rain_deploy.results.report.figures import data_uri, pictures
from rain_deploy.results.report.sweep import Sweep
from rain_deploy.results.report.timeline import timeline

_LONG = 160  # letters of a cell that are shown at once; the rest opens on a click
_MOST_LEFT = 100  # names that stay on the node
_LANE_PX, _LEAST_LANE_PX, _LANES_PX = 16, 5, 320  # height of a task in the timeline, and of all
_KINDS = {"finished": "finished", "failed": "failed", "lost": "lost"}  # colours of states


class Cell(NamedTuple):
    """A cell of the table of points."""

    text: str
    by: str = ""  # what it is sorted by, where that is not its text
    number: bool = False


class Extreme(NamedTuple):
    """The points with the lowest and the highest of one kind of value."""

    name: str
    lowest: str
    where_lowest: str
    highest: str
    where_highest: str


def page(sweep: Sweep, draw: Callable[[Chart], str]) -> str:
    """Return the page; ``draw`` makes a picture of a chart, as SVG."""
    rows, made = sweep.points, sweep.manifest
    drawn, undrawn = charts(rows)
    head, body = _table(rows)
    spent = timeline(sweep.tasks, made.get("started_s"), made.get("ended_s"))
    return _template().render(
        run=str(made["run"]),
        script=str(made.get("script", "")),
        outcome=str(made.get("outcome") or "not ended"),
        good=made.get("outcome") == "done" and not any(row.state == "failed" for row in rows),
        facts=list(_facts(sweep)),
        warnings=[str(one) for one in made.get("warnings") or []],
        left=[(str(one.get("path")), str(one.get("why"))) for one in made.get("left_on_node") or []],
        left_more=made.get("left_on_node_unnamed") or 0,
        pictures=pictures(sweep.directory, made),
        charts=[(chart, *_drawn(chart, draw)) for chart in drawn],
        undrawn=undrawn,
        constants=[
            f"{one.name} is {one.constant:.6g} at {'each' if len(rows) > 1 else 'the only'} point that has it"
            for one in measured(rows)
            if one.constant is not None
        ],
        extremes=[
            extreme for one in measured(rows) if (extreme := _extreme(one.rows, one.numbers, one.name))
        ],
        head=head,
        rows=body,
        rows_count=len(rows),
        long=_LONG,
        most_left=_MOST_LEFT,
        kinds=_KINDS,
        height=max(_LEAST_LANE_PX, min(_LANE_PX, _LANES_PX // max(1, sum(one.lanes for one in spent.nodes)))),
        failed=sum(row.state == "failed" for row in rows),
        timeline=spent,
        version=__version__,
        digest=str(made.get("script_sha256") or ""),
    )


def _drawn(chart: Chart, draw: Callable[[Chart], str]) -> tuple[str, str]:
    """Return the picture as data, or why there is none: that costs no more than this picture."""
    try:
        return data_uri(draw(chart).encode(), "image/svg+xml"), ""
    except Exception as error:  # noqa: BLE001 - a library on values of any kind
        return "", f"{type(error).__name__}: {error}"


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(templates_directory()),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: clean(value) if type(value) is str else value,
    )
    return environment.get_template("report.html.j2")


def clean(text: str) -> str:
    """Return text of others; what does not print, or turns the direction of writing, is an escape."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in "\n\t" else char.encode("unicode_escape").decode()
        for char in text
    )


def _facts(sweep: Sweep) -> Iterable[tuple[str, str]]:
    made = sweep.manifest
    code = made.get("exit_code")
    yield "Outcome", f"{made.get('outcome') or 'not ended'}{f', exit code {code}' if code else ''}"
    if states := points.count_states(sweep.points):
        yield "Points", ", ".join(f"{number} {state}" for state, number in states.items())
    started, ended = made.get("started_s"), made.get("ended_s")
    if is_number(started):
        yield "Started", moment(float(started))
        if is_number(ended):
            yield "Took", duration(float(ended) - float(started))
    nodes = [str(node) for node in made.get("nodes") or []]
    missing = [str(node) for node in made.get("missing_nodes") or []]
    without = f" (without {', '.join(missing)})" if missing else ""
    yield "Nodes", f"{len(nodes)}: {', '.join(nodes)}{without}" if nodes else "none"
    if (attempts := made.get("attempts")) and attempts != 1:
        yield "Attempts", str(attempts)
    if cost := made.get("cost"):
        yield "Cost", str(cost)
    yield "Script", str(made.get("script", ""))
    if args := made.get("args"):
        yield "Arguments", shlex.join(str(arg) for arg in args)
    if versions := made.get("versions"):
        yield "Versions", ", ".join(f"{name} {version}" for name, version in versions.items())
    yield "Run", str(made["run"])


def moment(at_s: float) -> str:
    """Return an hour in local time, with its zone."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(at_s))
    except (ValueError, OverflowError, OSError):
        return ""


def _extreme(rows: Sequence[PointRow], numbers: Sequence[float | None], name: str) -> Extreme | None:
    there = [(number, row) for number, row in zip(numbers, rows, strict=True) if number is not None]
    lowest = min(there, key=lambda one: one[0])
    highest = max(there, key=lambda one: one[0])
    if lowest[0] == highest[0]:
        return None
    varied = [axis.name for axis in axes(rows)]
    return Extreme(
        name, *(text for one in (lowest, highest) for text in (f"{one[0]:.6g}", _where(one[1], varied)))
    )


def _where(row: PointRow, varied: Sequence[str]) -> str:
    pairs = " ".join(f"{name}={label(row.parameters.get(name))}" for name in varied)
    return pairs or row.name or f"task {row.task}"


def _table(rows: Sequence[PointRow]) -> tuple[list[Cell], Iterable[list[Cell]]]:
    """Return the head of the table and its rows; a column that is empty everywhere is left out."""
    parameters = points.parameter_names(rows)
    columns: list[tuple[str, Callable[[PointRow], Cell]]] = [
        ("name", lambda row: Cell("" if row.parameters else row.name)),
        *((name, lambda row, name=name: _cell(row.parameters.get(name))) for name in parameters),
        ("value", lambda row: _cell(row.value)),
        *((name, lambda row, name=name: _cell(row.values.get(name))) for name in points.value_names(rows)),
        ("state", lambda row: Cell(points.state_of(row))),
        ("node", lambda row: Cell(row.node or "")),
        ("seconds", lambda row: _cell(row.duration_s, digits=3)),
        ("reason", lambda row: Cell(row.message)),
    ]
    filled = [[cell_of(row) for row in rows] for _, cell_of in columns]
    kept = [number for number, cells in enumerate(filled) if any(cell.text for cell in cells)]
    numbers = [Cell(str(number), number=True) for number in range(1, len(rows) + 1)]
    head = [Cell(columns[at][0], number=any(cell.number for cell in filled[at])) for at in kept]
    body = zip(numbers, *(filled[at] for at in kept), strict=True)
    return [Cell("no", number=True), *head], map(list, body)


def _cell(value: Parameter | None, digits: int = 6) -> Cell:
    if value is None:
        return Cell("")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return Cell(str(value))
    if isinstance(value, float) and math.isfinite(value):
        text, whole = f"{value:.{digits}g}", repr(value)
        return Cell(text, "" if whole == text else whole, number=True)
    return Cell("NaN" if value != value else str(value), number=True)  # noqa: PLR0124
