"""The journal on real Rain: what is finished is not computed again, and only that."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.local.command_line import LocalCluster
from tests.local.conftest import MakeHome

SWEEP = """\
import os, random, sys
from rain.client import Client, blob, remote, tasks

def executed(name):
    with open(os.environ["MARKS"], "a") as file:
        file.write(name + "\\n")

@remote()
def loaded(ctx):
    executed("load")
    return b"x" * 1000

@remote(auto_encode="pickle")
def trained(ctx, data, size):
    executed(f"size={size}")
    return {"score": size / 10, "bytes": len(data.get_bytes())}

with Client("localhost", 7210).new_session("sweep") as session:
    data = loaded()
    points = [trained(data, size, name=f"size={size}") for size in range(int(sys.argv[1]))]
    program = tasks.Execute(["wc", "-c", data], stdout=True, name="program")
    for task in (*points, program):
        task.output.keep()
    session.submit()
    session.wait_all()
    print([point.output.fetch().load() for point in points], program.output.fetch().get_str().split()[0])
"""


@pytest.fixture(scope="module")
def marks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("marks") / "marks"


def executed(cluster: LocalCluster, marks: Path, count: int) -> tuple[str, list[str]]:
    """What the sweep of so many points printed, and which of its tasks were executed."""
    marks.write_text("")
    (cluster.line.cwd / "sweep.py").write_text(SWEEP)
    results = cluster.run("--env", f"MARKS={marks}", "sweep.py", str(count))
    return (results / "stdout.log").read_text(), sorted(marks.read_text().split())


def test_a_second_run_computes_only_what_is_new(shared: LocalCluster, marks: Path) -> None:
    first, ran = executed(shared, marks, 3)
    assert ran == ["load", "size=0", "size=1", "size=2"]
    again, ran = executed(shared, marks, 3)
    assert (again, ran) == (first, [])
    grown, ran = executed(shared, marks, 5)
    assert ran == ["size=3", "size=4"]
    assert grown.startswith(first.split("]")[0])


def test_a_new_cluster_computes_only_what_is_new(make_home: MakeHome, marks: Path) -> None:
    line, ran = make_home(), list[list[str]]()
    (line.cwd / "sweep.py").write_text(SWEEP)
    for count, *options in (("2",), ("3",), ("2", "--journal", "none")):
        marks.write_text("")
        sweep = ("sweep", "--provider", "local", "--env", f"MARKS={marks}", *options, "sweep.py", count)
        line.well(*sweep)
        ran.append(sorted(marks.read_text().split()))
    all_of_it = ["load", "size=0", "size=1"]
    assert ran == [all_of_it, ["size=2"], all_of_it]
