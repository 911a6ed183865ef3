"""``rehearse`` on real Rain: what it tries, where it ends, what it finds, and that nothing is left."""

from __future__ import annotations

from typing import Any

import pytest

from tests.local.command_line import CommandLine, Told, living_in
from tests.local.conftest import FIRST_UP_S, MakeHome

START = """\
import random
from rain.client import Client, blob, directory, remote, tasks

@remote(auto_encode="pickle")
def load(ctx):
    open(RAN, "a").write("load ")
    return list(range(1000))

@remote(auto_encode="pickle")
def train(ctx, data, rate, seed=1):
    open(RAN, "a").write("train ")
    return rate * len(data.load())

@remote(auto_encode="pickle")
def best(ctx, *results):
    return max(result.load() for result in results)
"""
SWEEP = """\
with Client("localhost", 7210).new_session("s") as session:
    data = load()
    data.output.keep()
    session.submit()
    print("loaded", len(data.output.fetch().load()))
    points = [train(data, rate / 10, SEED, name=f"rate={rate / 10}") for rate in range(8)]
    top = best(*points)
    hello = tasks.Execute(["echo", "hello"], stdout=True)
    for task in [*points, top, hello]:
        task.output.keep()
    session.submit()
    print(hello.output.fetch().get_str().strip())
    session.wait([points[0]])
    for point in points:
        print(point.output.fetch().load())
print("the end")
"""


@pytest.fixture(scope="module")
def line(make_home: MakeHome) -> CommandLine:
    return make_home()


def _rehearse(line: CommandLine, script: str, *options: str) -> Told:
    ran = line.cwd / "ran"
    ran.write_text("")
    (line.cwd / "plan.py").write_text(f"RAN = {str(ran)!r}\n{script}")
    told = line("rehearse", "--json", *options, "plan.py", timeout_s=FIRST_UP_S)
    assert (line.clusters(), living_in(line.home)) == ([], {})
    assert [path.name for path in line.home.glob("rehearsal-*")] == []
    assert [path.name for path in line.home.glob("journal/*rehearsal*")] == []
    assert "results go to" not in told.stderr
    assert not (line.cwd / "results").exists()
    return told


def _kinds(result: dict[str, Any]) -> dict[str, tuple[int, str, bool]]:
    return {kind["name"]: (kind["count"], kind["tried"], kind["waits"]) for kind in result["kinds"]}


def test_the_first_task_of_each_kind_runs_and_the_script_ends_at_the_next(line: CommandLine) -> None:
    script = (START + SWEEP).replace("SEED", "1")
    told = _rehearse(line, script)
    result = told.result
    assert told.exit_code == 0
    assert _kinds(result) == {
        "load": (1, "load", False),
        "train": (8, "rate=0.0", False),
        "best": (1, "", True),
        "Execute echo": (1, "Execute echo", False),
    }
    assert sorted((line.cwd / "ran").read_text().split()) == ["load", "train"]
    assert all(kind["seconds"] is not None for kind in result["kinds"] if kind["tried"])
    assert 1 << 20 < result["memory_bytes"] < 1 << 30
    (number,) = [n for n, text in enumerate(script.splitlines(), 2) if "point.output.fetch" in text]
    assert result["ended"] == (f"plan.py, line {number}, fetches the result of 'rate=0.1', which was not run")
    assert result["left"] == f"lines {number + 1} to {number + 1} of plan.py were not tried"
    assert (result["compared"], result["findings"]) == (True, [])
    assert (told.stderr.count("loaded 1000"), "the end" in told.stderr) == (1, False)


def test_an_argument_that_differs_from_run_to_run_is_named_where_it_is_given(line: CommandLine) -> None:
    script = (START + SWEEP).replace("SEED", "random.random()")
    (number,) = [n for n, text in enumerate(script.splitlines(), 2) if "points = " in text]
    found = f"plan.py, line {number}: the argument seed of train differs from run to run (8 tasks)"
    assert _rehearse(line, script).result["findings"] == [found]


WHOLE = """\
import other
with Client("localhost", 7210).new_session("s") as session:
    given = blob(b"data")
    given.keep()
    data = load()
    data.output.keep()
    session.submit()
    print(given.fetch().get_bytes())
    session.wait_all()
    session.update([data])
    data.output.unkeep()
print(open("absent.txt") if data is None else "the end")
"""


def test_a_script_of_which_all_kinds_run_comes_to_its_end_also_where_a_rehearsal_was_killed(
    line: CommandLine,
) -> None:
    line.well("up", "--provider", "local", "-c", "default-rehearsal")
    (line.cwd / "other.py").write_text("")
    told = _rehearse(line, START + WHOLE)
    assert (told.exit_code, told.result["ended"], told.result["compared"]) == (0, "", True)
    assert "the end" in told.stderr
    (missing,) = told.result["findings"]
    assert "reads absent.txt, which does not exist here" in missing


FAILS = """\
@remote()
def bad(ctx, x):
    raise ValueError(f"no {x}")
with Client("localhost", 7210).new_session("s") as session:
    load()
    tasks = [bad(x, name=f"x={x}") for x in range(3)]
    for task in tasks:
        task.output.keep()
    session.submit()
    tasks[0].output.fetch()
"""


def test_a_task_that_raises_is_named(line: CommandLine) -> None:
    told = _rehearse(line, START + FAILS)
    assert told.exit_code == 42
    errors = {kind["name"]: kind["error"] for kind in told.result["kinds"]}
    assert errors["bad"] == "ValueError: no 0"
    assert told.error["message"] == "the rehearsal of plan.py failed: task x=0 raised ValueError: no 0"


UNPICKLABLE = """\
import threading
with Client("localhost", 7210).new_session("s") as session:
    train(load(), threading.Lock())
"""


def test_an_argument_that_cannot_be_pickled_fails_with_pythons_own_words(line: CommandLine) -> None:
    told = _rehearse(line, START + UNPICKLABLE)
    assert told.exit_code == 41
    assert "cannot pickle '_thread.lock' object" in told.stderr


def test_a_module_that_the_nodes_lack_is_found_before_anything_runs(line: CommandLine) -> None:
    told = _rehearse(line, f"import no_such_module\n{START}{WHOLE}")
    assert told.exit_code == 10
    assert "plan.py, line 2, imports no_such_module" in told.error["message"]
    assert told.error["next"].startswith("rehearse it again with --with no_such_module")
