"""Put a report together.  The template escapes what others wrote, also what does not print."""

import functools
import math
import shlex
import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import jinja2

from rain_deploy import __version__
from rain_deploy.core.text import span
from rain_deploy.node.wire import Parameter, PointRow
from rain_deploy.parts.shell import templates_directory
from rain_deploy.results import points
from rain_deploy.results.report.charts import Chart, axes, charts, is_number, label, measured
from rain_deploy.results.report.figures import data_uri, pictures
from rain_deploy.results.report.sweep import Sweep
from rain_deploy.results.report.timeline import timeline

_LONG = 160  # letters of a cell that are shown at once; the rest opens on a click
_MOST_LEFT = 100  # names that stay on the node
_LANE_PX = 16
_KINDS = {"finished": "finished", "failed": "failed", "lost": "lost"}  # colours of states
_SHORT_S = 9.95  # below, tenths of a second say something


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
        charts=[(chart, data_uri(draw(chart).encode(), "image/svg+xml")) for chart in drawn],
        undrawn=undrawn,
        extremes=[
            extreme for one in measured(rows) if (extreme := _extreme(one.rows, one.numbers, one.name))
        ],
        head=_head(rows),
        rows=_table(rows),
        rows_count=len(rows),
        long=_LONG,
        most_left=_MOST_LEFT,
        kinds=_KINDS,
        height=_LANE_PX if len({row.node for row in sweep.tasks}) < 9 else _LANE_PX // 2,  # noqa: PLR2004
        failed=sum(row.state == "failed" for row in rows),
        timeline=timeline(sweep.tasks, made.get("started_s"), made.get("ended_s")),
        version=__version__,
    )


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
            yield "Took", seconds(float(ended) - float(started))
    nodes = [str(node) for node in made.get("nodes") or []]
    missing = [str(node) for node in made.get("missing_nodes") or []]
    without = f" (without {', '.join(missing)})" if missing else ""
    yield "Nodes", f"{len(nodes)}: {', '.join(nodes)}{without}" if nodes else "none"
    if (attempts := made.get("attempts")) and attempts != 1:
        yield "Attempts", str(attempts)
    if cost := made.get("cost"):
        yield "Cost", str(cost)
    yield "Script", str(made.get("script", ""))
    yield "Its SHA-256", str(made.get("script_sha256", ""))
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


def seconds(value: float) -> str:
    """Return ``4.2 s`` or ``3 min``."""
    return f"{value:.1f} s" if value < _SHORT_S else span(value)


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


def _head(rows: Sequence[PointRow]) -> list[str]:
    names, plain, values, named = _columns(rows)
    name = ["name"] if named else []
    return ["no", *name, *names, *(["value"] if plain else []), *values, "state", "node", "seconds", "reason"]


def _columns(rows: Sequence[PointRow]) -> tuple[list[str], bool, list[str], bool]:
    names = list(dict.fromkeys(name for row in rows for name in row.parameters))
    values = points.value_names(rows)
    plain = not values or any(row.value is not None for row in rows)
    return names, plain, values, any(row.name and not row.parameters for row in rows)


def _table(rows: Sequence[PointRow]) -> Iterable[list[Cell]]:
    names, plain, values, named = _columns(rows)
    for number, row in enumerate(rows, 1):
        state = f"{row.state} (kept)" if row.cached else row.state
        yield [
            Cell(str(number), number=True),
            *([Cell("" if row.parameters else row.name)] if named else []),
            *(_cell(row.parameters.get(name)) for name in names),
            *([_cell(row.value)] if plain else []),
            *(_cell(row.values.get(name)) for name in values),
            Cell(state),
            Cell(row.node or ""),
            _cell(row.duration_s),
            Cell(row.message),
        ]


def _cell(value: Parameter | None) -> Cell:
    if value is None:
        return Cell("")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return Cell(str(value))
    if isinstance(value, float) and math.isfinite(value):
        text, whole = f"{value:.6g}", repr(value)
        return Cell(text, "" if whole == text else whole, number=True)
    return Cell("NaN" if value != value else str(value), number=True)  # noqa: PLR0124
