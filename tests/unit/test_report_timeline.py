"""The timeline of a report: tasks on their nodes, attempts, and what was lost with one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rain_deploy.node.wire import PointRow
from rain_deploy.results.report.timeline import MOST_BARS, MOST_NODES, Timeline, timeline

TASK = PointRow(task=1, name="a=1", node="node-1", state="finished", started_s=100.0, ended_s=110.0)


def task(
    number: int, start_s: float | None, end_s: float | None, node: str | None = "node-1", **more: Any
) -> PointRow:
    return replace(TASK, task=number, started_s=start_s, ended_s=end_s, node=node, **more)


def test_tasks_that_run_at_the_same_time_lie_below_each_other() -> None:
    laid = timeline([task(1, 100, 110), task(2, 105, 115), task(3, 110, 120)], 100.0, 120.0)
    (node,) = laid.nodes
    assert (node.name, node.lanes) == ("node-1", 2)
    assert [(bar.x, bar.width, bar.lane) for bar in node.bars] == [(0, 500, 0), (250, 500, 1), (500, 500, 0)]
    assert node.bars[1].title == "a=1: finished, 10 s, from 5 s"


def test_nodes_are_in_the_order_of_their_numbers_and_an_unknown_one_is_last() -> None:
    names = ["node-10", None, "node-2"]
    laid = timeline([task(n, 100, 101, name) for n, name in enumerate(names)], 100.0, 101.0)
    assert [node.name for node in laid.nodes] == ["node-2", "node-10", "unknown node"]


def test_a_task_that_its_attempt_took_along_is_lost_and_the_next_attempt_is_marked() -> None:
    rows = [
        task(1, 100, 104),
        task(2, 104, None, state="running"),
        task(2, 110, 120, attempt=2),
        task(3, 112, None, state="running", attempt=2),
    ]
    laid = timeline(rows, 100.0, 120.0)
    assert [(bar.x, bar.width, bar.state) for bar in laid.nodes[0].bars] == [
        (0, 200, "finished"),
        (200, 300, "lost"),
        (500, 500, "finished"),
        (600, 400, "running"),
    ]
    assert laid.attempts == ((50.0, "attempt 2"),)
    assert laid.states == ("finished", "lost", "running")
    assert laid.nodes[0].bars[2].title.endswith(", attempt 2")


def test_a_result_that_was_kept_and_a_task_that_never_started_are_not_drawn() -> None:
    assert timeline([task(1, 100, 110, cached=True), task(2, None, None)], 100.0, 120.0) == Timeline()


def test_ten_thousand_tasks_are_few_bars_that_say_how_many_they_are() -> None:
    rows = [task(n, 100 + n / 10, 100 + (n + 1) / 10, f"node-{n % 4}") for n in range(10_000)]
    laid = timeline(rows, 100.0, 1100.0)
    bars = [bar for node in laid.nodes for bar in node.bars]
    assert len(bars) < MOST_BARS
    assert sum(bar.tasks for bar in bars) == 10_000
    assert f"{bars[0].tasks} tasks: finished" == bars[0].title


def test_a_failed_task_among_many_keeps_its_own_bar() -> None:
    rows = [task(n, 100 + n / 10, 100 + (n + 1) / 10) for n in range(5000)]
    rows[2500] = replace(rows[2500], state="failed")
    bars = timeline(rows, 100.0, 600.0).nodes[0].bars
    assert [bar.state for bar in bars].count("failed") == 1


def test_more_nodes_than_fit_are_counted() -> None:
    laid = timeline([task(n, 100, 101, f"node-{n}") for n in range(MOST_NODES + 3)], 100.0, 101.0)
    assert (len(laid.nodes), laid.note) == (MOST_NODES, "3 more nodes not drawn")


def test_times_that_make_no_sense_are_drawn_somewhere() -> None:
    odd = [float("nan"), float("inf"), -1e308, 1e308, 0.0, -5.0]
    rows = [task(n, start, end) for n, (start, end) in enumerate(zip(odd, reversed(odd), strict=True))]
    for bar in (bar for node in timeline(rows, None, "x").nodes for bar in node.bars):
        assert 0 <= bar.x <= 1000
        assert bar.width >= 0


def test_the_axis_has_a_few_round_times() -> None:
    for whole_s, last in ((0.4, "0.4 s"), (7.0, "6 s"), (95.0, "1.5 min"), (9000.0, "2.5 h"), (5e6, "48 d")):
        ticks = timeline([task(1, 0.0, whole_s)], 0.0, whole_s).ticks
        assert 2 <= len(ticks) <= 8
        assert ticks[0] == (0.0, "0 s")
        assert ticks[-1][1] == last
        assert all(0 <= at <= 100 for at, _ in ticks)
