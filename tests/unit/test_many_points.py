"""Ten thousand points cost ten times as much as a thousand, from the node's notes to the tables here."""

from __future__ import annotations

import cProfile
import io
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from rain_deploy.node.files import write_json as write_file
from rain_deploy.node.points.recorder import Recorder
from rain_deploy.node.run import load_run
from rain_deploy.node.wire import PointRow, to_json
from rain_deploy.results.details import find_task
from rain_deploy.results.points import (
    Table,
    count_states,
    first_failure,
    numbered,
    value_names,
    write_csv,
    write_json,
)
from tests.unit.test_results_pull import run_record

FEW, MANY = 500, 2000


def calls_of(work: Callable[[], object]) -> int:
    profile = cProfile.Profile()
    profile.runcall(work)
    return sum(one.callcount for one in profile.getstats())


def row(task: int, state: str = "finished") -> PointRow:
    return PointRow(
        task=task,
        session=1,
        name=f"train x={task} y={task % 7}",
        parameters={"x": task, "y": task % 7},
        values={"acc": 0.5, "loss": 1.0},
        state=state,
        point=True,
        key=f"{task:064x}",
    )


def linear(cost: Callable[[int], int]) -> None:
    few, many = cost(FEW), cost(MANY)
    assert many <= 1.1 * few * MANY / FEW + 500, "the part that does not grow is small"


def test_tables_are_linear() -> None:
    def cost(tasks: int) -> int:
        text = b"".join(json.dumps(to_json(row(number))).encode() + b"\n" for number in range(tasks))

        def made() -> None:
            table = Table()
            for start in range(0, len(text), 1 << 16):
                table.feed(text[start : start + (1 << 16)])
            rows = table.rows()
            assert len(rows) == tasks
            write_csv(rows, io.StringIO())
            write_json(rows, io.StringIO())
            count_states(rows)
            first_failure(rows)
            value_names(rows)
            assert len(list(numbered(rows))) == tasks
            assert find_task(rows, "x=3 y=3", run_record(Path("out")))[0] == 4

        return calls_of(made)

    linear(cost)


@pytest.mark.parametrize("named", [True, False])
def test_the_nodes_rows_are_linear(tmp_path: Path, *, named: bool) -> None:
    """All notes at once, as a supervisor reads them that follows a killed one."""

    def cost(tasks: int) -> int:
        path = tmp_path / str(tasks)
        write_file(path / "run.json", {"run": "r1", "sequence": 1, "port": 7230, "script": "s.py"})
        write_file(path / "state.json", {"state": "running", "attempt": 1, "epoch": 4})
        (path / "companion").mkdir()
        run = load_run(path)
        assert run
        with (
            (path / "companion/tasks.jsonl").open("w") as notes,
            (path / "companion/ends.jsonl").open("w") as ends,
        ):
            for number in range(tasks):
                task = {"session": 1, "task": number}
                name = f"train x={number}" if named else "train"
                note = task | {"name": name, "parameters": {"x": number}, "kept": True, "key": "k"}
                notes.write(json.dumps(note) + "\n")
                ends.write(json.dumps(task | {"state": "finished", "value": 0.5}) + "\n")
        recorder = Recorder(run, str)
        calls = calls_of(recorder.step)
        assert recorder.points.kept() == (tasks, tasks)
        assert calls_of(recorder.step) < 100, "what was read is not read again"
        return calls

    linear(cost)


def test_a_point_takes_little_memory_on_the_laptop() -> None:
    tasks = 2000
    lines = [json.dumps(to_json(row(number))).encode() + b"\n" for number in range(tasks)]
    tracemalloc.start()
    try:
        table = Table()
        for line in lines:
            table.feed(line)
        kept_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept_bytes / tasks < 2500
    assert len(table.rows()) == tasks
