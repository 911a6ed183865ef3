"""Parameters are read from the names of tasks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rain_deploy.node.points.names import parameters


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


@given(st.dictionaries(st.from_regex(r"[a-z_]\w{0,8}", fullmatch=True), st.integers() | st.booleans()))
def test_what_is_written_is_read(values: dict[str, int | bool]) -> None:
    assert parameters("task " + " ".join(f"{key}={value}" for key, value in values.items())) == values


@given(st.text())
def test_any_name_is_read_without_a_fault(name: str) -> None:
    assert all(isinstance(key, str) for key in parameters(name))
