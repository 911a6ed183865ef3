"""What is ahead of a run: its nodes, its cap, how far it is and what the rest needs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rain_deploy.cli.commands.runs import run_text
from rain_deploy.cli.show.points import outlook_lines
from rain_deploy.core.events import RunNodes
from rain_deploy.errors import EndedEarly, InputError
from rain_deploy.node.wire import PointRow, RunStatus
from rain_deploy.results.tally import outlook, with_others
from rain_deploy.runs.finish import RunResult
from rain_deploy.runs.outlook import cost_cap, outlook_of, run_nodes
from tests.support.values import billed
from tests.unit.test_flow_run import CLUSTER

NODES = RunNodes({"node-1": 1, "node-2": 1}, 1.2, "CHF")
RESULT = RunResult("one", "r1", "finished", "done", 0, Path("/out"), 600.0, points=12, currency="CHF")


def rows(*states: str, **more: Any) -> list[PointRow]:
    times = {"finished": {"started_s": 0.0, "duration_s": 60.0}, "running": {"started_s": 70.0}}
    return [
        PointRow(
            **{"task": task, "session": 1, "point": True, "state": state, **times.get(state, {}), **more}
        )
        for task, state in enumerate(states)
    ]


def test_half_way_the_rest_is_about_as_long_as_the_first_half() -> None:
    found = outlook(rows(*["finished"] * 6, *["submitted"] * 6), NODES, 180.0)
    assert (found.done, found.points) == (6, 12)
    assert found.left
    assert (found.left.nodes, round(found.left.seconds), round(found.left.cost, 3)) == (2, 180, 0.06)
    (line,) = outlook_lines(found, "CHF")
    assert line == (
        "6 of 12 points finished; the rest takes about 3 min, 0.0600 CHF;"
        " with 1 node about 6 min, 0.0600 CHF; with 4 nodes about 2 min, 0.0800 CHF;"
        " with 8 nodes about 1 min, 0.0800 CHF"
    )


def test_failed_and_cached_points_do_not_count_for_the_time() -> None:
    mixed = [
        *rows(*["finished"] * 4, *["submitted"] * 4),
        *(replace(row, task=row.task + 100) for row in rows(*["failed"] * 5, duration_s=0.1, started_s=1.0)),
        *(replace(row, task=row.task + 200, cached=True, duration_s=9000.0) for row in rows("finished")),
    ]
    plain = outlook(rows(*["finished"] * 4, *["submitted"] * 4), NODES, 120.0).left
    found = outlook(mixed, NODES, 120.0)
    assert plain
    assert found.left
    assert found.left.seconds == pytest.approx(plain.seconds, rel=0.01)
    assert outlook(rows("finished", "submitted", cached=True), NODES, 1.0).left, "better than nothing"


def test_before_the_first_point_there_is_only_the_count() -> None:
    assert outlook_lines(outlook(rows("running", "submitted"), NODES, 80.0), "") == ["0 of 2 points finished"]
    assert outlook_of(CLUSTER, [PointRow(task=1, state="running")]) is None
    assert outlook_lines(None, "CHF") == []


def test_the_nodes_of_a_run_are_those_that_registered() -> None:
    assert run_nodes(CLUSTER).cpus == {"node-1": 1, "node-2": 1}
    assert run_nodes(CLUSTER, RunStatus(nodes=("node-2",))).cpus == {"node-2": 1}


def test_a_run_that_has_ended_says_what_other_numbers_of_nodes_need() -> None:
    found = with_others([*rows(*["finished"] * 12), *rows("finished", cached=True, task=50)], NODES)
    assert [(one.nodes, round(one.seconds)) for one in found] == [(1, 720), (4, 180), (8, 120)]
    assert with_others(rows("failed", "not run"), NODES) == ()
    told = run_text(replace(RESULT, others=found))
    assert "  the same points with 1 node about 12 min, 0.12 CHF; with 4 nodes about 3 min, 0.12 CHF;" in str(
        told
    )
    assert "the same points" not in str(run_text(replace(RESULT, others=found, seconds=20.0)))


def test_a_cost_becomes_a_time_unless_it_is_spent_at_once() -> None:
    cap = cost_cap(2.0, 4.0, "CHF")
    assert (cap.seconds, cap.words) == (1800.0, "--max-cost 2.00 CHF")
    with pytest.raises(InputError, match=r"--max-cost 0\.01.* CHF: the run would cost that within 9 s"):
        cost_cap(0.01, 4.0, "CHF")


def test_a_run_that_a_limit_ended_says_how_to_go_on() -> None:
    result = replace(
        RESULT, outcome="limit", message="--max-cost 2.00 CHF is reached", again="rain-deploy run"
    )
    problem = result.problem
    assert isinstance(problem, EndedEarly)
    assert problem.exit_code == 43
    assert problem.message == "run r1: --max-cost 2.00 CHF is reached"
    assert problem.next_step == "rain-deploy run"


def test_prices_are_those_of_running_machines() -> None:
    assert run_nodes(billed(CLUSTER)).currency == "CHF"
