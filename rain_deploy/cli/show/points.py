"""Text of points: a cell of a table, and a line for one point."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rain_deploy.cli.show import text
from rain_deploy.core.text import count, money, span
from rain_deploy.results.points import state_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rain_deploy.node.wire import Parameter, PointRow
    from rain_deploy.results.forecast import Forecast
    from rain_deploy.results.tally import Outlook

LONG_S = 60.0  # for what takes less time, other numbers of nodes are not worth a thought
STYLES = {"running": "cyan", "failed": "red", "submitted": "dim", "cancelled": "dim", "not run": "dim"}


def cell(value: Parameter | None) -> str:
    """Return a parameter or a value, with at most six digits."""
    if value is None:
        return ""
    if value != value:  # noqa: PLR0124  as points.csv has it
        return "NaN"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def line(row: PointRow) -> str:
    """Return ``lr=0.1 units=32: 0.93 (finished on node-2)`` of a point that has ended."""
    pairs = " ".join(f"{key}={cell(got)}" for key, got in row.values.items())
    returned = pairs if row.value is None else cell(row.value)
    value = f": {returned}" if returned else ""
    node = f" on {row.node}" if row.node and not row.cached else ""
    why = f": {row.message}" if row.message else ""
    return " ".join(text.clean(f"{row.title}{value} ({state_of(row)}{node}){why}").split())


def needs(forecasts: Iterable[Forecast], currency: str) -> str:
    """Return ``with 1 node about 8 min, 0.05 CHF; with 4 nodes about 2 min, 0.05 CHF``."""
    return "; ".join(f"with {count(one.nodes, 'node')} {about(one, currency)}" for one in forecasts)


def about(one: Forecast, currency: str) -> str:
    """Return ``about 8 min, 0.05 CHF``."""
    cost = f", {money(one.cost, currency)}" if currency else ""
    return f"about {span(max(1.0, one.seconds))}{cost}"


def outlook_lines(outlook: Outlook | None, currency: str) -> list[str]:
    """Return a line that says how far a run is and what the rest needs; none of a run that has ended."""
    if outlook is None:
        return []
    done = f"{outlook.done} of {count(outlook.points, 'point')} finished"
    if outlook.left is None:
        return [done]
    return [f"{done}; the rest takes {about(outlook.left, currency)}; {needs(outlook.others, currency)}"]
