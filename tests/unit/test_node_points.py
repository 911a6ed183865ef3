"""Rain's events and the companion's notes become one row per task."""

from __future__ import annotations

import cProfile
import json
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from rain_deploy.node.points.events import Event
from rain_deploy.node.points.notes import TaskEnd, TaskNote, ValueNote
from rain_deploy.node.points.table import Points
from rain_deploy.node.wire import PointRow, from_json, to_json

T0 = "2026-11-24T08:30:57.948482259+00:00"
T0_S = 1795509057.948482


def points(known: list[dict[str, Any]] | None = None) -> Points:
    blank = PointRow(task=0, run="r1", attempt=1, epoch=7)
    rows = [from_json(PointRow, row) for row in known or []]
    return Points(blank, node_name=lambda governor: f"<{governor}>", known=rows)


def event(kind: str, **data: Any) -> Event:
    return Event(0, T0, kind, {"type": kind, **data})


def submit(session: int, **names: str) -> Event:
    """Tasks ``t12="name"``."""
    specs = [{"id": [session, int(key[1:])], "name": name, "task_type": "py/"} for key, name in names.items()]
    return event("ClientSubmit", tasks=specs, dataobjs=[])


def finished(session: int, task: int, error: str = "") -> Event:
    info: dict[str, Any] = {"governor": "10.0.0.2:7302", "start_time": T0, "duration": 2.5}
    return event("TaskFinished", task=[session, task], info=info | ({"error": error} if error else {}))


def fold(table: Points, *events: Event) -> dict[int, dict[str, Any]]:
    for one in events:
        table.apply(one)
    return {row.task: to_json(row) for row in table.changed()}


def test_a_row_follows_its_task_from_submission_to_its_end() -> None:
    table = points()
    submitted = fold(table, submit(1, t12="mnist size=32"))[12]
    assert (submitted["state"], submitted["started_s"], submitted["ended_s"]) == ("submitted", None, None)
    running = fold(table, event("TaskStarted", task=[1, 12], info={}))[12]
    assert (running["state"], running["node"]) == ("running", None)
    assert fold(table, finished(1, 12))[12] == {
        "run": "r1",
        "attempt": 1,
        "epoch": 7,
        "task": 12,
        "session": 1,
        "name": "mnist size=32",
        "parameters": {"size": 32},
        "value": None,
        "values": {},
        "node": "<10.0.0.2:7302>",
        "started_s": pytest.approx(T0_S),
        "ended_s": pytest.approx(T0_S + 2.5),
        "duration_s": 2.5,
        "state": "finished",
        "source": "engine",
        "point": True,
        "key": "",
        "cached": False,
        "message": "",
    }


def test_only_rows_that_changed_are_given() -> None:
    table = points()
    assert set(fold(table, submit(1, t1="a x=1", t2="b x=2"))) == {1, 2}
    assert set(fold(table, finished(1, 2))) == {2}
    assert fold(table, event("Monitoring", governor="10.0.0.2:7302")) == {}


def test_rows_given_before_a_restart_are_not_given_again() -> None:
    events = submit(1, t1="a x=1"), finished(1, 1)
    before = list(fold(points(), *events).values())
    written = json.loads(json.dumps(before))
    assert fold(points(written), *events) == {}


def test_a_value_that_the_script_loads_joins_its_row() -> None:
    table = points()
    fold(table, submit(3, t9="a x=1"), finished(3, 9))
    table.note_value(ValueNote(3, 9, 0.97))
    [row] = table.changed()
    assert (row.value, row.source, row.state) == (0.97, "companion", "finished")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_value_that_is_no_finite_number_is_kept(value: float) -> None:
    table = points()
    fold(table, submit(1, t1="a x=1"))
    table.note_value(ValueNote(1, 1, value))
    row = json.loads(json.dumps(fold(table, finished(1, 1))[1]))
    assert (str(row["value"]), row["message"], row["state"]) == (str(value), "", "finished")
    assert fold(table) == {}, "it is not another value each time"


def test_values_by_name_join_their_row() -> None:
    table = points()
    fold(table, submit(1, t1="a x=1"), finished(1, 1))
    table.note_value(from_json(ValueNote, {"session": 1, "task": 1, "values": {"acc": 0.5, "loss": 1}}))
    [row] = table.changed()
    assert (row.value, row.values, row.source) == (None, {"acc": 0.5, "loss": 1}, "companion")


def test_named_tasks_are_the_points_where_any_is_named() -> None:
    table = points()
    table.note_task(TaskNote(1, 1, {}, kept=True))
    rows = fold(table, submit(1, t1="load", t2="train x=1"))
    assert {task: row["point"] for task, row in rows.items()} == {1: False, 2: True}


def test_else_kept_tasks_are_points_with_the_arguments_as_columns() -> None:
    table = points()
    table.note_task(TaskNote(1, 1, {}, kept=False))
    table.note_task(TaskNote(1, 2, {"x": 3}, kept=True))
    rows = fold(table, submit(1, t1="load", t2="train"))
    assert {task: (row["point"], row["parameters"]) for task, row in rows.items()} == {
        1: (False, {}),
        2: (True, {"x": 3}),
    }


def test_a_later_named_task_takes_the_place_of_kept_ones() -> None:
    table = points()
    table.note_task(TaskNote(1, 1, {}, kept=True))
    assert fold(table, submit(1, t1="load"))[1]["point"]
    assert not fold(table, submit(1, t2="train x=1"))[1]["point"]


def test_sessions_do_not_decide_for_each_other() -> None:
    table = points()
    table.note_task(TaskNote(2, 1, {"x": 1}, kept=True))
    fold(table, submit(1, t1="a x=1"))
    assert fold(table, submit(2, t1="b"))[1]["point"]


def test_one_failed_task_fails_its_session() -> None:
    table = points()
    error = 'Traceback (most recent call last):\n  File "t.py"\nValueError: no\n\nTask failed in executor'
    closed = event("SessionClosed", session=1, reason="Error", message=error)
    rows = fold(
        table, submit(1, t1="a x=1", t2="b x=2", t3="c x=3"), finished(1, 1), closed, finished(1, 2, error)
    )
    assert {task: (row["state"], row["message"]) for task, row in rows.items()} == {
        1: ("finished", ""),
        2: ("failed", "ValueError: no"),
        3: ("not run", "another task of its session failed"),
    }


def test_a_task_that_ran_when_another_failed_is_cancelled_and_no_failure() -> None:
    closed = event("SessionClosed", session=1, reason="Error", message="no")
    started = event("TaskStarted", task=[1, 1], info={})
    rows = fold(points(), submit(1, t1="a x=1", t2="b x=2"), started, finished(1, 2, "no"), closed)
    assert {task: row["state"] for task, row in rows.items()} == {1: "cancelled", 2: "failed"}


def test_a_task_that_nobody_waited_for_did_not_fail() -> None:
    closed = event("SessionClosed", session=1, reason="ClientClose", message="")
    row = fold(points(), submit(1, t1="a x=1"), closed)[1]
    assert (row["state"], row["message"]) == ("not run", "the script closed its session")


@pytest.mark.parametrize(
    "why",
    ["the run was cancelled", "the script did not end within 60 s", "node-1 was restarted before it ended"],
)
def test_a_session_that_was_closed_because_the_run_was_ended_says_why(why: str) -> None:
    table = points()
    table.run_end = why
    closed = event("SessionClosed", session=1, reason="ClientClose", message="")
    started = event("TaskStarted", task=[1, 1], info={})
    rows = fold(table, submit(1, t1="a x=1", t2="a x=2"), started, closed)
    assert {(row["state"], row["message"]) for row in rows.values()} == {("cancelled", why), ("not run", why)}


def test_after_the_end_of_a_run_nothing_runs_or_waits() -> None:
    table, started = points(), event("TaskStarted", task=[1, 2], info={})
    fold(table, submit(1, t1="a x=1", t2="a x=2", t3="a x=3"), started, finished(1, 3))
    fold(table, submit(2, t1="b"))
    table.close("cancelled by the user")
    ends = {(row.session, row.task): (row.state, row.message) for row in table.changed()}
    never = ("not run", "cancelled by the user")
    assert ends == {(1, 1): never, (1, 2): ("cancelled", never[1]), (2, 1): never}


def test_a_run_whose_log_is_lost_ends_the_rows_that_were_written_before() -> None:
    before = list(fold(points(), submit(1, t1="a x=1", t2="a x=2"), finished(1, 1)).values())
    table = points(before)
    table.close("the node was restarted")
    assert [(row.task, row.state) for row in table.changed()] == [(2, "not run")]


def calls_of(work: Callable[[], object]) -> int:
    profile = cProfile.Profile()
    profile.runcall(work)
    return sum(one.callcount for one in profile.getstats())


@pytest.mark.parametrize("named", [False, True])
def test_a_task_costs_the_same_however_many_there_are(*, named: bool) -> None:
    def cost(tasks: int) -> int:
        table = points()
        names = {f"t{number}": f"a x={number}" if named else "a" for number in range(tasks)}
        fold(table, submit(1, **names))
        for number in range(tasks):
            table.note_task(TaskNote(1, number, {"x": number}, kept=True))
        table.changed()

        def one_task_ends() -> None:
            table.apply(event("TaskStarted", task=[1, 7], info={}))
            table.apply(finished(1, 7))
            table.note_value(ValueNote(1, 7, 1.5))
            assert len(table.changed()) == 1

        return calls_of(one_task_ends)

    assert cost(2000) == cost(20)


def test_a_task_takes_little_memory() -> None:
    tasks = 3000
    table = points()
    tracemalloc.start()
    try:
        table.apply(submit(1, **{f"t{number}": "" for number in range(tasks)}))
        for number in range(tasks):
            table.note_task(TaskNote(1, number, {"x": number}, kept=True))
        table.changed()
        for number in range(tasks):
            table.apply(event("TaskStarted", task=[1, number], info={}))
            table.apply(finished(1, number))
            table.changed()
        kept_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept_bytes / tasks < 2500  # 250 MB for 100,000 tasks


def test_a_session_costs_the_same_however_many_there_were_before() -> None:
    def cost(sessions: int) -> int:
        table = points()
        for session in range(sessions):
            fold(table, submit(session, t1="a x=1"), finished(session, 1))

        def one_session_more() -> None:
            closed = event("SessionClosed", session=sessions, reason="Error", message="")
            assert len(fold(table, submit(sessions, t1="a x=1", t2="b"), closed)) == 2

        return calls_of(one_session_more)

    assert cost(500) == cost(5)


def test_a_programs_failure_is_reported_by_its_first_line() -> None:
    error = "Program exit with exit code 1\nStderr: \n"
    assert fold(points(), submit(1, t1="e"), finished(1, 1, error))[1]["message"] == error.splitlines()[0]


def test_an_exception_whose_text_has_lines_is_reported_by_its_first_one() -> None:
    error = (
        'Traceback (most recent call last):\n  File "t.py", line 7, in train\n    raise E\n'
        "my.Error: it broke\n  in two\nlines\n\nTask failed in executor"
    )
    assert fold(points(), submit(1, t1="e"), finished(1, 1, error))[1]["message"] == "my.Error: it broke"


def test_the_end_of_all_noted_tasks_is_known() -> None:
    table = points()
    assert not table.complete(1)
    table.note_task(TaskNote(1, 1, {}, kept=True))
    assert not table.complete(1)
    fold(table, submit(1, t1="a"), finished(1, 1))
    assert table.complete(1)


def end(session: int, task: int, state: str = "finished", **more: Any) -> TaskEnd:
    return from_json(TaskEnd, {"session": session, "task": task, "state": state} | more)


def one(table: Points) -> PointRow:
    [row] = table.changed()
    return row


def test_an_end_from_the_helper_is_final() -> None:
    table = points()
    fold(table, submit(1, t1="a x=1"))
    table.note_end(end(1, 1, value=3, node="node-2", started_s=1.0, ended_s=3.0, duration_s=2.0))
    row = one(table)
    assert (row.state, row.value, row.node) == ("finished", 3, "node-2")
    assert (row.started_s, row.ended_s, row.duration_s, row.source) == (1.0, 3.0, 2.0, "companion")
    closed = event("SessionClosed", session=1, reason="Error", message="no")
    assert fold(table, event("TaskStarted", task=[1, 1], info={}), finished(1, 1, "no"), closed) == {}


def test_a_failure_of_the_helper_wins_over_rains_end() -> None:
    table = points()
    fold(table, submit(1, t1="a x=1"), finished(1, 1))
    error = 'Traceback (most recent call last):\n  File "t.py"\nValueError: no\n'
    table.note_end(end(1, 1, "failed", message=error))
    row = one(table)
    assert (row.state, row.message, row.node) == ("failed", "ValueError: no", "<10.0.0.2:7302>")


def test_a_task_whose_result_is_kept_is_finished_when_the_journal_has_it() -> None:
    table = points()
    table.note_task(TaskNote(1, 1, key="k"))
    rows = fold(table, submit(1, t1="a x=1"), event("TaskStarted", task=[1, 1], info={}), finished(1, 1))
    assert rows[1]["state"] == "running"
    table.note_end(end(1, 1))
    assert one(table).state == "finished"


def test_a_task_that_fails_has_failed_at_once() -> None:
    table = points()
    table.note_task(TaskNote(1, 1, key="k"))
    assert fold(table, submit(1, t1="a x=1"), finished(1, 1, "no"))[1]["state"] == "failed"


def test_a_failure_that_spares_the_others_has_failed_at_once() -> None:
    table = points()
    table.note_task(TaskNote(1, 1, key="k"))
    info = {"duration": 1.0, "user": {"rain-deploy": {"failed": "ValueError: no"}}}
    row = fold(table, submit(1, t1="a x=1"), event("TaskFinished", task=[1, 1], info=info))[1]
    assert (row["state"], row["message"]) == ("failed", "ValueError: no")


def test_a_new_result_in_the_journal_is_progress() -> None:
    table = points()
    table.note_task(TaskNote(1, 1, key="k", name="a x=1"))
    table.note_task(TaskNote(1, 2, key="", name="a x=2"))
    table.note_task(TaskNote(1, 3, key="h", name="a x=3", hit=True))
    table.note_end(end(1, 1, "failed"))
    table.note_end(end(1, 2))
    table.note_end(end(1, 3, hit=True))
    assert (table.progressed, table.kept()) == (False, (1, 3))
    table.note_end(end(1, 1))
    assert (table.progressed, table.kept()) == (True, (2, 3))


def kept_and_finished() -> Points:
    table = points()
    table.note_task(TaskNote(1, 1, key="k"))
    fold(table, submit(1, t1="a x=1"), event("TaskStarted", task=[1, 1], info={}), finished(1, 1))
    return table


def test_without_a_helper_rains_end_counts_when_the_run_ends() -> None:
    table = kept_and_finished()
    fold(table, event("SessionClosed", session=1, reason="ClientClose", message=""))
    table.close("the script ended")
    row = one(table)
    assert (row.state, row.key, row.duration_s) == ("finished", "", 2.5), "the journal does not have it"


def test_without_a_helper_rains_end_counts_once_the_script_says_that_nobody_keeps_it() -> None:
    table = kept_and_finished()
    table.note_task(TaskNote(1, 1))
    row = one(table)
    assert (row.state, row.key) == ("finished", "")


def test_what_only_rain_finished_runs_again_when_the_engine_is_lost() -> None:
    table = kept_and_finished()
    table.requeue()
    row = one(table)
    assert (row.state, row.started_s, row.key) == ("submitted", None, "k")
    table.close("the script ended")
    assert one(table).state == "not run"


def test_a_hit_has_no_event() -> None:
    table = points()
    table.note_task(TaskNote(1, 1, name="a x=1", key="k", hit=True))
    table.note_end(end(1, 1, value=1.5, hit=True))
    row = one(table)
    assert (row.name, row.parameters, row.point) == ("a x=1", {"x": 1}, True)
    assert (row.state, row.value, row.key, row.cached) == ("finished", 1.5, "k", True)
    assert table.complete(1)


def test_names_of_hits_decide_for_those_of_tasks_that_run() -> None:
    table = points()
    table.note_task(TaskNote(1, 1, {"y": 2}, kept=True, name="load"))
    table.note_task(TaskNote(1, 2, {"y": 2}, name="a x=1", hit=True))
    told = {row.task: (row.parameters, row.point) for row in table.changed()}
    assert told == {1: ({}, False), 2: ({"x": 1}, True)}


@pytest.mark.parametrize("script_first", [True, False])
def test_the_value_that_the_script_loads_wins(*, script_first: bool) -> None:
    table = points()
    if script_first:
        table.note_value(ValueNote(1, 1, 2.0))
    table.note_end(end(1, 1, values={"a": 1}))
    if not script_first:
        table.note_value(ValueNote(1, 1, 2.0))
    row = one(table)
    assert (row.value, row.values) == (2.0, {})
