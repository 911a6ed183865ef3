"""points.jsonl grows by changes alone, whoever writes beside it and whenever its writer was killed."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from rain_deploy.node.files import write_json
from rain_deploy.node.points.recorder import Recorder
from rain_deploy.node.run import Run, load_run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    path = tmp_path / "r1"
    write_json(path / "run.json", {"run": "r1", "sequence": 1, "port": 7230, "script": "s.py"})
    write_json(path / "state.json", {"state": "running", "attempt": 1, "epoch": 4})
    (path / "companion").mkdir()
    (path / "epochs/1/log").mkdir(parents=True)
    with contextlib.closing(sqlite3.connect(path / "epochs/1/log/events.db")) as connection:
        connection.execute(
            "CREATE TABLE events (id INTEGER PRIMARY KEY, timestamp, event_type, session, event)"
        )
        tasks = [{"id": [1, number], "name": f"a x={number}"} for number in (1, 2)]
        event = json.dumps({"type": "ClientSubmit", "tasks": tasks, "dataobjs": []})
        row = (1, "2026-11-24T08:30:57+00:00", "ClientSubmit", 1, event)
        connection.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?)", row)
        connection.commit()
    loaded = load_run(path)
    assert loaded
    return loaded


def recorder(run: Run) -> Recorder:
    return Recorder(run, lambda governor: governor)


def rows(run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.path / "points.jsonl").read_text().splitlines()]


def test_nothing_is_written_when_nothing_changed(run: Run) -> None:
    writer = recorder(run)
    writer.step()
    writer.step()
    recorder(run).step()  # a supervisor that follows a killed one
    assert [(row["task"], row["epoch"]) for row in rows(run)] == [(1, 4), (2, 4)]


def test_half_a_line_of_a_killed_writer_is_written_anew(run: Run) -> None:
    recorder(run).step()
    output = run.path / "points.jsonl"
    output.write_bytes(output.read_bytes()[:-20])
    recorder(run).step()
    assert [row["task"] for row in rows(run)] == [1, 2]


def test_values_are_taken_as_they_were_and_nonsense_is_passed_over(run: Run) -> None:
    notes = [
        '{"session": 1, "task": 1, "value": 3}',
        '{"session": 1, "task": 2, "value": NaN}',
        '{"session": 1, "value": 3}',
        '{"session": 1, "task": 2, "value": ["much"]}',
        f'{{"session": 1, "task": 2, "value": 1{"0" * 400}}}',
        '{"session": null, "task": 2, "value": 1}',
        "[]",
        "no json",
    ]
    (run.path / "companion/values.jsonl").write_text("\n".join(notes) + "\n")
    recorder(run).step()
    told = {row["task"]: (str(row["value"]), row["source"], row["message"]) for row in rows(run)}
    assert told == {1: ("3", "companion", ""), 2: ("nan", "companion", "")}


def test_the_log_is_complete_when_every_client_was_seen_to_go_or_every_task_to_end(run: Run) -> None:
    writer = recorder(run)
    writer.step()
    assert not writer.points.complete(1)
    assert writer.points.complete(0)


def note(run: Run, file_name: str, **line: Any) -> None:
    with (run.path / "companion" / file_name).open("a") as file:
        file.write(json.dumps({"session": 1} | line) + "\n")


def test_the_end_of_a_task_needs_no_event(run: Run) -> None:
    note(run, "tasks.jsonl", task=7, name="a x=7", key="k7", kept=True)
    note(run, "ends.jsonl", task=7, state="finished", node="node-2", value=0.5, duration_s=1.5)
    writer = recorder(run)
    writer.step()
    row = rows(run)[-1]
    assert (row["task"], row["state"], row["node"], row["value"]) == (7, "finished", "node-2", 0.5)
    assert (row["key"], row["parameters"], row["point"], row["cached"]) == ("k7", {"x": 7}, True, False)
    assert writer.points.complete(1), "nothing waits for the event log"


def test_nonsense_among_the_ends_is_passed_over(run: Run) -> None:
    note(run, "ends.jsonl", task=1, state="good")
    note(run, "ends.jsonl", task=1, state="finished", value=10**400)
    note(run, "ends.jsonl", task=1)
    note(run, "ends.jsonl", task=2, state="finished")
    recorder(run).step()
    assert {row["task"]: row["state"] for row in rows(run)} == {1: "submitted", 2: "finished"}


def next_attempt(run: Run) -> Recorder:
    run.update(attempt=2, epoch=5)
    for name in ("tasks", "ends", "values"):
        (run.path / "companion" / f"{name}.jsonl").unlink(missing_ok=True)
    return recorder(run)


def test_a_row_goes_on_over_attempts(run: Run) -> None:
    note(run, "tasks.jsonl", task=1, name="a x=1", key="k1")
    note(run, "tasks.jsonl", task=2, name="a x=2", key="k2")
    note(run, "ends.jsonl", task=1, state="finished", value=1.0, node="node-1")
    lost = recorder(run)
    lost.step()
    lost.requeue()
    second = next_attempt(run)
    second.step()
    told = {row["task"]: (row["attempt"], row["state"], row["value"]) for row in rows(run)}
    assert told == {1: (1, "finished", 1.0), 2: (1, "submitted", None)}, "nobody spoke of them yet"
    note(run, "tasks.jsonl", task=1, name="a x=1", key="k1", hit=True)
    note(run, "tasks.jsonl", task=2, name="a x=2", key="k2")
    second.step()
    new = {row["task"]: (row["attempt"], row["epoch"], row["state"], row["cached"]) for row in rows(run)}
    assert new == {1: (2, 5, "submitted", True), 2: (2, 5, "submitted", False)}
    note(run, "ends.jsonl", task=1, state="finished", value=1.0, node="node-1", hit=True)
    second.step()
    recorder(run).step()  # a supervisor that follows a killed one
    assert len(rows(run)) == 5
    assert (rows(run)[-1]["state"], rows(run)[-1]["value"], rows(run)[-1]["cached"]) == (
        "finished",
        1.0,
        True,
    )


def test_what_no_attempt_ended_ends_with_the_run(run: Run) -> None:
    note(run, "ends.jsonl", task=1, state="finished")
    recorder(run).step()
    second = next_attempt(run)
    second.step()
    second.close("the script ended with exit code 1")
    told = {row["task"]: (row["attempt"], row["state"]) for row in rows(run)}
    assert told == {1: (1, "finished"), 2: (1, "not run")}


def details(run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.path / "details.jsonl").read_text().splitlines()]


def test_more_is_known_of_a_task_than_its_row_says(run: Run) -> None:
    error = 'Traceback (most recent call last):\n  File "t.py", line 7\nValueError: ä\n'
    note(run, "tasks.jsonl", task=1, name="a x=1", parameters={"seed": 3}, doubt="It draws lots.")
    note(run, "tasks.jsonl", task=2, name="a x=2")
    note(run, "misses.jsonl", task=2, why="its function changed")
    note(run, "ends.jsonl", task=1, state="failed", message=error)
    recorder(run).step()
    same: dict[str, Any] = {"session": 1, "attempt": 1}
    assert details(run) == [
        {"task": 1, "arguments": {"seed": 3}, "unkept": "It draws lots.", **same},
        {"task": 2, "missed": "its function changed", **same},
        {"task": 1, "error": error, **same},
    ]
    recorder(run).step()  # a supervisor that follows a killed one
    assert len(details(run)) == 3
    assert [row["message"] for row in rows(run) if row["state"] == "failed"] == ["ValueError: ä"]


def test_what_changed_for_all_tasks_is_a_line_for_the_user_once(run: Run) -> None:
    note(run, "misses.jsonl", task=0, session=0, why="a.py changed", of_all=True)
    recorder(run).step()
    recorder(run).step()  # a supervisor that follows a killed one
    assert [event.message for event in run.status().events] == ["a.py changed"]
    assert not (run.path / "details.jsonl").exists()


def test_half_a_detail_of_a_killed_writer_spoils_no_other(run: Run) -> None:
    note(run, "ends.jsonl", task=1, state="failed", message="no")
    recorder(run).step()
    path = run.path / "details.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    recorder(run).step()
    assert json.loads(path.read_text().splitlines()[-1])["error"] == "no"


def test_a_very_long_error_keeps_its_beginning_and_its_end(run: Run) -> None:
    note(run, "ends.jsonl", task=1, state="failed", message=f"first{'x' * 500_000}last")
    recorder(run).step()
    (detail,) = details(run)
    assert len(detail["error"]) < 70_000
    assert (detail["error"][:5], detail["error"][-4:]) == ("first", "last")


def test_the_error_of_rain_is_kept_where_there_is_no_helper(run: Run) -> None:
    with contextlib.closing(sqlite3.connect(run.path / "epochs/1/log/events.db")) as connection:
        data = json.dumps({"task": [1, 2], "info": {"error": "Program exit with exit code 1\nStderr: no"}})
        row = (2, "2026-11-24T08:30:58+00:00", "TaskFinished", 1, data)
        connection.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?)", row)
        connection.commit()
    recorder(run).step()
    assert details(run)[0]["error"].endswith("Stderr: no")
