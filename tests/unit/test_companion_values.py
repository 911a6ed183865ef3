"""What a task returned becomes values by name, if it is a small dict, tuple or list with numbers."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import pytest

from rain_deploy.companion.values import value_note


class Score(NamedTuple):
    acc: float
    loss: float


NOTES: dict[str, tuple[Any, dict[str, Any]]] = {
    "number": (0.5, {"value": 0.5}),
    "number of numpy": (np.float64(0.5), {"value": 0.5}),
    "truth": (True, {"value": True}),
    "dict": ({"acc": 0.5, "loss": 2}, {"values": {"acc": 0.5, "loss": 2}}),
    "dict with keys that are no texts": ({1: 0.5}, {"values": {"1": 0.5}}),
    "dict with other things": (
        {"acc": 0.5, "model": object(), "name": "a"},
        {"values": {"acc": 0.5, "name": "a"}},
    ),
    "dict with a long text": ({"acc": 0.5, "log": "x" * 1000}, {"values": {"acc": 0.5}}),
    "tuple": ((1, 2.5), {"values": {"value_0": 1, "value_1": 2.5}}),
    "list with numbers of numpy": ([np.float32(0.5)], {"values": {"value_0": 0.5}}),
    "array": (np.array([1.5, 2]), {"values": {"value_0": 1.5, "value_1": 2.0}}),
    "named tuple": (Score(0.5, 2), {"values": {"acc": 0.5, "loss": 2}}),
    "texts alone": (["a", "b"], {}),
    "text": ("0.5", {"value": "0.5"}),
    "long text": ("x" * 201, {}),
    "no text": ("", {}),
    "number that is too large for a table": (2**1024, {}),
    "nothing": (None, {}),
    "empty": ({}, {}),
    "data": (list(range(51)), {}),
    "array of data": (np.zeros(1000), {}),
    "matrix": (np.zeros((2, 2)), {}),
    "big dict": (dict.fromkeys(range(51), 1), {}),
}


@pytest.mark.parametrize("what", NOTES)
def test_a_result_becomes_values(what: str) -> None:
    result, note = NOTES[what]
    assert value_note(result) == note


def test_no_number_is_a_number_too() -> None:
    assert math.isnan(value_note(float("nan"))["value"])
    assert math.isnan(value_note({"loss": np.float32("nan")})["values"]["loss"])
