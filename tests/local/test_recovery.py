"""A run goes on by itself after the loss of its engine, a node or its script: two nodes, real Rain."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.local.node_cluster import NodeCluster, points, state
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from tests.local.conftest import Installation

SWEEP = """\
import os, pathlib, sys, time
from rain.client import Client, remote

place = pathlib.Path(sys.argv[1])

@remote()
def square(ctx, x):
    import os, time
    with open("%s/%d" % (place, x), "a") as file:
        file.write("%d " % os.getpid())
    time.sleep(1)
    return str(x * x)

place.mkdir(exist_ok=True)
print("the sweep starts", flush=True)
print(sorted(os.listdir(".")), flush=True)
open("made-by-the-script", "w").close()
with open("script.py", "a") as file:
    file.write("# edited")
with Client("localhost", 7210).new_session("squares") as session:
    tasks = [square(x, name="square x=%d" % x) for x in range(int(sys.argv[2]))]
    for task in tasks:
        task.output.keep()
    session.submit()
    session.wait_all()
    print(sum(int(task.output.fetch().get_bytes()) for task in tasks))
"""
TASKS = 12
SUM = f"{sum(x * x for x in range(TASKS))}\n"


@pytest.fixture(scope="module")
def made(installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeCluster]:
    cluster = NodeCluster(tmp_path_factory.mktemp("cluster"), installation.engine, installation.env)
    cluster.install()
    cluster.up()
    yield cluster
    cluster.stop()


@pytest.fixture
def cluster(made: NodeCluster) -> NodeCluster:
    """The cluster with all its services, whatever the test before did to them."""
    for index in range(1, made.count + 1):
        made.ensure(index)
    return made


def markers(place: Path) -> dict[int, int]:
    """How often each task was executed."""
    return {int(path.name): len(path.read_text().split()) for path in place.iterdir()}


def begin(cluster: NodeCluster, place: Path, tasks: int = TASKS, **settings: Any) -> Path:
    """A sweep in the middle: some of its tasks have ended, some run, some wait."""
    run_dir = cluster.run(place.name, SWEEP, str(place), str(tasks), restarts=5, **settings)
    wait_for(lambda: place.is_dir() and len(list(place.iterdir())) > 4, 40, lambda: str(state(run_dir)))
    return run_dir


def kill(*pids: int, number: signal.Signals = signal.SIGKILL) -> None:
    for pid in pids:
        os.kill(pid, number)


def assert_went_on(run_dir: Path, status: dict[str, Any], *, attempt: int = 2) -> None:
    told = {key: status[key] for key in ("outcome", "exit_code", "attempt", "message")}
    assert told == {"outcome": "done", "exit_code": 0, "attempt": attempt, "message": ""}
    for number in range(1, attempt + 1):
        place = run_dir if number == attempt else run_dir / "attempts" / str(number)
        said = (place / "stdout.log").read_text().splitlines(keepends=True)
        assert said[:2] == ["the sweep starts\n", "['script.py']\n"]
        assert said[2:] == ([SUM] if number == attempt else [])
        assert (place / "files" / "made-by-the-script").exists()
    assert {row["state"] for row in points(run_dir).values()} == {"finished"}
    assert {row["attempt"] for row in points(run_dir).values()} == {attempt}
    assert [event["attempt"] for event in status["events"]] == list(range(1, attempt))


@pytest.mark.parametrize("index", [1, 2])
def test_a_sweep_survives_the_loss_of_a_governor(cluster: NodeCluster, tmp_path: Path, index: int) -> None:
    run_dir = begin(cluster, tmp_path / f"governor-{index}")
    kill(cluster.program(index, "rain governor"))
    status = cluster.finish(run_dir)
    assert_went_on(run_dir, status)
    assert status["nodes"] == ["node-1", "node-2"]
    assert status["events"][0]["message"].startswith(f"node-{index} was lost")


def test_a_sweep_survives_the_loss_of_the_server(cluster: NodeCluster, tmp_path: Path) -> None:
    run_dir = begin(cluster, tmp_path / "server")
    kill(cluster.program(1, "rain server"))
    assert_went_on(run_dir, cluster.finish(run_dir))


def test_a_sweep_goes_on_without_a_node_that_is_gone(cluster: NodeCluster, tmp_path: Path) -> None:
    run_dir = begin(cluster, tmp_path / "node")
    kill(*cluster.processes(2))
    status = cluster.finish(run_dir)
    assert (status["outcome"], status["attempt"], status["nodes"]) == ("done", 2, ["node-1"])
    assert status["missing"] == ["node-2"]
    assert status["events"][-1]["message"] == "attempt 2 goes on without node-2"


def test_a_killed_script_is_started_again(cluster: NodeCluster, tmp_path: Path) -> None:
    run_dir = begin(cluster, tmp_path / "script")
    kill(cluster.program(1, "script.py"))
    assert_went_on(run_dir, cluster.finish(run_dir))


@pytest.mark.parametrize("wait_s", [0.0, 0.3, 1.0])
def test_the_supervisor_may_be_killed_too(cluster: NodeCluster, tmp_path: Path, wait_s: float) -> None:
    run_dir = begin(cluster, tmp_path / f"supervisor-{wait_s}")
    kill(cluster.program(2, "rain governor"))
    time.sleep(wait_s)
    kill(*cluster.processes(1, "supervisor"))
    assert_went_on(run_dir, cluster.finish(run_dir))
