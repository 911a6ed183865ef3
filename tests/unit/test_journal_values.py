"""The value of a result is known without the script; no result harms or stops the one who asks for it."""

from __future__ import annotations

import json
import math
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest

from rain_deploy.node.journal.segment import Output
from rain_deploy.node.journal.values import MOST_BYTES, Value, Values
from tests.support.waiting import wait_for

PROGRAM = Path(__file__).parents[2] / "rain_deploy" / "companion" / "values.py"
NOTHING = Value()
DEADLINE_S = 5.0
ROOM_S = 20.0  # a busy machine


class Calls:
    """A result that calls a function when it is loaded; its value is what the function returns."""

    def __init__(self, function: Any, *args: Any) -> None:
        self._call = function, args

    def __reduce__(self) -> Any:
        return self._call


def output_of(body: bytes, content_type: str, data_type: str = "blob") -> Output:
    return Output.of(body, info={}, data_type=data_type, content_type=content_type)


def ask(values: Values, result: Any, timeout_s: float = DEADLINE_S) -> Value:
    body = pickle.dumps(result)
    return values.of([(output_of(body, "pickle"), body)], timeout_s)[0]


@pytest.fixture(scope="module")
def values() -> Iterator[Values]:
    values = Values(PROGRAM)
    yield values
    values.close()


BODIES: dict[str, tuple[str, bytes, Value]] = {
    "number": ("pickle", pickle.dumps(0.5), Value(0.5)),
    "number of numpy": ("pickle", pickle.dumps(np.float64(0.5)), Value(0.5)),
    "truth": ("pickle", pickle.dumps(obj=True), Value(value=True)),
    "text": ("pickle", pickle.dumps("adam"), Value("adam")),
    "long text": ("pickle", pickle.dumps("x" * 201), NOTHING),
    "dict": ("pickle", pickle.dumps({"acc": 0.5, "n": 3}), Value(values={"acc": 0.5, "n": 3})),
    "tuple": ("cloudpickle", cloudpickle.dumps((1, np.int64(2))), Value(values={"value_0": 1, "value_1": 2})),
    "array": ("pickle", pickle.dumps(np.array([1.5, 2])), Value(values={"value_0": 1.5, "value_1": 2.0})),
    "number too large for a table": ("pickle", pickle.dumps(2**1024), NOTHING),
    "nothing": ("pickle", pickle.dumps(None), NOTHING),
    "no pickle": ("pickle", b"no pickle", NOTHING),
    "pickle cut off": ("pickle", pickle.dumps([1.5] * 9)[:-5], NOTHING),
    "json": ("json", b'{"acc": 0.5}', Value(values={"acc": 0.5})),
    "json number": ("json", b"3", Value(3)),
    "no json": ("json", b"{", NOTHING),
    "number as text": ("text", b" 42\n", Value(42)),
    "fraction as text": ("text-latin-1", b"1e-3", Value(0.001)),
    "json as text": ("text", b'{"acc": 0.5}', Value(values={"acc": 0.5})),
    "line of text": ("text", "größer\n".encode(), Value("größer")),
    "lines of text": ("text", b"one\ntwo\n", NOTHING),
    "unknown encoding": ("text-none", b"1", NOTHING),
    "output of a program": ("", b"5\n", Value(5)),
    "bytes": ("", b"\xff\xfe\x00", NOTHING),
    "content of another type": ("arrow", b"1", NOTHING),
    "empty": ("", b"", NOTHING),
}


@pytest.mark.parametrize("what", BODIES)
def test_what_a_task_returned_has_this_value(values: Values, what: str) -> None:
    content_type, body, value = BODIES[what]
    assert values.of([(output_of(body, content_type), body)], DEADLINE_S)[0] == value


def test_no_number_is_a_number_too(values: Values) -> None:
    (nan,) = ask(values, [float("nan")]).values.values()
    assert isinstance(nan, float)
    assert math.isnan(nan)


def test_an_instance_of_a_class_of_the_script_has_the_value_that_it_is(values: Values) -> None:
    source = "class Score(dict): pass\nresult = Score(acc=0.5)"
    scope: dict[str, Any] = {"__name__": "__main__"}
    exec(source, scope)  # noqa: S102 - as a script is run
    body = cloudpickle.dumps(scope["result"])
    assert b"_make_skeleton_class" in body
    assert values.of([(output_of(body, "cloudpickle"), body)], DEADLINE_S)[0].values == {"acc": 0.5}


def test_directories_and_large_results_are_data(values: Values) -> None:
    body = json.dumps({"acc": 0.5, "more": "x" * MOST_BYTES}).encode()
    assert values.of([(output_of(body, "json"), body)])[0] == NOTHING
    assert values.of([(output_of(b"1", "text", "dir"), b"1")])[0] == NOTHING


def test_modules_that_a_result_needs_are_not_imported(values: Values) -> None:
    """They may take long, as TensorFlow does, and those of the user do anything."""
    body = b"cpytest\nmark\n."
    assert pickle.loads(body) is pytest.mark  # noqa: S301 - it is ours
    assert values.of([(output_of(body, "pickle"), body)], DEADLINE_S)[0] == NOTHING
    assert ask(values, Calls(eval, "'pytest' in __import__('sys').modules")) == Value(value=False)


def test_one_child_loads_many_values(values: Values) -> None:
    pids = {ask(values, Calls(os.getpid)).value for _ in range(5)}
    assert len(pids) == 1
    assert os.getpid() not in pids


def results_of(*results: Any) -> list[tuple[Output, bytes]]:
    bodies = [pickle.dumps(result) for result in results]
    return [(output_of(body, "pickle"), body) for body in bodies]


def test_a_result_that_kills_the_child_costs_no_other_its_value(values: Values) -> None:
    killing, large = Calls(eval, "__import__('os').kill(__import__('os').getpid(), 9)"), "x" * MOST_BYTES
    results = results_of(*range(300), killing, large, *range(300))
    assert [one.value for one in values.of(results, DEADLINE_S)] == [*range(300), None, None, *range(300)]


def test_all_questions_are_sent_before_an_answer_is_awaited(tmp_path: Path) -> None:
    program = tmp_path / "patient.py"
    program.write_text(PATIENT)
    values = Values(program)
    found = values.of([(output_of(b"1", "text"), b"1")] * 100, 1.0)
    assert [one.value for one in found] == [100] * 100, "how many were there at the first answer"
    values.close()


PATIENT = """
import json, socket
channel = socket.socket(fileno=0)
def answer(numbers):
    for number in numbers:
        channel.sendall(b'{"number": %d, "note": {"value": %d}}\\n' % (number, len(numbers)))
channel.recv(1 << 16)  # of the start
answer([1])
lines = b""
while lines.count(b"\\n") < 100:
    lines += channel.recv(1 << 16)
answer(range(2, 102))
"""

BAD = {
    "kills itself": Calls(exec, "import os; os.kill(os.getpid(), 9)"),
    "exits": Calls(sys.exit, 1),
    "exits at once": Calls(os._exit, 0),
    "takes too long": Calls(time.sleep, 3600),
    "computes too long": Calls(eval, "sum(iter(int, 1))"),
    "ignores the timer": Calls(exec, "import signal, time\nsignal.alarm(0)\nwhile 1: time.sleep(9)"),
    "fills the memory": Calls(eval, "len(bytes(2**31))"),
    "recurses": Calls(exec, "def f(): f()\nimport sys\nsys.setrecursionlimit(10**8)\nf()"),
    "answers by itself": Calls(os.write, 3, b'{"number": 99, "note": {"value": 1}}\n'),
}


@pytest.mark.parametrize("how", BAD)
def test_a_bad_result_is_empty_and_costs_its_deadline_once(how: str) -> None:
    values = Values(PROGRAM)
    assert ask(values, 1).value == 1
    started = time.monotonic()
    if how == "kills itself":
        assert (
            ask(
                values,
                Calls(eval, f"__import__('os').kill(__import__('os').getpid(), {signal.SIGTERM})"),
                1.0,
            )
            == NOTHING
        )
    else:
        assert ask(values, BAD[how], 1.0) == NOTHING
    assert time.monotonic() - started < 1.0 + ROOM_S
    assert ask(values, 2).value == 2
    values.close()


def test_a_child_that_says_too_much_is_ended_before_its_time() -> None:
    values, started = Values(PROGRAM), time.monotonic()
    flood = Calls(exec, "import os\nwhile 1: os.write(3, b'x' * 99); os.sched_yield()")
    assert ask(values, flood, 60.0) == NOTHING
    assert time.monotonic() - started < 60.0
    assert ask(values, 2).value == 2
    values.close()


def test_what_a_result_prints_is_no_answer_and_files_cannot_be_written(
    values: Values, tmp_path: Path
) -> None:
    printing = "print('{}') or __import__('os').system('echo {}') and None or 7"
    assert ask(values, Calls(eval, printing)).value == 7
    path = tmp_path / "file"
    assert ask(values, Calls(eval, f"open({str(path)!r}, 'w').write('x' * 9999) and 7")) == NOTHING
    assert path.stat().st_size == 0
    assert ask(values, 8).value == 8


def test_a_child_that_somebody_stopped_or_killed_is_replaced() -> None:
    values = Values(PROGRAM)
    pid = ask(values, Calls(os.getpid)).value
    assert isinstance(pid, int)
    os.kill(pid, signal.SIGSTOP)
    body = pickle.dumps("x" * (MOST_BYTES - 100))
    started = time.monotonic()
    for _ in range(5):
        assert values.of([(output_of(body, "pickle"), body)], 0.5)[0] == NOTHING
    assert time.monotonic() - started < 0.5 + ROOM_S
    second = ask(values, Calls(os.getpid)).value
    assert isinstance(second, int)
    assert second != pid
    os.kill(second, signal.SIGKILL)
    wait_for(lambda: _is_gone(second), ROOM_S)
    assert ask(values, Calls(os.getpid)).value not in {None, second}
    values.close()


def test_without_a_program_there_are_no_values(tmp_path: Path) -> None:
    assert ask(Values(tmp_path / "none.py"), 1) == NOTHING


def test_a_program_that_does_not_start_is_started_only_some_times(tmp_path: Path) -> None:
    program = tmp_path / "broken.py"
    program.write_text(f"open({str(tmp_path / 'starts')!r}, 'a').write('x'); raise SystemExit(1)")
    values = Values(program)
    assert values.of([(output_of(b"1", "text"), b"1")] * 50) == [NOTHING] * 50
    assert len((tmp_path / "starts").read_text()) == 3


def test_results_that_cannot_be_loaded_use_up_the_patience() -> None:
    values = Values(PROGRAM, patience_s=0.5)
    assert ask(values, 1).value == 1
    assert ask(values, Calls(time.sleep, 60), 0.6) == NOTHING
    assert ask(values, 1) == NOTHING


def _is_gone(pid: int) -> bool:
    try:
        return ") Z" in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return True


PARENT = """
import sys
from pathlib import Path
from tests.unit.test_journal_values import *
values = Values(Path(sys.argv[1]))
print(ask(values, Calls(os.getpid)).value, flush=True)
if len(sys.argv) > 2:
    ask(values, Calls(exec, f"import time; open({sys.argv[2]!r}, 'w'); time.sleep(60)"), 3.0)
time.sleep(60)
"""


@pytest.mark.parametrize("busy", [False, True])
def test_the_child_ends_with_its_parent(*, busy: bool, tmp_path: Path) -> None:
    began = tmp_path / "began"
    argv = [sys.executable, "-c", PARENT, str(PROGRAM), *([str(began)] if busy else [])]
    parent = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    with parent.stdout as out:
        child = int(out.readline())
    wait_for(lambda: began.exists() or not busy)
    assert not _is_gone(child)
    parent.kill()
    parent.wait()
    wait_for(lambda: _is_gone(child), 3.0 + ROOM_S)
