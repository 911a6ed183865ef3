"""``explain`` finds one point by what people call it, and says all that is known about it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rain_deploy.cluster.context import Context
from rain_deploy.core.cluster import Cluster, Node
from rain_deploy.core.machine import Host
from rain_deploy.core.run import RunRecord, RunState
from rain_deploy.errors import InputError
from rain_deploy.fleet.fanout import SshExecutor
from rain_deploy.state.store import Store
from rain_deploy.transport.local import LocalTransport
from rain_deploy.verbs.results.explain import ExplainResult, explain
from tests.unit.fake_application import no_provider

ERROR = 'Traceback (most recent call last):\n  File "h.py", line 7, in train\nValueError: no\n'
ALL = "1 (train lr=0.1 act=relu), 2 (train lr=0.2 act=relu), 3 (train lr=0.25 act=relu)"


class Home:
    """A cluster on this machine with one run, whose files the test writes."""

    def __init__(self, path: Path) -> None:
        node = Node("node-1", Host("node-1", "127.5.0.1", 22, "me", ()))
        self.cluster = Cluster("ab12", "one", "hosts", 1.8e9, (node,), base=str(path / "node"))
        store = Store(path / "home")
        store.save_cluster(self.cluster)
        self.record = store.add_run(
            lambda sequence: RunRecord(
                id="r1",
                cluster_id="ab12",
                cluster="one",
                sequence=sequence,
                port=7230,
                script="h.py",
                args=(),
                script_sha256="",
                created_s=1.8e9,
                out=path / "results" / "r1",
            )
        )
        here = LocalTransport()
        self.ctx = Context(
            path, store, here, here, no_provider, print, lambda _: True, path, SshExecutor(here)
        )
        self.directory = Path(self.cluster.layout.run("r1"))

    def write(self, name: str, *lines: dict[str, Any]) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / name).open("a") as file:
            file.write("".join(json.dumps({"session": 1} | line) + "\n" for line in lines))

    def row(self, task: int, lr: float, state: str, **more: Any) -> None:
        named = {"name": f"train lr={lr} act=relu", "parameters": {"lr": lr, "act": "relu"}, "point": True}
        self.write("points.jsonl", {"task": task, **named, "state": state, **more})

    def explain(self, point: str) -> ExplainResult:
        return explain(self.ctx, "one", point)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path)
    made.write("points.jsonl", {"task": 10, "name": "load", "state": "finished"})
    made.row(12, 0.1, "finished", key="k12", started_s=1.8e9)
    made.row(14, 0.2, "failed", key="k14", message="ValueError: no", node="node-1", started_s=1.8e9)
    made.row(16, 0.25, "not run", message="the run was cancelled")
    return made


@pytest.mark.parametrize(
    ("point", "number", "task"),
    [
        ("2", 2, 14),
        ("1-14", 2, 14),
        ("1-10", 0, 10),
        ("load", 0, 10),
        ("train lr=0.2 act=relu", 2, 14),
        ("lr=0.2", 2, 14),
        ("act=relu, lr=0.2", 2, 14),
    ],
)
def test_a_point_is_found_by_all_that_people_call_it(home: Home, point: str, number: int, task: int) -> None:
    found = home.explain(point)
    assert (found.number, found.row.task) == (number, task)


@pytest.mark.parametrize(
    ("point", "message"),
    [
        ("9", "there is no point 9; the run has 3"),
        ("lr=0.3", "there is no point lr=0.3; the run has 3"),
        (" ", "there is no point  ; the run has 3"),
        ("act=relu", f"act=relu fits 3 points: {ALL}; name one by its number"),
    ],
)
def test_a_point_that_is_not_clear_is_refused(home: Home, point: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        home.explain(point)
    assert (caught.value.message, caught.value.next_step) == (message, "rain-deploy points r1 -c one")


def test_a_point_that_failed_has_its_error_and_its_arguments(home: Home) -> None:
    home.write("details.jsonl", {"task": 14, "arguments": {"lr": 0.2, "seed": 7}})
    home.write("details.jsonl", {"task": 14, "error": ERROR}, {"task": 14, "session": 2, "error": "other"})
    home.write("details.jsonl", {"task": 1, "error": "other"})
    found = home.explain("lr=0.2")
    assert (found.error, found.arguments) == (ERROR, {"lr": 0.2, "seed": 7})
    assert found.why[0] == "ValueError: no"


@pytest.mark.parametrize(
    ("row", "detail", "why"),
    [
        ({"key": "k"}, {}, "it was executed: no result of it was stored before"),
        (
            {"key": "k"},
            {"missed": "run r0 has another function"},
            "it was executed: run r0 has another function",
        ),
        ({"key": "k", "cached": True}, {}, "its result was in the journal: nothing was executed"),
        ({}, {"unkept": "It has no name."}, "its result is not kept in the journal: It has no name."),
    ],
)
def test_a_point_that_finished_says_why_it_was_executed(
    home: Home, row: dict[str, Any], detail: dict[str, Any], why: str
) -> None:
    home.row(18, 0.5, "finished", started_s=1.8e9, **row)
    home.write("details.jsonl", {"task": 18, **detail})
    assert home.explain("lr=0.5").why == (why,)


def test_a_point_has_a_history_of_attempts(home: Home) -> None:
    home.row(18, 0.5, "running", node="node-1", started_s=1.8e9)
    home.row(18, 0.5, "submitted")
    home.row(18, 0.5, "submitted", attempt=2)
    home.row(18, 0.5, "failed", attempt=2, message="no")
    home.row(18, 0.5, "running", attempt=3)
    home.write("details.jsonl", {"task": 18, "attempt": 2, "error": ERROR, "arguments": {"lr": 0.5}})
    found = home.explain("lr=0.5")
    told = [(one.attempt, one.state, one.node) for one in found.attempts]
    assert told == [(1, "lost", "node-1"), (2, "failed", None), (3, "running", None)]
    assert (found.error, found.arguments) == ("", {"lr": 0.5}), "the error was another attempt's"


def test_without_its_cluster_the_results_tell_as_much(home: Home) -> None:
    home.write("details.jsonl", {"task": 14, "error": ERROR})
    home.record.out.parent.mkdir()
    home.directory.rename(home.record.out)
    (home.record.out / "tasks/1-14-train").mkdir(parents=True)
    home.ctx.store.save_run(replace(home.record, state=RunState.FINISHED, pulled=True))
    home.ctx.store.forget_cluster(home.cluster)
    found = home.explain("2")
    assert (found.error, found.directory) == (ERROR, str(home.record.out / "tasks/1-14-train"))
    (home.record.out / "details.jsonl").unlink()
    assert home.explain("2").error == "", "an older node made no details"
