"""A failing point on real Rain: the other points finish, and the next run computes only what failed."""

from __future__ import annotations

import csv
import re
from collections import Counter
from pathlib import Path

import pytest

from tests.local.command_line import LocalCluster, Told

SWEEP = """\
import os
from rain.client import Client, remote

def executed(name):
    with open(os.environ["MARKS"], "a") as file:
        file.write(f"{name}\\n")

@remote(auto_encode="pickle")
def squared(ctx, n):
    executed(n)
    if n in (7, 13):
        raise ValueError(f"{n} is unlucky")
    return n * n

@remote(auto_encode="pickle", auto_load=True)
def total(ctx, *numbers):
    executed("total")
    return sum(numbers)

with Client("localhost", 7210).new_session("points") as session:
    points = [squared(n, name=f"squared n={n}") for n in range(20)]
    good, bad = total(*points[:5], name="good"), total(*points[5:10], name="bad")
    for task in (*points, good, bad):
        task.output.keep()
    session.submit()
    print("total", good.output.fetch().load(), flush=True)
"""
ASKS = "    print([point.output.fetch().load() for point in points])\n"
CATCHES = """\
    for task in (*points, bad):
        try:
            task.output.fetch()
        except Exception as error:
            print(f"{type(error).__name__}: {task.name}: {error}")
    try:
        session.wait_all()
    except Exception as error:
        print(f"{type(error).__name__}: all: {error}")
"""


class Sweep:
    """Runs the script with an end of the test's choice, and counts executions."""

    def __init__(self, cluster: LocalCluster, marks: Path) -> None:
        self._cluster, self._marks = cluster, marks

    def run(self, end: str, *options: str) -> Told:
        """The name of the script is the same for each test, so that they share the journal."""
        (self._cluster.line.cwd / "failing.py").write_text(SWEEP + end)
        self._marks.write_text("")
        return self._cluster("run", "--json", "--env", f"MARKS={self._marks}", *options, "failing.py")

    @property
    def executed(self) -> Counter[str]:
        return Counter(self._marks.read_text().split())


@pytest.fixture(scope="module")
def marks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("marks") / "marks"


@pytest.fixture
def sweep(shared: LocalCluster, marks: Path) -> Sweep:
    return Sweep(shared, marks)


def table(told: Told) -> dict[str, dict[str, str]]:
    with (Path(told.result["results_dir"]) / "points.csv").open(newline="") as file:
        return {row["n"]: row for row in csv.DictReader(file)}


def test_a_failing_point_costs_no_other_point_and_runs_again_next_time(sweep: Sweep) -> None:
    first = sweep.run(ASKS)
    assert first.exit_code == 42
    rows = table(first)
    assert {n: row["value"] for n, row in rows.items()} == {
        str(n): "" if n in {7, 13} else str(n * n) for n in range(20)
    }
    for n in ("7", "13"):
        assert (rows[n]["state"], rows[n]["reason"]) == ("failed", f"ValueError: {n} is unlucky")
    assert sweep.executed == dict.fromkeys([*map(str, range(20)), "total"], 1)
    results = Path(first.result["results_dir"])
    errors = (results / "stderr.log").read_text()
    assert "rain.common.errors.TaskException: Task <Task 1/" in errors
    assert re.search(r'File "failing.py", line \d+, in squared\n', errors)
    assert "\nValueError: 7 is unlucky\n" in errors
    assert "rain_deploy_companion" not in errors
    assert (results / "stdout.log").read_text() == "total 30\n"

    second = sweep.run(ASKS)
    assert second.exit_code == 42
    assert sweep.executed == {"7": 1, "13": 1}
    assert {n: row["value"] for n, row in table(second).items()} == {
        n: row["value"] for n, row in rows.items()
    }


def test_a_script_that_goes_on_gets_rains_exception_for_each_failed_result(sweep: Sweep) -> None:
    told = sweep.run(CATCHES)
    assert (told.exit_code, told.result["exit_code"], told.result["outcome"]) == (42, 0, "done")
    printed = (Path(told.result["results_dir"]) / "stdout.log").read_text()
    messages = printed.split("TaskException: ")[1:]
    assert [message.partition(":")[0] for message in messages] == [
        "squared n=7",
        "squared n=13",
        "bad",
        "all",
    ]
    assert "ValueError: 13 is unlucky" in messages[1]
    text = "not run, because it needs the result of squared n=7, which failed: ValueError: 7 is unlucky"
    assert text in messages[2]


def test_explain_has_the_traceback_and_the_arguments(sweep: Sweep, shared: LocalCluster) -> None:
    sweep.run(ASKS)
    told = shared.well("explain", "n=13", "--json").result
    assert told["error"].endswith("ValueError: 13 is unlucky\n")
    assert told["arguments"] == {"n": 13}


LATE = """\
import os, sys, time
from rain.client import Client, remote

@remote(auto_encode="pickle")
def late(ctx, n):
    with open(os.environ["MARKS"], "a") as file:
        file.write(f"{n}\\n")
    if n == 0:
        raise ValueError("the first one")
    time.sleep(float(sys.argv[1]) if len(sys.argv) > 1 else 1)
    return n

session = Client("localhost", 7210).new_session("late")
def run():
    for n in range(16):
        late(n, name=f"late n={n}").output.keep()
    session.submit()
    session._submitted_tasks[0].output.fetch()
"""
WAYS = {
    "with": "with session:\n    run()\n",
    "bound": "with session.bind_only():\n    run()\n",
    "exit": "with session:\n    try:\n        run()\n    except Exception:\n        sys.exit(3)\n",
}


@pytest.mark.parametrize("way", WAYS)
def test_the_others_finish_when_the_script_dies_of_the_first(
    shared: LocalCluster, marks: Path, way: str
) -> None:
    (shared.line.cwd / "late.py").write_text(LATE + WAYS[way])
    marks.write_text("")
    told = shared("run", "--json", "--env", f"MARKS={marks}", "--env", f"WAY={way}", "late.py")
    assert (told.exit_code, told.result["exit_code"]) == (42, 3 if way == "exit" else 1)
    assert {n: row["value"] for n, row in table(told).items()} == {str(n): str(n or "") for n in range(16)}
    errors = (Path(told.result["results_dir"]) / "stderr.log").read_text()
    assert re.search(r"other tasks? will finish before the script ends", errors)  # one on a slow machine
    assert ("ValueError: the first one" in errors) == (way != "exit")


def test_with_fail_fast_the_first_failure_ends_the_session(shared: LocalCluster, marks: Path) -> None:
    (shared.line.cwd / "fast.py").write_text(LATE + WAYS["with"])
    marks.write_text("")
    told = shared("run", "--json", "--env", f"MARKS={marks}", "--fail-fast", "fast.py", "3")
    assert (told.exit_code, told.result["exit_code"], told.result["outcome"]) == (42, 1, "failed")
    assert table(told)["0"]["reason"] == "ValueError: the first one"
    assert len(marks.read_text().split()) < 16
