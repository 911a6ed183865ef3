"""The line that moves: what the command does, how far it is, for how long, and how long yet."""

from __future__ import annotations

import json
import os
import stat
import time
from pathlib import Path
from typing import Any

import pytest

from rain_deploy.cli.show.activity import Activity
from rain_deploy.cli.show.history import KEPT, History
from rain_deploy.cli.show.live import APPEARS_S, REDRAWN_S, Spinner
from rain_deploy.core import events
from rain_deploy.node.wire import PointRow
from tests.support.screen import Screen
from tests.unit.test_cli_progress import Clock

NOON_S = 1.8e9  # what the wall shows when the clock of a test starts
RUN = "20261129-195411-7-9763-train-all"


def point(task: int, state: str, *, is_point: bool = True, **more: Any) -> events.PointSeen:
    return events.PointSeen(PointRow(task=task, session=1, state=state, point=is_point, **more))


def activity(clock: Clock, *seen: events.Event, verb: str = "run", known: History | None = None) -> Activity:
    made = Activity(verb, known or History(), clock, wall=lambda: NOON_S + clock())
    for event in seen:
        made.see(event)
    return made


def running(clock: Clock, *states: str, verb: str = "run", is_point: bool = True) -> Activity:
    rows = (point(number, state, is_point=is_point) for number, state in enumerate(states))
    return activity(clock, events.RunChanged(RUN, "running"), *rows, verb=verb)


def test_a_run_says_how_far_it_is_and_how_long_yet() -> None:
    clock = Clock()
    it = running(clock, *["submitted"] * 20)
    for second in range(0, 250, 50):  # two at a time, 50 s each
        for task in (second // 25, second // 25 + 1):
            clock.now_s = second
            it.see(point(task, "running", started_s=NOON_S + second))
            clock.now_s = second + 50
            it.see(point(task, "finished" if task else "failed", duration_s=50.0))
    it.see(point(10, "running", started_s=NOON_S + 250))
    it.see(point(11, "running", started_s=NOON_S + 250))
    clock.now_s = 270.0
    assert (
        it.line(100)
        == "9/20 done · 2 running · 1 failed · 4 min, about 3 min left · Ctrl-C leaves it running"
    )
    it.see(point(10, "finished", duration_s=50.0))
    assert it.line(100).startswith("10/20 done")


def test_without_a_finished_point_nobody_knows_how_long_yet() -> None:
    clock = Clock()
    it = running(clock, "running", "running", *["submitted"] * 10)
    clock.now_s = 9.0
    assert it.line(100).startswith("0/12 done · 2 running · 9 s · ")


@pytest.mark.parametrize("ahead_s", [0.0, 300.0, -300.0])
def test_who_comes_later_reads_the_same(ahead_s: float) -> None:
    """Of 12 points of 10 s each, two at a time, six are done: 30 s are left, whatever the node's clock is."""
    clock = Clock()
    now_s = NOON_S + ahead_s
    it = activity(clock, events.RunChanged(RUN, "running", started_s=now_s - 32.0), verb="attach")
    for task in range(12):
        it.see(point(task, "submitted"))
    for task in range(0, 8, 2):  # attach gets all that was before at once
        starts_s = now_s - 32.0 + task // 2 * 10
        for one in (task, task + 1):
            it.see(point(one, "running", started_s=starts_s))
        for one in (task, task + 1):
            if task < 6:
                it.see(point(one, "finished", started_s=starts_s, duration_s=10.0))
    shown = it.line(100)
    assert shown.startswith("6/12 done · 2 running · ")
    left = int(shown.partition("about ")[2].partition(" s left")[0])
    assert 20 <= left <= 40
    assert ("32 s" in shown) == (ahead_s == 0)


def test_a_run_without_points_counts_tasks_and_one_without_tasks_says_for_how_long() -> None:
    clock = Clock()
    it = running(clock, "finished", "running", "submitted", is_point=False)
    assert it.line(80).startswith("1/3 tasks done · 1 running")
    clock.now_s = 12.0
    assert running(Clock()).line(80) == "running · 0 s · Ctrl-C leaves it running"


def test_ctrl_c_is_promised_to_leave_it_running_only_where_it_does() -> None:
    assert "Ctrl-C" not in running(Clock(), "running", verb="sweep").line(100)
    assert "Ctrl-C leaves it running" in running(Clock(), "running", verb="attach").line(100)


def test_a_sentence_that_states_something_is_not_what_is_being_done() -> None:
    clock = Clock()
    it = activity(clock, events.Notice("waiting for node-1 to answer"), verb="up")
    clock.now_s = 5.0
    it.see(events.Notice("local nodes share this machine"))
    assert it.line(80) == "waiting for node-1 to answer · 5 s"


@pytest.mark.parametrize("width", [20, 40, 57, 80, 120])
def test_the_line_fits_and_moves_every_second(width: int) -> None:
    stage = events.StageStarted("install", ("node-1", "node-2", "node-3"))
    long = "Compiling rain_server v0.4.0 (/var/lib/rain-deploy/cache/build/rain_server) " * 3
    news = (events.Progress("node-1", long), events.Progress("node-2", f"{long}\t\x1b[2J"))
    notice = events.Notice("waiting for node-1 to answer: " + long)
    for seen in ((), (notice,), (stage,), (stage, news[0]), (stage, *news)):
        clock = Clock()
        it = activity(clock, *seen, verb="up")
        first = it.line(width)
        clock.now_s = 1.0
        assert it.line(width) != first
        assert max(len(it.line(width)), len(first)) <= width
        assert "\x1b" not in first
    many = running(Clock(), *["running"] * 1000, *["finished"] * 1000, *["failed"] * 1000)
    assert len(many.line(width)) <= width


def test_a_step_says_how_much_is_left_by_what_it_took_the_last_time(tmp_path: Path) -> None:
    clock, known = Clock(), History(tmp_path / "durations.json")
    begins = (events.StageStarted("install", ("node-1",)), events.StepStarted("node-1", "install", "engine"))
    it = activity(clock, *begins, verb="up", known=known)
    clock.now_s = 90.0
    assert it.line(80) == "install: node-1 engine · 1 min"
    it.see(events.StepDone("node-1", "install", "engine", "done", 240.0))
    it.see(events.StageEnded("install", (), 240.0))
    clock.now_s = 100.0
    again = activity(clock, *begins, verb="up", known=History(tmp_path / "durations.json"))
    clock.now_s = 160.0
    again.see(events.Progress("node-1", "Compiling rain_server 145/145"))
    assert again.line(80) == "install: node-1 Compiling rain_server 145/145 · 1 min, about 3 min left"
    clock.now_s = 400.0
    assert again.line(80).endswith("145/145 · 5 min"), "what takes longer than the last time promises nothing"


def test_a_stage_promises_nothing_by_what_other_steps_took(tmp_path: Path) -> None:
    """The last time an engine had to be built; this time it is only sent."""
    clock, known = Clock(), History(tmp_path / "durations.json")
    stage = events.StageStarted("install", ("node-1",))
    it = activity(
        clock, stage, events.StepStarted("node-1", "install", "engine build"), verb="up", known=known
    )
    clock.now_s = 240.0
    it.see(events.StepDone("node-1", "install", "engine build", "done", 240.0))
    it.see(events.StageEnded("install", (), 240.0))
    clock.now_s = 0.0
    again = activity(clock, stage, verb="up", known=known)
    assert "left" not in again.line(80)
    again.see(events.StepStarted("node-1", "install", "engine"))
    assert "left" not in again.line(80)


def test_a_wait_and_a_script_are_remembered_too(tmp_path: Path) -> None:
    known = History(tmp_path / "durations.json")
    making, clock = events.Notice("creating node-1, and waiting until it runs"), Clock()
    it = activity(clock, making, verb="up", known=known)
    clock.now_s = 40.0
    it.see(events.StageStarted("facts", ("node-1",)))
    it.see(events.RunChanged(RUN, "running"))
    clock.now_s = 140.0
    it.see(events.RunChanged(RUN, "finished", seconds=100.0))
    again = activity(clock, making, verb="up", known=History(tmp_path / "durations.json"))
    clock.now_s = 150.0
    assert again.line(80).endswith("10 s, about 30 s left")
    again.see(events.RunChanged(RUN, "running"))
    clock.now_s = 190.0
    assert again.line(80) == "running · 40 s, about 1 min left"
    again.see(point(1, "running"))
    assert "left" not in again.line(80), "the last time it had no points"


def test_the_length_of_a_run_that_was_ended_or_had_to_wait_is_not_remembered(tmp_path: Path) -> None:
    clock, known = Clock(), History(tmp_path / "durations.json")
    it = activity(clock, events.RunChanged(RUN, "queued", "1 before it"), known=known)
    clock.now_s = 50.0
    it.see(events.RunChanged(RUN, "starting"))
    clock.now_s = 55.0
    it.see(events.RunChanged(RUN, "running"))
    clock.now_s = 60.0
    it.see(events.RunChanged(RUN, "finished", "cancelled"))
    again = activity(clock, events.RunChanged(RUN, "running"), known=known)
    assert "left" not in again.line(80)


def test_what_is_remembered_is_bounded_and_never_in_the_way(tmp_path: Path) -> None:
    path = tmp_path / "durations.json"
    history = History(path)
    for number in range(KEPT + 50):
        history.add(f"step {number}", 10.0)
    history.add("short", 0.1)
    assert len(json.loads(path.read_text())) == KEPT
    assert History(path).expected_s("short") is None
    for damage in ("{", "[]", '{"a": "b"}', "\0"):
        path.write_text(damage)
        assert History(path).expected_s("a") is None
    path.unlink()
    before = os.umask(0)
    try:
        history.add("step", 10.0)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    History(tmp_path / "no home" / "durations.json").add("step", 10.0)
    assert not (tmp_path / "no home").exists()


@pytest.fixture
def spinner(monkeypatch: pytest.MonkeyPatch) -> Spinner:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then takes the captured stream for a terminal
    return Spinner(activity=Activity("up"))


def test_it_moves_in_the_first_second_without_any_event(
    spinner: Spinner, capsys: pytest.CaptureFixture[str]
) -> None:
    with spinner.work():
        Screen(capsys).until(lambda screen: screen.err.count("up · ") > 1)
    capsys.readouterr()
    spinner(events.Notice("done"))
    time.sleep(2 * REDRAWN_S)
    assert capsys.readouterr().err == "done\n", "nothing moves after the command's end"


def test_a_quick_command_shows_no_line(spinner: Spinner, capsys: pytest.CaptureFixture[str]) -> None:
    with spinner.work():
        pass
    assert capsys.readouterr().err == ""


def test_it_leaves_a_question_and_a_line_that_the_script_has_begun_alone(
    spinner: Spinner, capsys: pytest.CaptureFixture[str]
) -> None:
    screen = Screen(capsys)

    def shown() -> bool:
        capsys.readouterr()
        time.sleep(APPEARS_S + 3 * REDRAWN_S)
        return "up · " in capsys.readouterr().err

    with spinner.work():
        screen.until_drawn("up · ")
        spinner.pause()
        assert not shown()
        spinner(events.Notice("creating node-1"))
        spinner(events.ScriptOutput("stderr", b"epoch 1"))
        assert not shown()
        spinner(events.ScriptOutput("stderr", b" of 2\n"))
        spinner.pause()
        assert not shown()
        spinner.resume()  # the question was answered
        spinner.activity.verb = "up"
        screen.until_drawn("creating node-1 · ")
