"""After a fault in any function of the journal, a script does what it does on bare Rain."""

from __future__ import annotations

import ast
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.local.conftest import Installation
from tests.local.rained_on import RainedOn, rained_on
from tests.unit.companion_python import COMPANION, FAULT, NodePython

SCRIPT = """\
import os, sys
from rain.client import Client, Program, blob, remote, tasks

@remote()
def square(ctx, x, new):
    return str(x * x)

@remote()
def added(ctx, *parts):
    return str(sum(int(part.get_str()) for part in parts))

@remote()
def failing(ctx, new):
    raise ValueError("this point is bad")

new = os.environ["NEW"]  # what is made of it has not been computed by an earlier run
with Client("localhost", 7210).new_session("faults") as session:
    old = [square(x, "", name=f"old x={x}") for x in range(3)]
    fresh = [square(x, new, name=f"new x={x}") for x in range(20)]
    total = added(*old, *fresh, name="total")
    text = tasks.Concat((blob("a"), blob("b")))
    for task in (*old, *fresh, total, text):
        task.output.keep()
    session.submit()
    session.wait([old[0], total])
    session.wait_all()
    session.update([old[1], fresh[1]])
    print([task.output.fetch().get_str() for task in (*old, *fresh)], total.output.fetch().get_str())
    again = added(old[0], fresh[2], name="again")
    again.output.keep()
    session.submit()
    print(again.output.fetch().get_str(), text.output.fetch().get_bytes())
    old[2].output.unkeep()
    del fresh
with Client("localhost", 7210).new_session("failing") as session:
    bad = failing(new, name="bad")
    bad.output.keep()
    session.submit()
    try:
        session.wait_all()
    except Exception as error:
        print(type(error).__name__, "this point is bad" in str(error))
    bad.output.fetch()
"""
RAISE = f"""\
if "was_broken" not in globals():
    globals()["was_broken"] = True
    raise RuntimeError({FAULT!r})
"""
WHERE = COMPANION / "journal"
OUTERMOST = {"helper.py:Helper._listen", "session.py:Journal.end"}
"""What a thread runs, and what Python calls at its end: there is nobody who could take their faults."""
OF_KEYS = {"keys.py:Keys.__init__", "keys.py:Keys.of_tasks", "keys.py:Keys._key", "pickles.py:Pickles.digest"}
"""All others are called by these: their faults go the same way."""
KEYS = ("keys.py", "pickles.py")
"""A fault there costs one task its key, and those that need its result: each submit names its own."""


def functions() -> Iterator[str]:
    """Each function and method of the room, as ``file:name``; those inside others are parts of them."""
    for path in sorted(WHERE.glob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef):
                yield f"{path.name}:{node.name}"
            elif isinstance(node, ast.ClassDef):
                inner = [one for one in node.body if isinstance(one, ast.FunctionDef)]
                yield from (f"{path.name}:{node.name}.{one.name}" for one in inner)


PLACES = [one for one in functions() if one not in OUTERMOST and (not one.startswith(KEYS) or one in OF_KEYS)]


def broken(rain: RainedOn, where: str, place: Path) -> str:
    """A companion in which a function raises when it is called first."""
    site = place / "site"
    shutil.copytree(rain.python.site, site)
    for shared in ("node", "__main__.py"):
        (place / shared).symlink_to(rain.python.home / shared)
    file, _, name = where.partition(":")
    path = site / "rain_deploy_companion" / "journal" / file
    *owners, function = name.split(".")
    tree = ast.parse(path.read_text())
    body = tree.body
    for owner in owners:
        body = next(one for one in body if isinstance(one, ast.ClassDef) and one.name == owner).body
    found = next(one for one in body if isinstance(one, ast.FunctionDef) and one.name == function)
    found.body[:0] = ast.parse(RAISE).body
    path.write_text(ast.unparse(tree))
    return str(site)


@pytest.fixture(scope="module")
def rain(installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RainedOn]:
    with rained_on(installation, tmp_path_factory.mktemp("rain")) as rain:
        yield rain


@pytest.fixture(scope="module")
def plain(rain: RainedOn) -> subprocess.CompletedProcess[str]:
    """The script on bare Rain; then once with the journal, which has some of its results from then on."""
    done = rain.run(SCRIPT, None, NEW="bare")
    first = rain.run(SCRIPT, rain.python.run_dir("first"), NEW="first", RAIN_DEPLOY_SWEEP="s")
    assert (done.returncode, first.returncode, first.stdout) == (1, 1, done.stdout), first.stderr
    return done


@pytest.mark.parametrize("where", PLACES)
def test_the_script_does_what_it_does_on_bare_rain(
    rain: RainedOn, plain: subprocess.CompletedProcess[str], where: str, tmp_path: Path
) -> None:
    run = rain.python.run_dir(where.replace("/", "-"))
    site = broken(rain, where, tmp_path)
    done = rain.run(SCRIPT, run, NEW=where, RAIN_DEPLOY_SWEEP="s", RAIN_DEPLOY_COMPANION=site)
    assert (done.returncode, done.stdout) == (plain.returncode, plain.stdout), done.stderr
    assert "this point is bad" in done.stderr
    assert FAULT not in done.stderr
    warned = run / "companion" / "warnings.txt"
    warnings = warned.read_text().splitlines() if warned.exists() else []
    assert len(warnings) <= (3 if where.startswith(KEYS) else 1), warnings


PRUNED = """\
import os, sys
from rain.client import Client, remote

MARKS = os.environ["MARKS"]

@remote()
def made(ctx, x):
    with open(MARKS, "a") as file:
        file.write(f"made {x}\\n")
    return str(x)

@remote()
def used(ctx, data):
    return data.get_str() + "!"

with Client("localhost", 7210).new_session("pruned") as session:
    tasks = [made(x) for x in range(3)]
    for task in tasks:
        task.output.keep()
    session.submit()
    session.wait_all()
    for path in os.environ["GONE"].split():
        os.unlink(path)
    users = [used(task) for task in tasks[:2]]
    for task in users:
        task.output.keep()
    session.submit()
    print([task.output.fetch().get_str() for task in (*users, *tasks)])
"""


def test_kept_results_that_vanish_meanwhile_are_computed_again(rain: RainedOn, tmp_path: Path) -> None:
    rain = replace(rain, python=NodePython.of(tmp_path, rain.python.environment))  # with a journal of its own
    marks, journal = tmp_path / "marks", tmp_path / "journal"
    how = {"RAIN_DEPLOY_SWEEP": "pruned", "MARKS": str(marks)}
    first = rain.run(PRUNED, rain.python.run_dir("kept"), GONE="", **how)
    gone = " ".join(map(str, journal.glob("*.seg")))
    again = rain.run(PRUNED, rain.python.run_dir("gone"), GONE=gone, **how)
    assert (again.returncode, again.stdout, again.stderr) == (0, first.stdout, "")
    assert sorted(marks.read_text().splitlines()) == sorted(["made 0", "made 1", "made 2"] * 2)
