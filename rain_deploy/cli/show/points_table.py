"""Points as text: a column per parameter, a row per point; and one line per point that changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rain_deploy.cli.show import text
from rain_deploy.results.points import parameters

if TYPE_CHECKING:
    from rain_deploy.verbs.logs import PointRow, PointsResult


def points_table(result: PointsResult, width: int | None) -> str:
    """All rows, aligned."""
    if not result.rows:
        return f"run {result.run}: no points"
    names = list(dict.fromkeys(name for row in result.rows for name in parameters(row)))
    head = (">TASK", *(f">{name}" for name in names), ">VALUE", "STATE", "NODE", ">TOOK", "WHY")
    return text.table(head, [_row(row, names) for row in result.rows], width=width)


def _row(row: PointRow, names: list[str]) -> tuple[str, ...]:
    given = parameters(row)
    duration = row.get("duration_s")
    return (
        _cell(row.get("task")),
        *(_cell(given.get(name)) for name in names),
        _cell(row.get("value")),
        _cell(row.get("state")),
        _cell(row.get("node")),
        text.seconds(duration) if isinstance(duration, int | float) else "",
        _why(row),
    )


def _why(row: PointRow) -> str:
    return _cell(row.get("message")) if row.get("state") == "failed" else ""


def point_line(row: PointRow) -> str:
    """``accuracy 0.93  lr=0.1 units=32  finished on node-2`` of one changed point."""
    name = _cell(row.get("name")) or " ".join(f"{key}={value}" for key, value in parameters(row).items())
    value = f": {_cell(row['value'])}" if row.get("value") is not None else ""
    node = f" on {_cell(row.get('node'))}" if row.get("node") else ""
    why = f": {_why(row)}" if _why(row) else ""
    return text.clean(f"{_cell(row.get('task'))} {name}{value} ({_cell(row.get('state'))}{node}){why}")


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
