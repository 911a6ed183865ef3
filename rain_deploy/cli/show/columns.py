"""Fit columns into the width of a screen: narrow the widest, then leave out what matters least."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from rich.cells import cell_len, set_cell_size

from rain_deploy.cli.show import text

BETWEEN = "  "
WIDEST = 200  # columns of the terminal that one column takes at most
NARROWEST = 7  # a column is not made narrower than this; another is left out instead


@dataclass(frozen=True)
class Column:
    """A head, and a cell for each row.  Of two columns, the one with the higher ``rank`` goes first."""

    head: str
    cells: tuple[str, ...]
    rank: int = 0  # 0: never left out
    right: bool = False
    least: int = NARROWEST
    widest: int = WIDEST

    @functools.cached_property
    def longest(self) -> int:
        return max(map(cell_len, (self.head, *self.cells)))

    @property
    def width(self) -> int:
        return min(self.longest, max(self.widest, self.least))


def one_line(value: str) -> str:
    """Return text of others as one line that steers no terminal."""
    return re.sub(r"\s+", " ", text.clean(value))


def column(
    head: str, cells: Iterable[str], *, rank: int = 0, right: bool = False, least: int = NARROWEST
) -> Column:
    """Return a column of texts that others may have made."""
    return Column(one_line(head), tuple(map(one_line, cells)), rank, right, least)


def fitted(columns: Sequence[Column], width: int) -> list[str]:
    """Return the line of the heads and a line for each row, at most ``width`` wide."""
    chosen = [one for one in columns if any(one.cells)]
    while len(chosen) > 1 and (over := _width(chosen) - width) > 0:
        slack = {place: one.width - one.least for place, one in enumerate(chosen) if one.width > one.least}
        least = max(chosen, key=lambda one: one.rank)
        if sum(slack.values()) >= over:
            wide = max(slack, key=lambda place: chosen[place].width)
            chosen[wide] = replace(chosen[wide], widest=chosen[wide].width - 1)
        elif least.rank:
            chosen.remove(least)
        else:
            break
    if not chosen:
        return []
    padded = [
        [_padded(cell, one.width, right=one.right) for cell in (one.head, *one.cells)] for one in chosen
    ]
    return [cut(BETWEEN.join(cells).rstrip(), width) for cells in zip(*padded, strict=True)]


def _width(columns: Sequence[Column]) -> int:
    return sum(one.width for one in columns) + len(BETWEEN) * (len(columns) - 1)


def _padded(cell: str, width: int, *, right: bool) -> str:
    cell = cut(cell, width)
    return " " * (width - cell_len(cell)) + cell if right else set_cell_size(cell, width)


def cut(line: str, width: int) -> str:
    """Return the line, with an ellipsis where it takes more columns of the terminal than ``width``."""
    return line if cell_len(line) <= width else set_cell_size(line, max(0, width - 1)).rstrip() + "…"
