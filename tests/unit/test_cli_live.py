"""A sweep on a terminal, as the terminal shows it: the script's output above, the board below."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from typing import Any

import pytest

from rain_deploy.cli.show.activity import Activity
from rain_deploy.cli.show.live import LONG_LINE_BYTES, REDRAWN_S, Spinner
from rain_deploy.core import events
from rain_deploy.node.wire import Parameter, PointRow
from tests.support.screen import Screen

RUN = "20261129-195411-7-9763-train-all"


def point(task: int, state: str, **more: Any) -> events.PointSeen:
    parameters: dict[str, Parameter | None] = {"a": task // 3, "b": task % 3}
    return events.PointSeen(
        PointRow(task=task, session=1, state=state, point=True, parameters=parameters, **more)
    )


@pytest.fixture
def spinner(monkeypatch: pytest.MonkeyPatch) -> Iterator[Spinner]:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then takes the captured stream for a terminal
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "30")
    it = Spinner(activity=Activity("run"), shares_terminal=lambda: True)
    with it.work():
        it(events.RunChanged(RUN, "running"))
        for task in range(9):
            it(point(task, "submitted"))
        yield it


@pytest.fixture
def screen(spinner: Spinner, capsys: pytest.CaptureFixture[str]) -> Screen:
    """The terminal, once the board is there."""
    del spinner
    made = Screen(capsys)
    made.until_drawn("0/9 done")
    made.forget()
    return made


def test_the_board_comes_by_itself_and_stays_as_a_grid_when_the_run_has_ended(
    spinner: Spinner, screen: Screen
) -> None:
    for task in range(9):
        spinner(point(task, "finished", value=task / 8))
    spinner(events.RunChanged(RUN, "finished"))
    screen.look()
    assert "0.125" in screen.err.rpartition("over a (down)")[2]
    screen.forget()
    time.sleep(2 * REDRAWN_S)
    screen.look()
    assert "9/9 done" not in screen.err, "the board is no longer drawn"


def test_the_scripts_lines_go_above_the_board_and_a_begun_line_is_its_first(
    spinner: Spinner, screen: Screen
) -> None:
    spinner(events.ScriptOutput("stdout", b"epoch 1\n\x1b[31mepoch 2\nepo"))
    screen.until(lambda screen: "epo" in screen.err.partition("epoch 2")[2])
    assert "epoch 1\n\x1b[31mepoch 2\n\x1b[0m" in screen.err, "the script's own colours are kept"
    spinner(events.ScriptOutput("stdout", b"ch 3\r 50 %\rdone\n"))
    screen.until_drawn("epoch 3\r 50 %\rdone\n")


def test_what_the_script_printed_is_complete_when_the_command_ends(spinner: Spinner, screen: Screen) -> None:
    spinner(events.ScriptOutput("stdout", b"last words"))
    spinner.pause()
    screen.look()
    assert screen.out == "last words"


def test_a_line_that_does_not_end_is_written_and_not_kept(spinner: Spinner, screen: Screen) -> None:
    spinner(events.ScriptOutput("stdout", b"x" * (LONG_LINE_BYTES + 1)))
    screen.until(lambda screen: screen.out == "x" * (LONG_LINE_BYTES + 1))


def test_a_line_that_was_begun_before_the_board_came_becomes_its_first(
    spinner: Spinner, screen: Screen
) -> None:
    spinner(events.ScriptOutput("stdout", b"epoch 1"))
    spinner.pause()  # as for a notice: what the script has begun is on the screen then
    spinner.resume()
    screen.forget()
    screen.until_drawn("epoch 1", "0/9 done")
    assert screen.err.startswith("\r\x1b[2K")
    spinner(events.ScriptOutput("stdout", b" of 9\n"))
    screen.until_drawn("epoch 1 of 9\n")


@pytest.mark.parametrize("size", [("39", "24"), ("80", "9")])
def test_a_small_screen_has_one_line_instead(
    screen: Screen, size: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", size[0])
    monkeypatch.setenv("LINES", size[1])
    time.sleep(2 * REDRAWN_S)  # one may be under way
    screen.forget()
    screen.until_drawn("0/9 done")
    assert "over a (down)" not in screen.err


def test_updates_are_coalesced(spinner: Spinner, screen: Screen) -> None:
    """Ten thousand events in one second are drawn at most eight times, and the script's lines all come."""
    began_s = time.monotonic()
    for number in itertools.count():
        spinner(point(number % 9, "running"))
        spinner(events.ScriptOutput("stdout", b"line %d\n" % number))
        if time.monotonic() - began_s > 1.0:
            break
    screen.until(lambda screen: screen.err.count("9 done") >= 2 and f"line {number}\n" in screen.err)
    passed_s = time.monotonic() - began_s
    assert screen.err.count("9 done") <= passed_s / REDRAWN_S + 1 + len(screen.err) / 16_384


def test_a_pause_leaves_a_clean_terminal(spinner: Spinner, capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen(capsys)
    screen.until_drawn("0/9 done", "\x1b[?25l")
    screen.forget()
    spinner.pause()
    screen.look()
    assert screen.err.rpartition("0/9 done")[2].count("\x1b[2K") >= 5, "every line of the board is erased"
    assert "\x1b[?25h" in screen.err, "the cursor is back"
