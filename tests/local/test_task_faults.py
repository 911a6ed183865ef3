"""Fail-open in a task's process: wherever the companion breaks, the task does what it does on bare Rain."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from rain_deploy.companion.wire import NAME
from tests.local.conftest import Installation
from tests.unit.companion_python import FAULT, NodePython

BREAKS = {
    "at hooking": ("executor.py", "    send_warnings_to("),
    "at the import": ("failures.py", "LONGEST ="),
    "at making a home": ("home.py", "        self._root = Path("),
    "at reading the run": ("home.py", '            run = Path(os.environ["RAIN_DEPLOY_RUN_DIR"])'),
    "at giving a home": ("home.py", "        empty, task_path = "),
    "at filling": ("mirror.py", "        intact, others, todo = "),
    "at copying": ("mirror.py", "            if name in self._linked"),
    "at preparing": ("home.py", '        os.environ["RAIN_DEPLOY_FIGURES"] = '),
    "at the inputs": ("failures.py", "    texts = ["),
    "at the failure": ("failures.py", "        return cls(_plain(task)"),
    "at packing": ("home.py", "        packed = _Tar()"),
    "at the output": ("home.py", "        errors = _read("),
    "at the files": ("home.py", "        if not self._mirror:"),
    "at the warnings": ("executor.py", "                if _warnings:"),
}
UNUSABLE = {
    "at the import": ("failures.py", "LONGEST ="),
    "at the import of homes": ("home.py", "MOST_LINES ="),
    "at the change": ("executor.py", "    run_task, home_of ="),
    "at the entry": ("executor.py", "        spec = context.spec"),
}
HARD = {"at the import", "at the failure"}
"""Where a failure stays what it is on bare Rain."""

SCRIPT = f"""\
import json, os, resource, sys, tempfile, traceback
from rain.executor.executor import Executor, OutputSpec
from rain.executor.context import Context
from rain.common import DataInstance, DataType, ID
from rain.common.attributes import ObjectSpec, TaskSpec
import cloudpickle

executor = Executor.__new__(Executor)
executor.task_path, executor.stage_path, executor.cache = tempfile.mkdtemp() + "/task", "/none", {{}}
os.mkdir(executor.task_path)

def call(function, user):
    context, hidden = Context(executor), "{NAME}" in user
    ours = hidden and hasattr(Executor.run_task, "__wrapped__")  # else the output would be missing
    count = 2 if ours else 1
    config = {{"args": [], "kwargs": {{}}, "encode_outputs": ["pickle", None][:count]}}
    ids = [ID(1, 3), ID(1, 4)]
    context.spec = TaskSpec(id=ID(1, 2), name="t", user=user, config=config, outputs=ids[:count])
    blob = DataInstance(DataType.BLOB, data=cloudpickle.dumps(function), content_type="cloudpickle")
    outputs = [OutputSpec(ObjectSpec(id=ids[0]), "pickle"), OutputSpec(ObjectSpec(id=ids[1]), None)]
    result = {{}}
    try:
        results = executor.run_task(context, [blob], outputs[:count])
        assert len(results) == count, results
        told = context.info.user.get("{NAME}", {{}})
        result["is"] = "soft" if "failed" in told else results[0].load()
        if ours:
            assert len(results[1].get_bytes()) == told.get("home", 0)
    except Exception:
        result["is"] = traceback.format_exc().splitlines()[-1]
    result["warnings"] = context.info.user.get("{NAME}", {{}}).get("warnings", [])
    print(json.dumps(result))

def fail(ctx):
    raise ValueError("bad")

def works(ctx):
    print("printed")
    open("file", "w").write("x")
    return sorted(os.listdir())

asked = {{"{NAME}": {{"soft": True, "home": True}}}}
"""
CALLS = """\
call(works, dict(asked))
call(fail, dict(asked))
call(works, {})
"""


@pytest.fixture(scope="module")
def python(installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> NodePython:
    return NodePython.of(tmp_path_factory.mktemp("node"), installation.env)


def run_dir(python: NodePython, name: str) -> Path:
    run = python.run_dir(name.replace("/", "-"))
    (run / "run.json").write_text('{"cwd": "."}')
    (run / "shipped.json").write_text('{"data": "", "more/data": ""}')
    for file in ("data", "more/data"):
        (run / "files" / file).parent.mkdir(parents=True, exist_ok=True)
        (run / "files" / file).write_bytes(b"x" * 2_000_000)
    return run


def results(python: NodePython, run: Path, script: str, **variables: str) -> list[dict[str, object]]:
    done = python.run(SCRIPT + script, None, **python.of_tasks(run) | {"RAIN_EXECUTOR_ID": "1"} | variables)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def noted(run: Path, found: list[dict[str, object]]) -> str:
    return str(found) + "".join(path.read_text() for path in (run / "companion").glob("warnings.txt"))


def test_nothing_breaks_and_nothing_is_noted(python: NodePython, request: pytest.FixtureRequest) -> None:
    run = run_dir(python, request.node.name)
    found = results(python, run, CALLS)
    assert [one["is"] for one in found] == [["data", "file", "more"], "soft", ["file"]]
    assert [one["warnings"] for one in found] == [[], [], []]
    assert not (run / "companion").exists()


@pytest.mark.parametrize("place", BREAKS)
def test_a_fault_leaves_what_rain_does_and_a_warning(
    python: NodePython, place: str, request: pytest.FixtureRequest
) -> None:
    run = run_dir(python, request.node.name)
    found = results(python, run, CALLS, RAIN_DEPLOY_COMPANION=python.broken_site(*BREAKS[place]))
    first, second, third = (one["is"] for one in found)
    assert first in (["file"], ["data", "file", "more"])
    assert (second, third) == ("ValueError: bad" if place in HARD else "soft", ["file"])
    assert (FAULT in noted(run, found)) == (place != "at the warnings")
    assert FAULT in (run / "companion" / "faults.log").read_text()


@pytest.mark.parametrize("place", [None, *UNUSABLE])
def test_the_scripts_side_can_tell_that_tasks_cannot_be_changed(
    python: NodePython, place: str | None, request: pytest.FixtureRequest
) -> None:
    run = run_dir(python, request.node.name)
    site = python.broken_site(*UNUSABLE[place]) if place else str(python.site)
    script = """\
        import rain_deploy_companion as companion
        usable = False
        with companion.FailOpen("asking"):
            from rain_deploy_companion.executor import usable as ask
            usable = ask()
        print(usable)
        """
    done = python.run(script, run, RAIN_DEPLOY_COMPANION=site, PYTHONPATH=site)
    assert (done.stdout, done.stderr) == (f"{not place}\n", "")
    assert (FAULT in noted(run, [])) == bool(place)


def _no_files(run: Path) -> None:
    shutil.rmtree(run / "files")


def _no_run(run: Path) -> None:
    (run / "run.json").unlink()


@pytest.mark.parametrize("damage", [_no_files, _no_run])
def test_a_node_without_the_runs_files_runs_its_tasks(
    python: NodePython, damage: Callable[[Path], None], request: pytest.FixtureRequest
) -> None:
    run = run_dir(python, request.node.name)
    damage(run)
    found = results(python, run, CALLS)
    assert [one["is"] for one in found] == [["file"], "soft", ["file"]]
    assert noted(run, found).count("FileNotFoundError") == 1


def test_a_full_disk_leaves_no_half_copy(python: NodePython, request: pytest.FixtureRequest) -> None:
    run = run_dir(python, request.node.name)
    full = "resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))\n"
    found = results(python, run, full + CALLS)
    assert [one["is"] for one in found] == [["file"], "soft", ["file"]]
    assert noted(run, found).count("File too large") == 1
