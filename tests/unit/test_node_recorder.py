"""points.jsonl grows by changes alone, whoever writes beside it and whenever its writer was killed."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from rain_deploy.node.files import write_json
from rain_deploy.node.points import Recorder
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
        '{"session": 1, "task": 2, "value": "much"}',
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
