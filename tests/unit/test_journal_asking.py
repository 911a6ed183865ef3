"""The script's side of its helper: no question, and nothing that it is told, waits without a limit."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rain_deploy.companion.journal.helper import MOST_STARTS, Helper, HelperLost

SILENT_S = 0.5
ROOM_S = 30.0  # for a busy machine
ANSWERS = """
import json, sys
for line in sys.stdin:
    request = json.loads(line)
    with open(sys.argv[2] + "/asked", "a") as file:
        file.write(request["op"] + "\\n")
    if "n" in request:
        print(json.dumps({"n": request["n"], "found": {}, "failures": {}}), flush=True)
"""
TASKS = [{"session": 1, "task": number, "name": "x" * 1000} for number in range(1000)]
"""More than a pipe holds."""

PROGRAMS = {"deaf": "import time; time.sleep(600)", "dumb": "import sys; sys.stdin.read()", "dead": "1 / 0"}
Start = Callable[..., Helper]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    def start(program: str, silent_s: float = 20.0) -> Helper:
        code = tmp_path / "code"
        code.mkdir()
        (code / "__main__.py").write_text(program)
        return Helper(tmp_path, code, silent_s)

    return start


def asked(place: Path) -> list[str]:
    return (place / "asked").read_text().split()


def test_it_gets_lines_and_is_asked_in_order_and_ends_with_its_stdin(start: Start, tmp_path: Path) -> None:
    helper = start(ANSWERS)
    helper.watch(1, TASKS)
    helper.unkept.append((1, 7))
    assert helper.find(["key"])["found"] == {}
    helper.close(1)
    helper.end()
    assert asked(tmp_path) == ["watch", "find", "unkeep", "close"]


def insist(helper: Helper) -> None:
    for _ in range(MOST_STARTS + 2):
        helper.watch(1, TASKS)
        helper.find(["key"])


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_one_that_does_not_answer_costs_the_script_a_bounded_time(start: Start, program: str) -> None:
    helper, started = start(program, SILENT_S), time.monotonic()
    with pytest.raises(HelperLost):
        insist(helper)
    assert time.monotonic() - started < (MOST_STARTS + 2) * 3 * SILENT_S + ROOM_S
    helper.end()


def test_another_one_is_told_what_the_first_one_knew(start: Start, tmp_path: Path) -> None:
    once = """
import os, sys, time
if not os.path.exists(sys.argv[2] + "/once"):
    open(sys.argv[2] + "/once", "w").close()
    sys.stdin.readline()
    os._exit(1)
"""
    helper = start(once + ANSWERS)
    helper.watch(1, TASKS[:2])
    helper.watch(2, TASKS[2:4])
    assert helper.find(["key"])["failures"] == {}
    helper.end()
    assert asked(tmp_path)[:2] == ["watch", "watch"]
    assert json.dumps(asked(tmp_path)).count("find") == 1
