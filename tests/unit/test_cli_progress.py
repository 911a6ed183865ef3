"""What a pipe or a log gets to see while a long step works."""

from __future__ import annotations

import pytest

from rain_deploy.cli.show.progress import QUIET_S, Lines
from rain_deploy.core.events import Progress, StepDone


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
