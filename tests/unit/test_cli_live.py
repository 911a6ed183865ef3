"""A sweep on a terminal, as the terminal shows it: the script's output above, the board below."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from typing import Any

import pytest

from rain_deploy.cli.show.activity import Activity
from rain_deploy.cli.show.live import APPEARS_S, LONG_LINE_BYTES, REDRAWN_S, Spinner
from rain_deploy.core import events
from rain_deploy.node.wire import Parameter, PointRow

RUN = "20261129-195411-7-9763-train-all"
SOON_S = APPEARS_S + 4 * REDRAWN_S


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


def test_the_board_comes_by_itself_and_stays_as_a_grid_when_the_run_has_ended(
    spinner: Spinner, capsys: pytest.CaptureFixture[str]
) -> None:
    time.sleep(SOON_S)
    assert "0/9 done" in capsys.readouterr().err
    for task in range(9):
        spinner(point(task, "finished", value=task / 8))
    spinner(events.RunChanged(RUN, "finished"))
    shown = capsys.readouterr().err
    assert "0.125" in shown.rpartition("over a (down)")[2]
    time.sleep(2 * REDRAWN_S)
    assert "9/9 done" not in capsys.readouterr().err, "the board is no longer drawn"


def test_the_scripts_lines_go_above_the_board_and_a_begun_line_is_its_first(
    spinner: Spinner, capsys: pytest.CaptureFixture[str]
) -> None:
    time.sleep(SOON_S)
    capsys.readouterr()
    spinner(events.ScriptOutput("stdout", b"epoch 1\n\x1b[31mepoch 2\nepo"))
    time.sleep(3 * REDRAWN_S)
    shown = capsys.readouterr().err
    assert "epoch 1\n\x1b[31mepoch 2\n\x1b[0m" in shown, "the script's own colours are kept"
    assert "epo" in shown.partition("epoch 2")[2]
    spinner(events.ScriptOutput("stdout", b"ch 3\r 50 %\rdone\n"))
    time.sleep(3 * REDRAWN_S)
    assert "epoch 3\r 50 %\rdone\n" in capsys.readouterr().err


def test_what_the_script_printed_is_complete_when_the_command_ends(
    spinner: Spinner, capsys: pytest.CaptureFixture[str]
) -> None:
    time.sleep(SOON_S)
    spinner(events.ScriptOutput("stdout", b"last words"))
    spinner.pause()
    out, _ = capsys.readouterr()
    assert out == "last words"


def test_a_line_that_does_not_end_is_written_and_not_kept(
    spinner: Spinner, capsys: pytest.CaptureFixture[str]
) -> None:
    time.sleep(SOON_S)
    spinner(events.ScriptOutput("stdout", b"x" * (LONG_LINE_BYTES + 1)))
    time.sleep(3 * REDRAWN_S)
    out, _ = capsys.readouterr()
    assert out == "x" * (LONG_LINE_BYTES + 1)


def test_a_line_that_was_begun_before_the_board_came_becomes_its_first(
    spinner: Spinner, capsys: pytest.CaptureFixture[str]
) -> None:
    time.sleep(SOON_S)
    spinner(events.ScriptOutput("stdout", b"epoch 1"))
    spinner.pause()  # as for a notice: what the script has begun is on the screen then
    spinner.resume()
    capsys.readouterr()
    time.sleep(3 * REDRAWN_S)
    shown = capsys.readouterr().err
    assert shown.startswith("\r\x1b[2K")
    assert "epoch 1" in shown
    assert "0/9 done" in shown
    spinner(events.ScriptOutput("stdout", b" of 9\n"))
    time.sleep(3 * REDRAWN_S)
    assert "epoch 1 of 9\n" in capsys.readouterr().err


@pytest.mark.parametrize("size", [("39", "24"), ("80", "9")])
def test_a_small_screen_has_one_line_instead(
    spinner: Spinner,
    size: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", size[0])
    monkeypatch.setenv("LINES", size[1])
    time.sleep(SOON_S)
    capsys.readouterr()
    time.sleep(2 * REDRAWN_S)
    shown = capsys.readouterr().err
    assert "0/9 done" in shown
    assert "over a (down)" not in shown


def test_updates_are_coalesced(spinner: Spinner, capsys: pytest.CaptureFixture[str]) -> None:
    """Ten thousand events in one second are drawn at most eight times, and the script's lines all come."""
    time.sleep(SOON_S)
    capsys.readouterr()
    began_s = time.monotonic()
    for number in itertools.count():
        spinner(point(number % 9, "running"))
        spinner(events.ScriptOutput("stdout", b"line %d\n" % number))
        if time.monotonic() - began_s > 1.0:
            break
    time.sleep(2 * REDRAWN_S)
    shown = capsys.readouterr().err
    passed_s = time.monotonic() - began_s
    assert 2 <= shown.count("9 done") <= passed_s / REDRAWN_S + 1 + len(shown) / 16_384
    assert f"line {number}\n" in shown


def test_a_pause_leaves_a_clean_terminal(spinner: Spinner, capsys: pytest.CaptureFixture[str]) -> None:
    time.sleep(SOON_S)
    shown = capsys.readouterr().err
    assert "\x1b[?25l" in shown
    spinner.pause()
    last = capsys.readouterr().err
    assert last.rpartition("0/9 done")[2].count("\x1b[2K") >= 5, "every line of the board is erased"
    assert "\x1b[?25h" in last, "the cursor is back"
