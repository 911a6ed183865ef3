"""The counts of a run's points, from rows in any order, over attempts."""

from __future__ import annotations

from typing import Any

import pytest

from rain_deploy.core.events import NodesSeen, RunNodes
from rain_deploy.node.wire import PointRow
from rain_deploy.results.tally import Tally

NODES = RunNodes({"node-1": 2, "node-2": 2})


def row(task: int, state: str, *, point: bool = True, **more: Any) -> PointRow:
    return PointRow(task=task, session=1, state=state, point=point, **more)


def test_each_row_takes_the_place_of_the_one_before() -> None:
    tally = Tally(clock=lambda: 100.0, nodes=NODES)
    for state in ("submitted", "running", "finished"):
        tally.add(row(1, state, started_s=90.0, duration_s=5.0, node="node-1"))
        tally.add(row(2, state, started_s=90.0, duration_s=5.0, node="node-2"))
    tally.add(row(2, "finished", started_s=90.0, duration_s=5.0, node="node-2", value=1.0))
    assert tally.counts() == {"submitted": 0, "running": 0, "finished": 2}
    assert tally.by_node == {"node-1": 1, "node-2": 1}
    assert [one.task for one in tally.newest(10)] == [1, 2]
    assert tally.newest(1)[0].value == 1.0
    assert sum(number for _, number in tally.sweep.durations) == 2
    assert tally.count_texts() == ["2/2 done"]


def test_tasks_count_until_one_of_them_is_a_point() -> None:
    tally = Tally()
    tally.add(row(1, "running", point=False))
    tally.add(row(2, "submitted", point=False))
    assert tally.count_texts() == ["0/2 tasks done", "1 running"]
    tally.add(row(2, "submitted"))
    assert tally.count_texts() == ["0/1 done"]
    tally.add(row(2, "finished", point=False))
    assert tally.count_texts() == ["1/2 tasks done", "1 running"]


def test_after_a_loss_nothing_of_the_lost_attempt_runs_and_kept_points_stay_done() -> None:
    tally = Tally(clock=lambda: 200.0, nodes=NODES)
    tally.add(row(1, "finished", started_s=100.0, duration_s=50.0))
    tally.add(row(2, "running", started_s=100.0))
    tally.add(row(3, "submitted"))
    tally.add(row(1, "finished", started_s=100.0, duration_s=50.0, cached=True, attempt=2))
    assert tally.running == {}
    assert tally.counts() == {"finished": 1, "running": 0, "submitted": 2}
    assert tally.count_texts() == ["1/3 done", "1 cached"]
    tally.add(row(2, "running", started_s=190.0, attempt=2))
    tally.hear(200.0)
    assert tally.sweep.ages_s == (10.0,)
    assert [one.task for one in tally.newest(5)] == [1]


@pytest.mark.parametrize("ahead_s", [-300.0, 0.0, 300.0])
def test_ages_are_right_whatever_the_nodes_clock_is(ahead_s: float) -> None:
    tally = Tally(clock=lambda: 1000.0, nodes=NODES)
    tally.add(row(1, "running", started_s=900.0 + ahead_s))
    tally.see(NodesSeen({"node-1": 50}, 1000.0 + ahead_s))
    assert tally.age_s(tally.points[1, 1]) == pytest.approx(100.0)
    assert tally.busy == {"node-1": 50}


def test_what_is_kept_of_a_point_is_small() -> None:
    tally = Tally()
    huge = "x" * 65_536
    values: Any = {f"v{number}": huge for number in range(1000)}
    tally.add(row(1, "finished", name=huge, message=huge, value=huge, values=values, parameters=values))
    (kept,) = tally.points.values()
    assert len(str(kept)) < 20_000


def test_the_order_of_the_newest_is_bounded_and_the_counts_are_not() -> None:
    tally = Tally()
    for task in range(3000):
        tally.add(row(task, "finished", duration_s=1.0))
    assert tally.counts()["finished"] == 3000
    assert [one.task for one in tally.newest(3)] == [2997, 2998, 2999]
    assert len(tally.newest(10_000)) < 1000


def test_two_cpus_for_each_task_are_noticed() -> None:
    """Four CPUs, and only two points of 10 s run at a time: ten points in 50 s."""
    tally = Tally(clock=lambda: 50.0, nodes=NODES)
    for task in range(10):
        tally.add(
            row(task, "finished", started_s=task // 2 * 10.0, ended_s=task // 2 * 10.0 + 10, duration_s=10.0)
        )
    for task in range(10, 20):
        tally.add(row(task, "submitted"))
    assert tally.sweep.cpus == pytest.approx(2.0)
    left, _ = tally.ahead()
    assert left
    assert left.seconds == pytest.approx(50.0, rel=0.05)
