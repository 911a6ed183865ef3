"""Tables that fit a terminal of 80 columns, and what stands in them as people write it."""

from __future__ import annotations

import dataclasses
import io
import time
from pathlib import Path
from typing import Any

import pytest

from rain_deploy.cli.commands.points import points_text
from rain_deploy.cli.commands.runs import run_text, state_text
from rain_deploy.cli.show import text
from rain_deploy.core.machine import by_number
from rain_deploy.core.text import count
from rain_deploy.node.wire import PointRow
from rain_deploy.runs.states import RunLine
from rain_deploy.verbs.list import ClusterLine
from rain_deploy.verbs.results.points import PointsResult
from tests.unit.fake_application import RUN as DONE
from tests.unit.fake_application import World

WIDTH = 80
RUN = "20261129-195411-12-9763-hsearch"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.chdir(tmp_path)
    return World(tmp_path / "home")


def test_list_of_rented_machines_fits(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    line = ClusterLine(
        *("default", "ab12", "exoscale", 4),
        up=True,
        created_s=now - 1,
        runs=11,
        active_run=RUN,
        limit_s=now + 1,
        cost=12.34,
        currency="CHF",
        state="4 running",
        zone="ch-gva-2",
    )
    monkeypatch.setattr(world.verbs, "_cluster", lambda: line)
    shown = world.invoke("list").stdout.splitlines()
    assert max(map(len, shown)) <= WIDTH
    row = f"default exoscale ch-gva-2 4 running {text.moment(now - 1)} 12.34 CHF {text.moment(now + 1)} 12"
    assert shown[1].split() == row.split()


@pytest.mark.parametrize(
    ("outcome", "code", "shown"),
    [
        ("failed", 1, "failed, exit code 1"),
        ("failed", -9, "failed, signal 9"),
        ("failed", None, "failed"),
        ("cancelled", -15, "cancelled"),
        ("timeout", 7, "timeout"),
        ("done", 0, "done"),
        ("", None, "running"),
    ],
)
def test_the_state_of_a_run_explains_its_number(outcome: str, code: int | None, shown: str) -> None:
    state = "finished" if outcome else "running"
    line = RunLine(RUN, 12, "h.py", (), state, outcome, code, 1.0, 1.0, 2.0, Path("/out"), pulled=True)
    assert state_text(line) == shown


@pytest.mark.parametrize(
    ("fields", "nodes"),
    [
        ({"up": True}, "2 up"),
        ({"up": False}, "2, not up"),
        ({"up": True, "state": "1 running, 1 stopped"}, "1 running, 1 stopped"),
        ({"up": False, "state": "unknown"}, "unknown, not up"),
        ({"up": False, "changing": "up"}, "2, `up` is at work"),
    ],
)
def test_list_says_how_many_nodes_are_in_which_state(
    world: World, monkeypatch: pytest.MonkeyPatch, fields: dict[str, object], nodes: str
) -> None:
    made: dict[str, Any] = {"up": True, **fields}
    line = ClusterLine("default", "ab12", "local", 2, created_s=1.8e9, **made)
    monkeypatch.setattr(world.verbs, "_cluster", lambda: line)
    assert f"local     {nodes}  " in world.invoke("list").stdout.splitlines()[1]


def test_runs_fit_with_their_number_first(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    line = RunLine(RUN, 12, "h.py", (), "finished", "done", 0, now, now, now + 75, Path("/out"), pulled=True)
    monkeypatch.setattr("tests.unit.fake_application.RUN_LINE", line)
    head, row = world.invoke("runs").stdout.splitlines()
    assert max(len(head), len(row)) <= WIDTH
    assert row.startswith(f"12  {RUN}  done   {text.moment(now)}  ")


def table(*rows: PointRow) -> list[list[str]]:
    (shown,) = points_text(PointsResult("default", "r1", rows))
    assert isinstance(shown, str)
    return [line.split() for line in shown.splitlines()]


def test_points_are_numbered_from_1_whatever_rain_calls_their_tasks() -> None:
    rows = [PointRow(task=12 + 2 * n, parameters={"n": n}, state="finished", point=True) for n in range(20)]
    head, *lines = table(*rows)
    assert head == ["NO", "n", "STATE"]
    assert [line[0] for line in lines] == [str(number) for number in range(1, 21)]


def test_tasks_that_are_not_points_have_a_name_and_no_number() -> None:
    point = PointRow(task=1, parameters={"n": 1}, state="finished", point=True)
    other = PointRow(task=2, name="collect", state="running")
    assert table(other, point, other, dataclasses.replace(point, task=3)) == [
        ["NO", "NAME", "n", "STATE"],
        ["collect", "running"],
        ["1", "1", "finished"],
        ["collect", "running"],
        ["2", "1", "finished"],
    ]


def test_times_are_as_short_as_people_write_them() -> None:
    now = time.time()
    this_year = time.localtime(now)[0]
    day = time.mktime((this_year, 1, 2, 3, 4, 0, 0, 0, -1))
    if time.localtime(now)[:3] == (this_year, 1, 2):
        day += 86400
    assert text.moment(now) == time.strftime("%H:%M", time.localtime(now))
    assert text.moment(day).startswith("Jan 0")
    assert text.moment(time.mktime((2020, 11, 29, 19, 54, 0, 0, 0, -1))) == "2020-11-29 19:54"
    assert text.moment(None) == ""


def test_nodes_are_in_order_of_their_numbers() -> None:
    names = ["node-10", "node-2", "node-1", "group", "node-100", "node-11"]
    assert by_number(names) == ["group", "node-1", "node-2", "node-10", "node-11", "node-100"]


@pytest.mark.parametrize(
    ("number", "noun", "shown"),
    [(0, "node", "0 nodes"), (1, "node", "1 node"), (2, "process", "2 processes"), (1, "point", "1 point")],
)
def test_one_is_singular(number: int, noun: str, shown: str) -> None:
    assert count(number, noun) == shown


@pytest.mark.parametrize(
    ("outcome", "cluster", "said"),
    [
        ("powered off", "default", 'not pulled yet; "rain-deploy pull 12" puts them into /somewhere'),
        ("powered off", "mine", 'not pulled yet; "rain-deploy pull 12 -c mine" puts them into /somewhere'),
        ("lost", "default", "not pulled; what was seen of them: /somewhere"),  # their machine is gone
    ],
)
def test_results_that_are_not_pulled_name_the_command_that_pulls_them(
    outcome: str, cluster: str, said: str
) -> None:
    left = dataclasses.replace(
        DONE, run=RUN, cluster=cluster, outcome=outcome, pulled=False, results_dir=Path("/somewhere")
    )
    assert run_text(left) == [f"run {RUN}: {outcome}", f"results: {said}"]


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_a_long_question_breaks_between_words(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    question = (
        "Cluster one is there already: take it down at the end, with all runs that are on it, until 09:09?"
    )
    lines = text.wrapped(question).splitlines()
    assert " ".join(lines) == question
    assert max(len(line) for line in lines) + len(" [y/N]: ") <= columns
    assert len(lines) == {40: 4, 80: 2, 200: 1}[columns]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("it fits", ["it fits"]),
        ("warning: one two three four five six", ["warning: one two three", "         four five six"]),
        ("  one two three four five six seven", ["  one two three four five", "    six seven"]),
        (
            "it is gone; next: rain-deploy up -c mine; or not",
            ["it is gone; next:", "  rain-deploy up -c mine;", "  or not"],
        ),
        ("do `what is between these quotes` now", ["do", "  `what is between these quotes`", "  now"]),
        (
            "short\n  and long, with more than one line",
            ["short", "  and long, with more than", "    one line"],
        ),
    ],
)
def test_a_terminal_gets_lines_broken_between_words_and_whole_commands(
    monkeypatch: pytest.MonkeyPatch, line: str, shown: list[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "26")
    assert text.folded(line, Terminal()).split("\n") == shown
    assert text.folded(line, io.StringIO()) == line
