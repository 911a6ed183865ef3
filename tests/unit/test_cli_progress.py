"""What a pipe or a log gets to see while a long step works."""

from __future__ import annotations

import pytest

from rain_deploy.cli.show.activity import Activity
from rain_deploy.cli.show.progress import QUIET_S, Lines
from rain_deploy.core.events import PointSeen, Progress, StepDone
from rain_deploy.node.wire import PointRow


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_a_long_step_shows_now_and_then_that_it_lives(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    sink = Lines(clock=clock)
    for second in range(int(3 * QUIET_S)):
        clock.now_s = float(second)
        sink(Progress("node-1", f"Compiling {second}"))
    sink(StepDone("node-1", "install", "engine", "done", 60.0))
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "node-1: Compiling 21",
        "node-1: Compiling 42",
        "node-1: install: engine: done, 1 min 00 s",
    ]


def test_a_pipe_gets_one_plain_line_for_each_point_that_ends(capsys: pytest.CaptureFixture[str]) -> None:
    sink = Lines(clock=Clock(), activity=Activity("run"))
    for state in ("submitted", "running", "finished", "finished"):
        sink(PointSeen(PointRow(task=1, name="train \x1b[2J lr=1", point=True, state=state, value=0.5)))
    sink(PointSeen(PointRow(task=2, parameters={"lr": 2}, point=True, state="failed", message="a\nb")))
    sink(PointSeen(PointRow(task=3, name="lr=3", point=True, state="finished", cached=True, node="node-1")))
    sink(PointSeen(PointRow(task=4, name="load", state="finished")))
    sink(PointSeen(PointRow(task=5, name="lr=5", point=True, state="not run")))
    assert capsys.readouterr().err.splitlines() == [
        "train \\x1b[2J lr=1: 0.5 (finished)",
        "lr=2 (failed): a b",
        "lr=3 (cached)",
    ]


def test_other_verbs_print_no_points(capsys: pytest.CaptureFixture[str]) -> None:
    sink = Lines(clock=Clock(), activity=Activity("logs"))
    sink(PointSeen(PointRow(task=1, name="lr=1", point=True, state="finished")))
    assert capsys.readouterr().err == ""
