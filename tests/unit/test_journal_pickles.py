"""Digests of pickles: what is left out, and that what cannot be read counts byte by byte."""

from __future__ import annotations

import hashlib
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from rain_deploy.companion.journal.pickles import LARGEST_BYTES, Pickles


def _digest(value: Any, **how: Any) -> bytes:
    return _pickles().digest(cloudpickle.dumps(value, **how))


def _pickles() -> Pickles:
    return Pickles(lambda text: text, ())


def _function(text: str, line: int = 1, file: str = "a.py") -> Any:
    found: dict[str, Any] = {"__name__": "__main__", "RATE": 3}
    exec(compile("\n" * line + text, file, "exec"), found)  # noqa: S102
    return found["f"]


F = """\
def f(x):
    try:
        return [y * RATE for y in x]
    except ValueError:
        return lambda: x
"""


def test_lines_and_file_names_do_not_count_and_all_else_does() -> None:
    first = _digest(_function(F))
    assert _digest(_function(F, line=300, file="b.py")) == first
    assert _digest(_function(F.replace("    try", "    # why\n\n    try"))) == first
    others = [
        F.replace("y * RATE", "y + RATE"),
        F.replace("lambda: x", "lambda: y"),
        F.replace("ValueError", "KeyError"),
        F.replace("f(x)", "f(x, z=1)"),
        F.replace("    try", "    'text'\n    try"),
    ]
    assert len({first, *(_digest(_function(other)) for other in others)}) == 6


def test_texts_count_by_value_and_containers_by_identity() -> None:
    text, path = "a b", Path("x")
    assert _digest([path, text, text]) == _digest([path, *(" ".join(letters) for letters in ("ab", "ab"))])
    one: list[int] = []
    assert _digest([path, one, one]) != _digest([path, [], []])
    cycle: list[Any] = [path]
    cycle.append(cycle)
    assert _digest(cycle) == _digest(cycle) != _digest([path, [path]])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([1, 2], [1, 3]),
        ([1], [True]),
        ([1], [1.0]),
        ([0.0], [-0.0]),
        (["1"], [b"1"]),
        ([[1], [2]], [[1, 2]]),
        ([(1,), 2], [(1, 2)]),
        ([None], ["None"]),
        ([{1: 2}], [{2: 1}]),
        ([bytearray(b"1")], [b"1"]),
        ([Path("a/b")], [Path("a", "c")]),
        ([10**30], [10**30 + 1]),
        ([Exception("a")], [Exception("b")]),
    ],
)
def test_different_values_have_different_digests(one: list[Any], other: list[Any]) -> None:
    mark = Path("read op by op")
    assert _digest([mark, *one]) != _digest([mark, *other])
    assert _digest([mark, *one]) == _digest([mark, *one])


def test_a_pickle_that_needs_nothing_left_out_is_not_read() -> None:
    pickles, data = _pickles(), cloudpickle.dumps({"a": [1, "b"]})
    assert (pickles.digest(data), pickles.read) == (hashlib.sha256(b"bytes" + data).digest(), 0)
    large = cloudpickle.dumps([Path("a"), bytes(LARGEST_BYTES)])
    assert (pickles.digest(large), pickles.read) == (hashlib.sha256(b"bytes" + large).digest(), 0)


@pytest.mark.parametrize(
    "data",
    [
        pickle.dumps(Path("a"), protocol=0),
        pickle.dumps(Path("a"), protocol=2),
        b"pathlib",
        pickle.dumps([Path("a")])[:-4],
        b"\x80\x05h\x07\x8c\x07pathlib.",
        b"\x80\x05)R\x8c\x07pathlib.",
    ],
)
def test_what_cannot_be_read_counts_byte_by_byte(data: bytes) -> None:
    assert _pickles().digest(data) == hashlib.sha256(b"bytes" + data).digest()


def test_every_op_of_cloudpickle_is_known_or_counts_byte_by_byte() -> None:
    """Each prefix of a large pickle, and each byte changed: an answer, never an exception."""
    data = cloudpickle.dumps([_function(F), Path("a"), {1: {2, 3}}, frozenset({4}), b"5", 6.0, None])
    pickles = _pickles()
    whole = pickles.digest(data)
    digests = [pickles.digest(data[:length]) for length in range(0, len(data), 7)]
    assert whole not in digests
    flipped = (
        data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :] for place in range(0, len(data), 7)
    )
    assert {len(pickles.digest(each)) for each in flipped} == {32}


CLASSES = """
import cloudpickle, dataclasses, enum, sys
sys.path.insert(0, {root!r})
from rain_deploy.companion.journal.pickles import Pickles
def made():
    class Same:
        pass
    return Same
@dataclasses.dataclass
class Point:
    x: int = 1
class Colour(enum.Enum):
    RED = 1
A, B = made(), made()
pickles = Pickles(lambda text: text, ())
values = [Point(2), Colour.RED, A(), B(), (A(), B()), (A(), A())]
print(*[pickles.digest(cloudpickle.dumps(value)).hex() for value in values])
"""


def test_classes_have_equal_digests_in_each_process_and_equal_ones_are_told_apart() -> None:
    script = CLASSES.format(root=str(Path(__file__).parents[2]))
    first, second = (
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    )
    assert first == second
    assert len(set(first.split())) == 6
