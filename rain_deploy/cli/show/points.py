"""Text of points: a cell of a table, and a line for one point."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rain_deploy.cli.show import text
from rain_deploy.results.points import state_of

if TYPE_CHECKING:
    from rain_deploy.node.wire import Parameter, PointRow

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
    name = row.name or " ".join(f"{key}={value}" for key, value in row.parameters.items())
    name = name or f"task {row.task}"
    pairs = " ".join(f"{key}={cell(got)}" for key, got in row.values.items())
    returned = pairs if row.value is None else cell(row.value)
    value = f": {returned}" if returned else ""
    node = f" on {row.node}" if row.node and not row.cached else ""
    why = f": {row.message}" if row.message else ""
    return " ".join(text.clean(f"{name}{value} ({state_of(row)}{node}){why}").split())
