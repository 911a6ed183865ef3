"""The sweep on a terminal: a grid or a table that fits, however many points and whatever their names are."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any

import pytest
from rich.cells import cell_len
from rich.text import Text

from rain_deploy.cli.show.board import board_lines, points_lines, status_lines
from rain_deploy.cli.show.grid import grid_lines
from rain_deploy.cli.show.table import table_lines
from rain_deploy.core.events import NodesSeen, RunNodes
from rain_deploy.node.wire import PointRow
from rain_deploy.results.tally import Tally

SCREENS = [(60, 20), (80, 24), (100, 30), (200, 60)]
HOSTILE = "[bold]x[/] \x1b[2J\x1b]0;title\x07 a\nb\r\tc \u202eright 宽宽宽 " + "long " * 50


def row(task: int, state: str = "finished", **more: Any) -> PointRow:
    return PointRow(task=task, session=1, state=state, point=True, **more)


def plain(lines: list[Text]) -> list[str]:
    return [line.plain for line in lines]


def tally(rows: list[PointRow], *, nodes: RunNodes | None = None, now_s: float = 100.0) -> Tally:
    made = Tally(clock=lambda: now_s, nodes=nodes or RunNodes({"node-1": 2, "node-2": 2}))
    for one in rows:
        made.add(one)
    made.hear(now_s)
    return made


def grid_of(states: dict[tuple[float, int], PointRow] | None = None) -> list[PointRow]:
    pairs = itertools.product((0.1, 0.2, 0.3), (8, 16, 32, 64))
    given = states or {}
    return [
        given.get(pair) or row(task, "submitted", parameters={"lr": pair[0], "units": pair[1]})
        for task, pair in enumerate(pairs)
    ]


def test_two_numeric_parameters_make_a_grid_of_values() -> None:
    rows = grid_of(
        {
            (0.1, 8): row(0, value=0.93, parameters={"lr": 0.1, "units": 8}),
            (0.1, 16): row(1, "running", started_s=58.0, parameters={"lr": 0.1, "units": 16}),
            (0.2, 8): row(4, "failed", parameters={"lr": 0.2, "units": 8}),
        }
    )
    assert plain(points_lines(tally(rows), 80, 20)) == [
        "over lr (down) and units (across)",
        "          8      16      32      64",
        "0.1    0.93    42 s       ·       ·",
        "0.2  failed       ·       ·       ·",
        "0.3       ·       ·       ·       ·",
    ]


def test_a_value_in_a_dict_is_named_above_the_grid() -> None:
    rows = [
        row(task, values={"accuracy": task / 8, "loss": 1.0}, parameters={"a": task // 2, "b": task % 2})
        for task in range(4)
    ]
    assert plain(points_lines(tally(rows), 80, 20)) == [
        "accuracy over a (down) and b (across)",
        "        0       1",
        "0       0   0.125",
        "1    0.25   0.375",
    ]


@pytest.mark.parametrize("newest", [{}, {"value": 7}, {"values": {"other": 1}}])
def test_a_grid_shows_the_values_that_there_are_whatever_ended_last(newest: dict[str, Any]) -> None:
    made: list[dict[str, Any]] = [
        {"values": {"acc": 0.5}},
        {"values": {"acc": 0.25, "loss": 1}},
        {"value": 3},
        newest,
    ]
    rows = [row(at, parameters={"a": at // 2, "b": at % 2}, **more) for at, more in enumerate(made)]
    assert plain(points_lines(tally(rows), 80, 20)) == [
        "acc over a (down) and b (across)",
        "        0       1",
        "0     0.5    0.25",
        f"1       3  {newest.get('value', 'done'):>6}",
    ]


@pytest.mark.parametrize(
    "rows",
    [
        [row(task, parameters={"lr": task / 10}) for task in range(6)],
        [row(task, parameters={"lr": task / 10, "act": "relu" if task % 2 else "tanh"}) for task in range(6)],
        [row(task, parameters={"a": task % 2, "b": task // 2 % 2, "c": task // 4}) for task in range(8)],
        [row(task, parameters={"a": task // 4, "b": task % 2}) for task in range(8)],  # each cell twice
        [row(task, parameters={"a": task * 0.37, "b": task * 0.11}) for task in range(12)],  # random search
        [row(task) for task in range(6)],
    ],
)
def test_everything_else_is_a_table(rows: list[PointRow]) -> None:
    assert grid_lines(tally(rows), 100, 30) == []
    assert "STATE" in points_lines(tally(rows), 100, 30)[0].plain


def test_a_wide_grid_is_turned_and_one_that_fits_in_no_way_is_a_table() -> None:
    rows = [row(task, parameters={"a": task // 15, "b": task % 15}) for task in range(30)]
    assert plain(grid_lines(tally(rows), 40, 20))[0] == "over b (down) and a (across)"
    assert grid_lines(tally(rows), 40, 16) == []


def test_a_table_has_parameters_value_state_node_and_seconds() -> None:
    rows = [
        row(0, value=0.93, node="node-1", duration_s=4.25, parameters={"lr": 0.1, "act": "relu"}),
        row(1, "running", started_s=90.0, parameters={"lr": 0.2, "act": "relu"}),
        row(2, "submitted", parameters={"lr": 0.4, "act": "tanh"}),
        row(3, node="node-2", cached=True, value=1, duration_s=90.0, parameters={"lr": 0.8, "act": "tanh"}),
    ]
    assert plain(points_lines(tally(rows), 80, 20)) == [
        "NO   lr   act  VALUE  STATE     NODE          TOOK",
        " 1  0.1  relu   0.93  finished  node-1       4.2 s",
        " 2  0.2  relu         running                 10 s",
        " 3  0.4  tanh         waiting",
        " 4  0.8  tanh      1  cached    node-2  1 min 30 s",
    ]
    narrow = plain(points_lines(tally(rows), 30, 20))
    assert narrow[0].split() == ["lr", "act", "VALUE", "STATE"]


def test_of_more_points_than_lines_the_running_and_the_newest_are_shown_and_the_rest_is_counted() -> None:
    ended = [row(task, parameters={"n": task}, duration_s=1.0, started_s=1.0) for task in range(500)]
    running = [row(task, "running", parameters={"n": task}, started_s=90.0) for task in range(500, 504)]
    waiting = [row(task, "submitted", parameters={"n": task}) for task in range(504, 10_000)]
    shown = plain(table_lines(tally([*ended, *running, *waiting]), 80, 14))
    assert len(shown) == 14
    numbers = [int(line.split()[0]) for line in shown[1:-1]]
    assert numbers == [*range(493, 501), *range(501, 505)]
    assert shown[-1] == "… and 492 finished, 9496 waiting"


@pytest.mark.parametrize(("width", "height"), SCREENS)
@pytest.mark.parametrize("points", [3, 40, 10_000])
def test_the_board_fits_the_screen_whatever_the_names_are(width: int, height: int, points: int) -> None:
    nodes = RunNodes({f"node-{number}": 4 for number in range(1, 100)}, 12.5, "CHF")
    rows = [
        row(
            task,
            state,
            name=HOSTILE * (task % 3),
            node=f"node-{task % 99 + 1}",
            parameters={HOSTILE: HOSTILE, "lr": task, "宽": "宽" * 40} if task % 2 else {},
            value=HOSTILE,
            values={HOSTILE: HOSTILE, **{f"v{number}": number for number in range(30)}},
            message=HOSTILE,
            started_s=10.0,
            duration_s=2.0,
        )
        for task, state in zip(range(points), itertools.cycle(("finished", "running", "failed", "submitted")))
    ]
    board = board_lines(tally(rows, nodes=nodes), 50.0, width, height, "Ctrl-C leaves it running")
    assert 4 <= len(board) <= height * 2 // 3 + 1
    for line in board:
        assert cell_len(line.plain) <= width
        assert line.plain.isprintable()
        assert "[bold]" in line.plain or "bold" not in line.plain, "markup is text"


def test_the_lines_below_say_how_far_how_long_and_what_it_costs() -> None:
    rows = [
        *(row(task, node="node-1", started_s=0.0, ended_s=60.0, duration_s=60.0) for task in range(3)),
        row(3, "failed", node="node-2", started_s=0.0, ended_s=90.0, duration_s=90.0),
        row(4, cached=True, duration_s=7000.0),
        *(row(task, "running", started_s=80.0) for task in range(5, 9)),
        *(row(task, "submitted") for task in range(9, 21)),
    ]
    it = tally(rows, nodes=RunNodes({"node-1": 2, "node-2": 2}, 1.2, "CHF"))
    it.see(NodesSeen({"node-1": 97, "node-2": 3}, 100.0))
    lines = status_lines(it, 100.0, 120, "Ctrl-C leaves it running")
    assert lines[0] == "━━━┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄ · 4/21 done · 4 running · 1 failed · 1 cached"
    assert lines[1] == (
        "1 min, about 3 min left · 4.0 points/min · 0.0333 CHF so far, about 0.11 CHF at the end"
        " · Ctrl-C leaves it running"
    )
    assert lines[2] == "node-1 3 done, CPU 97 % · node-2 1 done, CPU 3 %"
    assert re.fullmatch(
        r"the rest with 1 node about [678] min, 0\.\d+ CHF; with 4 nodes about [12] min, .*; with 8 nodes .*",
        lines[3],
    )


class Watched(dict[Any, PointRow]):
    """Counts how often a point is looked at."""

    looks = 0

    def __getitem__(self, key: Any) -> PointRow:
        self.looks += 1
        return super().__getitem__(key)

    def values(self) -> Iterator[PointRow]:  # type: ignore[override]
        for value in super().values():
            self.looks += 1
            yield value


@pytest.mark.parametrize("state", ["finished", "running", "submitted"])
def test_the_work_of_an_update_depends_on_the_screen_and_not_on_the_number_of_points(state: str) -> None:
    def looks(points: int) -> int:
        many = [row(task, "finished", parameters={"n": task}, duration_s=1.0) for task in range(points)]
        it = tally([*many, *(row(points + task, state, started_s=1.0) for task in range(8))])
        it.points = watched = Watched(it.points)
        board_lines(it, 10.0, 100, 30)
        return watched.looks

    assert looks(20_000) <= looks(2_000) <= 100
