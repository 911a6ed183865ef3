"""The points of a run as a table that fits the screen: the newest and those that run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from rain_deploy.cli.show import text
from rain_deploy.cli.show.columns import Column, column, cut, fitted
from rain_deploy.cli.show.points import STYLES, cell
from rain_deploy.node.wire import ENDED
from rain_deploy.results.points import WORDS, parameter_names, state_of, value_names

if TYPE_CHECKING:
    from rain_deploy.node.wire import PointRow
    from rain_deploy.results.tally import Tally

REASON_LEAST = 16  # columns; less of a reason says nothing
ALWAYS = 2  # so many parameters are never left out of a narrow table


def table_lines(tally: Tally, width: int, height: int) -> list[Text]:
    """Return the heads, a line for each point, and a last line that counts the points without a line."""
    rows = _shown(tally, height - 1)
    head, *lines = fitted(_columns(tally, rows), width)
    shown = [Text(line, _style(row)) for line, row in zip(lines, rows, strict=True)]
    return [Text(head, "bold"), *shown, *_rest(tally, rows, width)]


def _shown(tally: Tally, room: int) -> list[PointRow]:
    """Return all points if there is room, else those that ended last, run longest, and come next."""
    if len(tally.points) <= room:
        return list(tally.points.values())
    room -= 1  # for the line that counts the rest
    running = tally.longest_running(room // 2)
    rows = [*tally.newest(room - len(running)), *running]
    waiting = (row for row in tally.points.values() if row.state == "submitted")
    return [*rows, *(row for _, row in zip(range(room - len(rows)), waiting, strict=False))]


def _columns(tally: Tally, rows: Sequence[PointRow]) -> list[Column]:
    given = parameter_names(rows)
    returned = value_names(rows)
    took_s = (tally.age_s(row) if row.state == "running" else row.duration_s for row in rows)
    return [
        column("NO", (str(tally.number[row.session, row.task]) for row in rows), rank=6, right=True),
        column("NAME", ("" if row.parameters else row.name or f"task {row.task}" for row in rows)),
        *(
            column(
                name, (cell(row.parameters.get(name)) for row in rows), rank=3 * (at >= ALWAYS), right=True
            )
            for at, name in enumerate(given)
        ),
        column("VALUE", (cell(row.value) for row in rows), right=True),
        *(
            column(name, (cell(row.values.get(name)) for row in rows), rank=4 * (at > 0), right=True)
            for at, name in enumerate(returned)
        ),
        column("STATE", map(state_of, rows), rank=1),
        column("NODE", (row.node or "" for row in rows), rank=5),
        column("TOOK", map(text.seconds, took_s), rank=2, right=True),
        column("REASON", (row.message for row in rows), rank=7, least=REASON_LEAST),
    ]


def _style(row: PointRow) -> str:
    return "dim" if row.cached else STYLES.get(row.state, "")


def _rest(tally: Tally, rows: Sequence[PointRow], width: int) -> list[Text]:
    counts = tally.counts().copy()
    counts.subtract(row.state for row in rows)
    known = dict.fromkeys((*ENDED, "running", "submitted", *counts))
    states = [f"{counts[state]} {WORDS.get(state, state)}" for state in known if counts[state] > 0]
    return [Text(cut(f"… and {', '.join(states)}", width), "dim")] if states else []
