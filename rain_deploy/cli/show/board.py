"""The sweep on a terminal: a grid or a table of points that fills, and below it how the run goes.

A board costs as much as the lines that it has, however many points there are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from rain_deploy.cli.show.columns import cut, one_line
from rain_deploy.cli.show.grid import grid_lines
from rain_deploy.cli.show.points import LONG_S, needs
from rain_deploy.cli.show.table import table_lines
from rain_deploy.cli.show.text import BETWEEN, fitting
from rain_deploy.core.text import HOUR_S, MINUTE_S, count, money, span

if TYPE_CHECKING:
    from rain_deploy.results.forecast import Forecast
    from rain_deploy.results.tally import Tally

BAR = 20  # columns
SHARE = 2 / 3  # of the screen; above it, the script's output stays readable


def points_lines(tally: Tally, width: int, height: int) -> list[Text]:
    """Return the points in at most ``height`` lines."""
    return (grid_lines(tally, width, height) or table_lines(tally, width, height)) if tally.points else []


def board_lines(tally: Tally, passed_s: float, width: int, height: int, last: str = "") -> list[Text]:
    """Return the board for a screen of this size."""
    status = [Text(cut(line, width)) for line in status_lines(tally, passed_s, width, last) if line]
    return [*points_lines(tally, width, int(height * SHARE) - len(status)), *status]


def status_lines(tally: Tally, passed_s: float, width: int, last: str = "") -> list[str]:
    """Return how far the run is, how long it takes, what it costs, its nodes, and what others would do."""
    left, others = tally.ahead()
    done, all_ = tally.counts()["finished"], tally.counts().total()
    bar = ("━" * (BAR * done // all_)).ljust(BAR, "┄")
    time_ = span(passed_s) + (f", about {span(max(1.0, left.seconds))} left" if left else "")
    rate = _rate(tally.per_second) if left else ""
    parts = [time_, rate, cost_text(tally, passed_s, left), last]
    return [
        BETWEEN.join((bar, *tally.count_texts())),
        fitting(parts, width),
        _nodes(tally, width),
        f"the rest {needs(others, tally.nodes.currency)}" if left and left.seconds > LONG_S else "",
    ]


def cost_text(tally: Tally, passed_s: float, left: Forecast | None) -> str:
    """Return what the run has cost, and about what it will have cost at its end; empty if it is free."""
    if not tally.nodes.currency:
        return ""
    spent = passed_s / HOUR_S * tally.nodes.per_hour
    whole = f", about {money(spent + left.cost, tally.nodes.currency)} at the end" if left else ""
    return f"{money(spent, tally.nodes.currency)} so far{whole}"


def _nodes(tally: Tally, width: int) -> str:
    """Return what each node has done and how busy it is; of many nodes, as many as fit."""
    names = list(dict.fromkeys((*tally.nodes.cpus, *tally.by_node)))
    line = ""
    for number, name in enumerate(names):
        busy = f", CPU {tally.busy[name]} %" if name in tally.busy else ""
        next_ = f"{line}{BETWEEN * bool(line)}{one_line(name)} {tally.by_node[name]} done{busy}"
        rest = f"{BETWEEN}{len(names) - number} more"
        if len(next_) + len(rest) * (number < len(names) - 1) > width:
            return line + rest if line else count(len(names), "node")
        line = next_
    return line


def _rate(per_second: float | None) -> str:
    if not per_second:
        return ""
    for seconds, unit in ((1.0, "s"), (MINUTE_S, "min"), (HOUR_S, "h")):
        if per_second * seconds >= 1 or unit == "h":
            return f"{per_second * seconds:.1f} points/{unit}"
    return ""
