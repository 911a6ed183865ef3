"""A run goes on by itself after the loss of its engine, a node or its script: two nodes, real Rain."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.local.node_cluster import NodeCluster, points, state
from tests.support.processes import kill
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
    wait_for(lambda: place.is_dir() and len(list(place.iterdir())) > 4, describe=lambda: str(state(run_dir)))
    return run_dir


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
    cluster.cut_power(2)
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


KILLS_ITSELF = "import os; print('said', flush=True); os.kill(os.getpid(), 9)"


def test_a_cancel_ends_the_pause_before_an_attempt(cluster: NodeCluster) -> None:
    run_dir = cluster.run("cancelled", KILLS_ITSELF, restarts=5)
    wait_for(lambda: len(state(run_dir).get("events", ())) == 4, describe=lambda: str(state(run_dir)))
    assert cluster.call("cancel", run_dir).returncode == 0
    status = cluster.finish(run_dir)
    assert (status["outcome"], status["attempt"], status["exit_code"]) == ("cancelled", 4, -9)
    over_s = (run_dir / "state.json").stat().st_mtime
    assert over_s - status["events"][-1]["at_s"] < 8, "it does not last to its end"
    assert (run_dir / "stdout.log").read_text() == "said\n"


def test_the_time_limit_of_a_run_counts_over_its_attempts(cluster: NodeCluster) -> None:
    run_dir = cluster.run("timeout", KILLS_ITSELF, restarts=5, timeout_s=5.0)
    status = cluster.finish(run_dir)
    assert status["outcome"] == "timeout"
    assert status["attempt"] > 1
    assert (run_dir / "stdout.log").read_text() == "said\n", "of the last attempt that had a script"


def test_a_script_that_is_killed_again_and_again_is_given_up(cluster: NodeCluster) -> None:
    run_dir = cluster.run("again", "import os; os.kill(os.getpid(), 9)", restarts=2)
    status = cluster.finish(run_dir)
    assert (status["outcome"], status["exit_code"], status["attempt"]) == ("lost", -9, 3)
    assert status["message"].endswith("; 3 attempts were lost")
    assert sorted(path.name for path in (run_dir / "attempts").iterdir()) == ["1", "2"]
    wait_for(lambda: not (run_dir / "shipped").exists())


def test_an_end_of_its_own_is_no_loss(cluster: NodeCluster) -> None:
    for name, line, exit_code in (("term", "os.kill(os.getpid(), 15)", -15), ("exit", "os._exit(3)", 3)):
        status = cluster.finish(cluster.run(name, f"import os; {line}", restarts=5))
        assert (status["outcome"], status["exit_code"], status["attempt"]) == ("failed", exit_code, 1)


@pytest.mark.slow
def test_a_silent_governor_is_lost_and_changes_nothing_when_it_comes_back(
    cluster: NodeCluster, tmp_path: Path
) -> None:
    run_dir = begin(cluster, tmp_path / "silent")
    silent = cluster.program(2, "rain governor")
    stopped_s = time.time()
    os.killpg(silent, signal.SIGSTOP)
    try:
        wait_for(lambda: state(run_dir)["attempt"] == 2, 90, lambda: str(state(run_dir)))
        wait_for(lambda: state(run_dir)["state"] == "running", describe=lambda: str(state(run_dir)))
        assert time.time() - stopped_s < 90
        assert state(run_dir)["nodes"] == ["node-1"]
    finally:
        os.killpg(silent, signal.SIGCONT)
    status = cluster.finish(run_dir)
    assert_went_on(run_dir, {**status, "events": status["events"][:1]})
    said = "node-2 was lost (nothing was heard from its governor for 45 s)"
    assert status["events"][0]["message"].startswith(said)
    assert silent not in cluster.processes(2)
    log = (run_dir / "epochs" / "2" / "server.log").read_text()
    assert "panicked" not in log
    assert log.count("registered as governor") == 2, "node-1, and the governor that node-2's keeper started"


ENDS_SESSIONS = """\
import os, sys, time
from rain.client import Client, remote, tasks

@remote()
def square(ctx, x):
    return str(x * x)

@remote()
def deadly(ctx):
    import os
    os.kill(os.getpid(), 9)

with Client("localhost", 7210).new_session("squares") as session:
    bad = deadly(name="bad x=9") if sys.argv[1] == "death" else tasks.Execute(
        ["sh", "-c", "exit 3"], stdout=True, name="bad x=9")
    good = [square(x, name="square x=%d" % x) for x in range(6)]
    for task in (bad, *good):
        task.output.keep()
    session.submit()
    print([int(task.output.fetch().get_bytes()) for task in good], flush=True)
    bad.output.fetch()
"""


@pytest.mark.parametrize(
    ("what", "attempts", "said", "reason"),
    [
        ("failure", 2, "bad x=9 failed and ended the session", "Program exit with exit code 3"),
        (
            "death",
            4,
            "bad x=9 died with its process and ended the session",
            "given up: its process or its node's engine died under it ",
        ),
    ],
)
def test_a_task_that_ends_its_session_costs_no_other_its_result(
    cluster: NodeCluster, what: str, attempts: int, said: str, reason: str
) -> None:
    run_dir = cluster.run(f"ends-{what}", ENDS_SESSIONS, what, restarts=1, companion=True)
    status = cluster.finish(run_dir)
    assert (status["outcome"], status["exit_code"]) == ("failed", 1)
    told = [event["message"] for event in status["events"]]
    because = [message for message in told if message.startswith(said)]
    others = len(told) - len(because)  # on a busy machine a governor may be lost as well
    assert status["attempt"] >= attempts
    follows = "; bad x=9 was running alone and is given up" if what == "death" else ""
    assert because[-1].startswith(f"{said}{follows}; attempt ")
    losses = json.loads((run_dir / "lives.json").read_text())["losses"]
    assert len(losses) <= others, "it costs no restart"
    assert (run_dir / "stdout.log").read_text() == "[0, 1, 4, 9, 16, 25]\n"
    assert reason in (run_dir / "stderr.log").read_text()
    rows = {row["parameters"]["x"]: row for row in points(run_dir).values() if row["point"]}
    assert {x: row["state"] for x, row in rows.items()} == dict.fromkeys(range(6), "finished") | {9: "failed"}


END_SERVER = """\
import glob, os

def end_server():
    listens = ("server\\0--listen\\0" + os.environ["RAIN_DEPLOY_SERVER"]).encode()
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            if listens in open(path, "rb").read():
                os.kill(int(path.split("/")[2]), 9)
        except OSError:
            pass  # it has ended meanwhile

"""
ENDS_THE_ENGINE_TOO = END_SERVER + ENDS_SESSIONS.replace(
    "    session.submit()\n",
    """\
    session.submit()
    try:
        bad.output.fetch()
    except Exception:
        if os.path.exists("../attempts"):
            raise
        until, ends = time.time() + 60, "../companion/ends.jsonl"
        while time.time() < until and not (os.path.exists(ends) and '"hard": true' in open(ends).read()):
            time.sleep(0.01)
        end_server()
        raise
""",
)


def test_a_failure_that_ends_the_engine_too_is_known_in_the_next_attempt(cluster: NodeCluster) -> None:
    run_dir = cluster.run("ends-both", ENDS_THE_ENGINE_TOO, "failure", restarts=1, companion=True)
    status = cluster.finish(run_dir)
    assert (status["outcome"], status["attempt"]) == ("failed", 2)
    said = "bad x=9 failed and ended the session; attempt 2 goes on with the rest"
    assert [event["message"] for event in status["events"]] == [said]
    assert {row["state"] for row in points(run_dir).values() if row["name"] != "bad x=9"} == {"finished"}


ENDS_THE_ENGINE_FIRST = f"""\
{END_SERVER}
import os, sys
from rain.client import Client
with Client("localhost", 7210).new_session("first"):
    if not os.path.exists("../attempts"):
        end_server()
        sys.stderr.write("rain.common.errors.TaskException: no\\n")
        sys.stderr.flush()
        os._exit(1)
"""


@pytest.mark.parametrize(("fail_fast", "ends"), [(False, ("done", 2)), (True, ("failed", 1))])
def test_if_the_engine_ends_before_a_failure_is_noted_the_next_attempt_finds_it(
    cluster: NodeCluster, *, fail_fast: bool, ends: tuple[str, int]
) -> None:
    settings = {"restarts": 1, "companion": True, "fail_fast": fail_fast}
    status = cluster.finish(cluster.run(f"first-{fail_fast}", ENDS_THE_ENGINE_FIRST, **settings))
    assert (status["outcome"], status["attempt"]) == ends


ENDS_BEFORE_THE_ENGINE = f"""\
{END_SERVER}
import inspect, subprocess, sys, time
from rain.client import Client
with Client("localhost", 7210).new_session("before"):
    if not os.path.exists("../attempts"):
        code = inspect.getsource(end_server) + "import time, glob, os; time.sleep(2); end_server()"
        server = {{"RAIN_DEPLOY_SERVER": os.environ["RAIN_DEPLOY_SERVER"]}}
        subprocess.Popen([sys.executable, "-c", code], env=server, start_new_session=True)
        sys.stderr.write("capnp.lib.capnp.KjException: capnp/rpc.c++: disconnected: Peer disconnected.\\n")
        sys.stderr.flush()
        os._exit(1)
"""


def test_a_script_that_lost_its_connection_is_no_failure_although_the_server_dies_slowly(
    cluster: NodeCluster,
) -> None:
    run_dir = cluster.run("slowly", ENDS_BEFORE_THE_ENGINE, restarts=1, companion=True)
    status = cluster.finish(run_dir)
    assert (status["outcome"], status["attempt"]) == ("done", 2), (run_dir / "stderr.log").read_text()


def test_with_fail_fast_a_task_that_fails_ends_the_run(cluster: NodeCluster) -> None:
    run_dir = cluster.run("fast", ENDS_SESSIONS, "failure", restarts=5, companion=True, fail_fast=True)
    status = cluster.finish(run_dir)
    assert (status["outcome"], status["exit_code"], status["attempt"]) == ("failed", 1, 1)
