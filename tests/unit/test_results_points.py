"""The table of points: the newest row of each task, a column per parameter."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from rain_deploy.node.wire import PointRow, from_json, to_json
from rain_deploy.results.points import (
    Table,
    count_states,
    first_failure,
    fold,
    read_json,
    read_rows,
    state_of,
    write_csv,
    write_json,
)


def row(task: int, state: str = "finished", **more: object) -> PointRow:
    plain = {"task": task, "session": 1, "name": f"lr={task}", "point": True, "state": state}
    return from_json(PointRow, plain | {"parameters": {"lr": task}, "value": 0.5} | more)


def table(*rows: PointRow) -> list[list[str]]:
    text = io.StringIO()
    write_csv(rows, text)
    return list(csv.reader(io.StringIO(text.getvalue())))


def test_the_last_row_of_a_task_wins_and_tasks_come_in_order() -> None:
    folded = fold([row(2, "running"), row(1), row(2, "failed"), row(3, point=False)])
    assert [(r.task, r.state) for r in folded] == [(1, "finished"), (2, "failed")]


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_rows_that_come_in_pieces_are_the_same_rows(size: int) -> None:
    rows = [row(2, "running"), row(1), row(2, "failed"), row(3, point=False)]
    text = b"".join(json.dumps(to_json(one)).encode() + b"\n" for one in rows) + b'{"task": 4'
    pieces = Table()
    for start in range(0, len(text), size):
        pieces.feed(text[start : start + size])
    assert pieces.rows() == fold(rows)
    assert pieces.rows(all_=True) == fold(rows, all_=True)


def test_all_takes_tasks_that_are_no_points_too() -> None:
    assert [r.task for r in fold([row(1), row(3, point=False)], all_=True)] == [1, 3]


def test_equal_task_ids_of_two_sessions_are_two_tasks() -> None:
    assert len(fold([row(1), row(1, session=2)])) == 2


def test_the_header_names_every_parameter_in_order_of_appearance() -> None:
    first, second = row(1, parameters={"lr": 1, "units": 8}), row(2, parameters={"lr": 2, "drop": 0.5})
    lines = table(first, second)
    assert lines[0] == [
        *("task", "name", "lr", "units", "drop"),
        *("value", "state", "cached", "node", "started", "duration_s", "reason"),
    ]
    assert lines[1][2:5] == ["1", "8", ""]
    assert lines[2][2:5] == ["2", "", "0.5"]


def test_without_points_there_is_a_header_alone() -> None:
    head = ["task", "name", "value", "state", "cached", "node", "started", "duration_s", "reason"]
    assert table() == [head]


def test_the_first_failure_is_that_which_came_first_in_one_line() -> None:
    later = row(1, "failed", ended_s=9.0, node="node-1", message="ValueError: no")
    sooner = row(
        2, "failed", ended_s=5.0, node="node-2", name="two\nlines", message="KeyError: 'x'", point=False
    )
    unknown = row(3, "failed", name="", parameters={})
    assert (
        first_failure([row(4), unknown, later, sooner])
        == "task 2 (two lines) failed on node-2: KeyError: 'x'"
    )
    assert first_failure([row(4, "cancelled"), unknown]) == "point 2 failed: no reason given"
    assert first_failure([row(4, "not run"), row(5)]) == ""


def test_every_point_is_counted_in_its_own_state() -> None:
    states = ("not run", "running", "failed", "finished", "not run", "cancelled")
    counts = count_states(row(number, state) for number, state in enumerate(states))
    assert list(counts.items()) == [
        *(("finished", 1), ("failed", 1), ("cancelled", 1)),
        *(("not run", 2), ("running", 1)),
    ]


@pytest.mark.parametrize("state", ["failed", "cancelled", "not run"])
def test_the_reason_stands_in_the_last_column(state: str) -> None:
    head, line = table(row(1, state, message="=why"))
    assert (head[-1], line[-1]) == ("reason", "'=why")


def test_a_parameter_named_as_a_column_does_not_hide_it() -> None:
    lines = table(row(1, parameters={"value": 7}))
    assert dict(zip(lines[0], lines[1], strict=True)) | {"value (parameter)": "7", "value": "0.5"} == dict(
        zip(lines[0], lines[1], strict=True)
    )


def test_times_are_utc_and_nothing_is_an_empty_cell() -> None:
    cells = dict(zip(*table(row(1, started_s=1_700_000_000.25, duration_s=2.5, node=None)), strict=True))
    assert cells["started"] == "2023-11-14T22:13:20.250Z"
    assert cells["duration_s"] == "2.5"
    assert cells["node"] == ""


def test_no_cell_is_a_formula_and_numbers_stay_numbers() -> None:
    cells = table(
        row(1, name="=cmd()|x", value=-0.5, parameters={"a": "@SUM(1)", "b": "-1e-3", "c": "+x", "=d": 1})
    )
    assert cells[0][5] == "'=d"
    assert cells[1][1:7] == ["'=cmd()|x", "'@SUM(1)", "-1e-3", "'+x", "1", "-0.5"]


def test_json_is_valid_json_whatever_was_computed() -> None:
    text = io.StringIO()
    rows = (row(1, value=float("nan")), row(2, value=float("-inf"), name="\udcff"), row(3, value=1e-300))
    write_json(rows, text)
    read = json.loads(text.getvalue(), parse_constant=pytest.fail)
    assert [entry["value"] for entry in read] == ["NaN", "-Infinity", 1e-300]
    assert [one.task for one in read_json(text.getvalue().encode())] == [1, 2, 3]


def test_what_is_no_row_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "points.jsonl"
    good = json.dumps(to_json(row(1)))
    nested = '{"task": 2, "parameters": ' + '{"a":' * 500 + "1" + "}" * 501
    path.write_text("\n".join([good, "[1]", "{", "[" * 100_000, nested, '{"task": "x"}', good[:-5]]) + "\n")
    folded = fold(read_rows(path), all_=True)
    assert folded == (row(1),)


def test_no_file_is_no_rows(tmp_path: Path) -> None:
    assert list(read_rows(tmp_path / "points.jsonl")) == []


def test_values_of_dicts_and_tuples_are_columns_behind_the_value() -> None:
    rows = (
        row(1, value=None, values={"acc": 0.5, "loss": float("nan")}),
        row(2, values={"value_0": 1, "lr": 3, "state": "mine"}),
        row(3, value=float("-inf")),
    )
    head, *lines = table(*rows)
    start = head.index("value")
    assert head[start : head.index("cached")] == [
        *("value", "acc", "loss", "value_0", "lr (result)", "state (result)"),
        "state",
    ]
    assert [line[start : start + 6] for line in lines] == [
        ["", "0.5", "NaN", "", "", ""],
        ["0.5", "", "", "1", "3", "mine"],
        ["-Infinity", "", "", "", "", ""],
    ]


def test_values_by_name_are_in_the_json_too_and_read_back() -> None:
    text = io.StringIO()
    write_json((row(1, values={"acc": 0.5, "loss": float("nan")}),), text)
    assert json.loads(text.getvalue())[0]["values"] == {"acc": 0.5, "loss": "NaN"}
    (back,) = read_json(text.getvalue().encode())
    assert table(back)[1] == table(row(1, values={"acc": 0.5, "loss": float("nan")}))[1]


def test_a_point_of_the_journal_is_cached_in_every_table() -> None:
    kept = row(1, cached=True)
    assert [state_of(one) for one in (row(1), kept, row(1, "failed", cached=True))] == [
        *("finished", "cached", "failed"),
    ]
    cells = dict(zip(*table(kept), strict=True))
    assert (cells["state"], cells["cached"]) == ("finished", "True")
    text = io.StringIO()
    write_json((kept,), text)
    assert json.loads(text.getvalue())[0]["cached"] is True
