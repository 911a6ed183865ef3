"""A task that kills what runs it is found, runs alone and is given up by name: two nodes, real Rain."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.local.command_line import LocalCluster
from tests.local.node_cluster import NodeCluster, points

if TYPE_CHECKING:
    from tests.local.conftest import Installation

INNOCENT = 6
SWEEP = """\
import os, pathlib, signal, sys, time
from rain.client import Client, remote

place, deed = pathlib.Path(sys.argv[1]), sys.argv[2]

@remote()
def point(ctx, x):
    with open(place / str(x), "a") as marks:
        marks.write("ran\\n")
    if x == 99:
        governor = os.getppid()
        os.killpg(os.getpgid(governor), 9) if deed == "group" else os.kill(governor, 9)
    time.sleep(1)
    return str(x * x)

@remote()
def needs(ctx, bad):
    return bad

with Client("localhost", 7210).new_session("points") as session:
    tasks = [point(x, name="point x=%d" % x) for x in (99, *range(6))]
    tasks.append(needs(tasks[0], name="needs"))
    for task in tasks:
        task.output.keep()
    session.submit()
    print([int(task.output.fetch().get_bytes()) for task in tasks[1:7]], flush=True)
    session.wait_all()
"""


@pytest.fixture(scope="module")
def cluster(installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeCluster]:
    cluster = NodeCluster(tmp_path_factory.mktemp("cluster"), installation.engine, installation.env)
    cluster.install()
    cluster.up()
    yield cluster
    cluster.stop()


def test_a_poison_task_costs_no_other_its_result_and_no_restart(cluster: NodeCluster, tmp_path: Path) -> None:
    """Two restarts are enough: the attempt that is made because it died alone does not count."""
    run_dir = cluster.run("poison", SWEEP, str(tmp_path), "group", restarts=2, companion=True)
    status = cluster.finish(run_dir)
    rows = {row["name"]: row for row in points(run_dir).values()}
    ends = {f"point x={x}": "finished" for x in range(INNOCENT)}
    assert {name: row["state"] for name, row in rows.items()} == {
        **ends,
        "point x=99": "failed",
        "needs": "failed",
    }
    assert (status["outcome"], status["attempt"]) == ("failed", 4)
    assert rows["needs"]["message"] == "not run: it needs the result of 'point x=99', which failed"
    ran = executed(tmp_path)
    assert ran.pop(99) == 3
    # Once in each attempt: what ends in the moment before the poison kills is not kept yet.
    assert all(1 <= times <= status["attempt"] for times in ran.values()), ran


def test_a_poison_task_is_given_up_by_name_with_its_arguments(shared: LocalCluster, tmp_path: Path) -> None:
    place = tmp_path / "marks"
    place.mkdir()
    (shared.line.cwd / "poison.py").write_text(SWEEP)
    told = shared("run", "poison.py", str(place), "governor", timeout_s=180)
    assert told.exit_code == 42, told
    assert "; point x=99 was running alone and is given up; attempt " in told.stderr
    assert f"{[x * x for x in range(INNOCENT)]}\n" in told.stdout
    ran = executed(place)
    assert 2 <= ran.pop(99) <= 4  # 3 on a quiet machine
    assert len(ran) == INNOCENT
    explained = shared.well("explain", "x=99", "--json").result
    assert explained["arguments"] == {"x": 99}
    assert "given up: its process or its node's engine died under it 3 times (on node-" in explained["error"]


def executed(place: Path) -> dict[int, int]:
    """How often each task was executed."""
    return {int(path.name): len(path.read_text().split()) for path in place.iterdir()}
