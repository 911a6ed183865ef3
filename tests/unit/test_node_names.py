"""Parameters are read from the names of tasks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rain_deploy.node.points.names import parameters, readable, reason


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mnist size=32 dropout=0.2", {"size": 32, "dropout": 0.2}),
        ("lr=1e-3,units=64; act=relu", {"lr": 1e-3, "units": 64, "act": "relu"}),
        ("shift=-3 rate=-.5 big=+7", {"shift": -3, "rate": -0.5, "big": 7}),
        ("bias=True cold=false", {"bias": True, "cold": False}),
        ('label="a b, c" other=\'x;y\' empty=""', {"label": "a b, c", "other": "x;y", "empty": ""}),
        ("opt.lr=0.1 n-2=5", {"opt.lr": 0.1, "n-2": 5}),
        ("x=1 x=2", {"x": 2}),
        ("version=1.2.3 big=1e999 odd=nan", {"version": "1.2.3", "big": "1e999", "odd": "nan"}),
        ("load_data", {}),
        ("a = b, 3=4", {}),
        ("", {}),
    ],
)
def test_values_are_what_a_reader_takes_them_for(name: str, expected: dict[str, object]) -> None:
    found = parameters(name)
    assert found == expected
    assert {key: type(value) for key, value in found.items()} == {k: type(v) for k, v in expected.items()}


RUN = "/srv/c/runs/r1/files"
FRAMES = """Traceback (most recent call last):
  File "/envs/1/lib/python3.11/site-packages/rain/executor/executor.py", line 147, in unpack_and_run_task
    task_results = self.run_task(task_context, inputs, outputs)
                   ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  File "/envs/1/lib/python3.11/site-packages/rain/executor/executor.py", line 205, in run_task
    result = fn(context, *args, **kwargs)
  File "/srv/c/runs/r1/files/lib/model.py", line 7, in train
    open("/srv/c/runs/r1/files/data/x.csv")
FileNotFoundError: [Errno 2] No such file or directory: '/srv/c/runs/r1/files/data/x.csv'
"""
SHOWN = """Traceback (most recent call last):
  (2 calls inside Rain)
  File "lib/model.py", line 7, in train
    open("data/x.csv")
FileNotFoundError: [Errno 2] No such file or directory: 'data/x.csv'
"""


def test_an_error_has_the_paths_that_its_author_knows() -> None:
    assert readable(FRAMES, RUN) == SHOWN
    assert reason(SHOWN) == "FileNotFoundError: [Errno 2] No such file or directory: 'data/x.csv'"
    assert readable("Program exit with exit code 3", RUN) == "Program exit with exit code 3"
    assert readable("a/b", "") == "a/b"


@given(st.text())
def test_any_error_is_shown_without_a_fault(error: str) -> None:
    readable(error, RUN)


@given(st.dictionaries(st.from_regex(r"[a-z_]\w{0,8}", fullmatch=True), st.integers() | st.booleans()))
def test_what_is_written_is_read(values: dict[str, int | bool]) -> None:
    assert parameters("task " + " ".join(f"{key}={value}" for key, value in values.items())) == values


@given(st.text())
def test_any_name_is_read_without_a_fault(name: str) -> None:
    assert all(isinstance(key, str) for key in parameters(name))
