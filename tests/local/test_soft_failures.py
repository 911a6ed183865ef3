"""Tasks that may fail softly, on real Rain: the script marks them as its companion would."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rain_deploy.companion.wire import MARK, NAME
from tests.local.bare_rain import BareRain, bare_rain
from tests.local.conftest import Installation
from tests.unit.companion_python import NodePython

START = f"""\
import json, os, sys
from rain.client import Client, Input, Output, OutputDir, remote, tasks

def mark(task, **wishes):
    task._spec.user = {{"mine": 1, "{NAME}": {{"soft": True}} | wishes}}
    return task

def tell(task):
    task.update()
    return {{"info": task.info._to_json(),
            "outputs": [[str(one.fetch().get_bytes()), one.info.user] for one in task.outputs]}}

@remote(auto_encode="pickle")
def half(ctx, x):
    ctx.debug("half of {{}}", x)
    assert ctx.spec.user == {{"mine": 1}} or not ctx.spec.user, ctx.spec.user
    if x % 2:
        raise ValueError(f"{{x}} is odd")
    return x // 2

@remote(auto_encode="pickle", auto_load=True)
def add(ctx, *numbers):
    print("added", numbers, flush=True)
    return sum(numbers)

session = Client("localhost", 7210).new_session("s")
with session:
    def run(*tasks):
        session.keep_all()
        session.submit()
        session.wait_all()
        print(json.dumps([tell(task) for task in tasks]))

"""


@pytest.fixture(scope="module")
def python(installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> NodePython:
    return NodePython.of(tmp_path_factory.mktemp("node"), installation.env)


@pytest.fixture(scope="module")
def rain(
    installation: Installation, python: NodePython, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[BareRain]:
    place = tmp_path_factory.mktemp("rain")
    with bare_rain(installation.engine, installation.env, place, **python.of_tasks(place)) as rain:
        yield rain


def told(rain: BareRain, place: Path, script: str) -> Any:
    """Return what a script's last line of output says."""
    (place / "script.py").write_text(f"{START}    {script.strip()}\n")
    return json.loads(rain.run(place / "script.py").stdout.splitlines()[-1])


def ours(task: dict[str, Any]) -> dict[str, Any]:
    return dict(task["info"].get("user", {}).get(NAME, {}))


def test_a_failure_is_a_result_and_the_others_have_theirs(rain: BareRain, tmp_path: Path) -> None:
    tasks = told(rain, tmp_path, 'run(*[mark(half(x, name=f"half x={x}")) for x in range(6)])')
    assert ["failed" in ours(task) for task in tasks] == [False, True] * 3
    text = ours(tasks[3])["failed"]
    lines = text.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert re.fullmatch(r'  File ".*/rain/executor/executor.py", line \d+, in run_task', lines[1])
    assert lines[-1] == "ValueError: 3 is odd"
    assert text.count("  File ") == 2
    assert ours(tasks[3]) == {"failed": text}
    assert tasks[3]["info"]["debug"] == "half of 3"
    content, info = tasks[3]["outputs"][0]
    assert content.startswith(f"b'{MARK}")
    assert info == {NAME: {"failed": text}}
    assert ours(tasks[2]) == tasks[2]["outputs"][0][1] == {}


def test_what_needs_a_failed_result_fails_without_running(rain: BareRain, tmp_path: Path) -> None:
    script = """\
loader, fine = mark(half(1, name="loader")), mark(half(2))
    users = [mark(add(loader, fine, name=f"user {i}")) for i in range(6)]
    last = mark(add(*users, mark(half(3, name="other"))))
    run(*users, last, mark(add(fine, fine)))
"""
    *users, last, good = told(rain, tmp_path, script)
    assert len({task["info"]["governor"] for task in users}) == 2
    for task in users:
        failed = ours(task)["failed"]
        why = "not run, because it needs the result of loader, which failed: ValueError: 1 is odd"
        assert failed.startswith(f"{why}\n\nTraceback (most recent call last):\n")
        assert failed.endswith("\nValueError: 1 is odd\n")
        assert ours(task)["because"] == ["loader"]
    assert ours(last)["because"] == ["loader", "other"]
    assert ours(last)["failed"] == ours(users[0])["failed"]
    assert ours(good) == {}
    printed = [log.read_text() for log in rain.place.glob("*.log/executors/executor-*.out")]
    assert sum(text.count("added") for text in printed) == 1


def test_directories_and_several_outputs_fail_as_blobs_do(rain: BareRain, tmp_path: Path) -> None:
    script = """\
@remote(outputs=[OutputDir("d"), Output("b", encode="json")])
    def two(ctx):
        os.mkdir("d")
        open("d/f", "w").write("x" * 1_000_000)
        staged = ctx.stage_directory("d")
        open("f", "w").write("x")
        ctx.stage_file("f")
        if ctx.spec.name == "bad":
            raise RuntimeError
        return staged, 1

    @remote(auto_encode="pickle")
    def files(ctx, place):
        place.write("here")
        return os.listdir("here")

    bad = [mark(two(name="bad")) for _ in range(8)]
    good = [mark(two(name="good")) for _ in range(4)]
    run(*bad, *[mark(files(task.outputs["d"])) for task in bad + good])
"""
    tasks = told(rain, tmp_path, script)
    assert [ours(task)["failed"].splitlines()[-1] for task in tasks[:8]] == ["RuntimeError"] * 8
    assert [len(task["outputs"]) for task in tasks[:8]] == [2] * 8
    assert [ours(task)["because"] for task in tasks[8:16]] == [["bad"]] * 8
    assert [ours(task) for task in tasks[16:]] == [{}] * 4


def test_an_exit_and_what_cannot_be_sent_are_failures_too(rain: BareRain, tmp_path: Path) -> None:
    script = """\
@remote()
    def odd(ctx, kind):
        if kind == 0:
            sys.exit("over")
        if kind == 1:
            raise OSError("\\udcff\\x00" + "x" * 1_000_000 + "\\nend")
        return object()

    run(*[mark(odd(kind)) for kind in range(3)])
"""
    over, long, wrong = (ours(task)["failed"] for task in told(rain, tmp_path, script))
    assert over.endswith("\nSystemExit: over\n")
    assert re.search(r"OSError: \\udcff\x00x+\n\[\d+ characters left out\]\nx+\nend\n$", long)
    assert len(long) < 66_000
    assert re.search(r"\nException: Invalid result object: <object object at .*>\n$", wrong)


UNMARKED = """\
half(3, name="three").output.keep()
    session.submit()
    try:
        session.wait_all()
    except Exception as error:
        print(json.dumps(f"{type(error).__name__}: {error}"))
"""


def test_a_task_without_the_mark_fails_as_on_bare_rain(
    rain: BareRain, bare_rain: BareRain, tmp_path: Path
) -> None:
    with_companion, without = told(rain, tmp_path, UNMARKED), told(bare_rain, tmp_path, UNMARKED)
    assert with_companion.startswith("TaskException: ")
    assert with_companion.partition("Message: ")[2] == without.partition("Message: ")[2]


def test_a_task_without_the_mark_never_takes_a_failure_for_data(rain: BareRain, tmp_path: Path) -> None:
    script = UNMARKED.replace('half(3, name="three")', 'add(mark(half(1, name="one")))')
    assert "InputFailed: not run, because it needs the result of one, which" in told(rain, tmp_path, script)
