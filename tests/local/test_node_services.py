"""Keeper, supervisor, job and verbs on two nodes of this machine, with the real Rain."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.local.node_cluster import SWEEP, NodeCluster, points, state, states
from tests.support.processes import kill
from tests.support.waiting import LONG_S, wait_for

if TYPE_CHECKING:
    from tests.local.conftest import Installation

SLEEPER = """\
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (print("told to end", flush=True), sys.exit(7)))
print("started", flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def cluster(installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeCluster]:
    long_name = "a-long-path-as-homes-of-users-may-have-it-" * 2  # Rain's sockets lie below it
    made = NodeCluster(tmp_path_factory.mktemp(long_name), installation.engine, installation.env)
    made.install()
    made.up()
    yield made
    made.stop()


@pytest.fixture
def whole(cluster: NodeCluster) -> NodeCluster:
    """The cluster with all its services, whatever the test before did to them."""
    services = [
        cluster.processes(1, "keeper"),
        cluster.processes(1, "supervisor"),
        cluster.processes(2, "keeper"),
    ]
    if any(len(pids) != 1 for pids in services):
        cluster.up()
    return cluster


def text(lines: list[dict[str, str]], stream: str) -> str:
    return "".join(line["d"] for line in lines if line["t"] == stream)


def wait_for_output(run_dir: Path, words: str) -> None:
    def shown() -> bool:
        with contextlib.suppress(FileNotFoundError):
            return words in (run_dir / "stdout.log").read_text()
        return False

    wait_for(shown, describe=lambda: str(state(run_dir)))


def test_what_runs_is_not_started_again(whole: NodeCluster) -> None:
    before = [set(whole.processes(index, "keeper")) for index in (1, 2)]
    assert whole.up() == []
    assert [set(whole.processes(index, "keeper")) for index in (1, 2)] == before


@pytest.mark.smoke
def test_a_sweep_runs_on_both_nodes_and_is_followed_to_its_end(whole: NodeCluster) -> None:
    run_dir = whole.run("sweep", SWEEP, "20")
    lines = whole.follow(run_dir)
    assert (lines[0]["t"], lines[-1]) == ("state", {"t": "end"})
    assert text(lines, "out") == "2470\n"
    assert text(lines, "err") == ""
    last = [line for line in lines if line["t"] == "state"][-1]
    told = {key: last[key] for key in ("state", "outcome", "exit_code", "attempt", "nodes", "missing")}
    assert told == {
        "state": "finished",
        "outcome": "done",
        "exit_code": 0,
        "attempt": 1,
        "nodes": ["node-1", "node-2"],
        "missing": [],
    }
    assert set(last["versions"]) == {"python", "rain", "tensorflow"}
    sent_bytes = sum(line["bytes"] for line in lines if line["t"] == "point")
    assert sent_bytes == (run_dir / "points.jsonl").stat().st_size
    rows = {
        tuple(line["row"][key] for key in ("session", "task")): line["row"]
        for line in lines
        if line["t"] == "point"
    }
    assert rows == points(run_dir)
    assert sorted(row["parameters"]["x"] for row in rows.values() if row["point"]) == list(range(20))
    assert {row["state"] for row in rows.values()} == {"finished"}
    assert {row["node"] for row in rows.values()} == {"node-1", "node-2"}
    assert all(row["ended_s"] - row["started_s"] >= 0.049 for row in rows.values())


def test_what_a_task_prints_is_in_its_log_while_it_runs(whole: NodeCluster) -> None:
    go = whole.base / "go"
    script = SWEEP.replace(
        "time.sleep(0.05)",
        f"print('here is', x)\n    while not __import__('os').path.exists({str(go)!r}): time.sleep(0.1)",
    )
    run_dir = whole.run("prints", script, "1")

    def shown() -> bool:
        logs = whole.directory.glob("nodes/*/governor/epochs/*/log/executors/*.out")
        return any("here is 0\n" in path.read_text() for path in logs)

    wait_for(shown, describe=lambda: str(state(run_dir)))
    assert state(run_dir)["state"] == "running"
    go.touch()
    assert whole.finish(run_dir)["outcome"] == "done"


def test_services_leave_no_zombies(whole: NodeCluster) -> None:
    services = [
        *whole.processes(1, "supervisor"),
        *whole.processes(1, "keeper"),
        *whole.processes(2, "keeper"),
    ]
    for number in range(3):
        whole.finish(whole.run(f"zombies-{number}", "print(1)"))
    whole.probe()
    wait_for(lambda: not zombies_of(services), describe=lambda: str(zombies_of(services)))


def zombies_of(parents: list[int]) -> list[str]:
    """State lines of the children that have ended and that nobody has waited for."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            lines.append(path.read_text())
    return [
        line
        for line in lines
        if line.rpartition(")")[2].split()[0] == "Z" and int(line.rpartition(")")[2].split()[1]) in parents
    ]


@pytest.mark.parametrize("queued_only", [False, True])
def test_a_node_without_services_has_lost_its_runs(whole: NodeCluster, *, queued_only: bool) -> None:
    """As after a restart of the machine: nothing runs again by itself."""
    name = f"lost-{queued_only}"
    if queued_only:
        whole.stop_node(1)
        run_dir = whole.run(name, SWEEP, "4")
    else:
        run_dir = whole.run(name, SLEEPER)
        wait_for_output(run_dir, "started")
        whole.stop_node(1)
    lines = whole.follow(run_dir)
    assert lines[-1] == {"t": "end"}
    assert state(run_dir)["outcome"] == "lost"
    assert "node-1 was restarted, or its services were ended" in state(run_dir)["message"]
    listed = json.loads(whole.call("runs", whole.directory).stdout)
    assert {run["run"]: run["outcome"] for run in listed}[name] == "lost"
    whole.up()
    assert state(run_dir)["outcome"] == "lost"


def test_a_run_whose_services_are_killed_and_whose_job_lives_is_not_lost(whole: NodeCluster) -> None:
    run_dir = whole.run("adopted", SLEEPER)
    wait_for_output(run_dir, "started")
    kill(*whole.processes(1, "keeper"), *whole.processes(1, "supervisor"))
    listed = json.loads(whole.call("runs", whole.directory).stdout)
    assert {run["run"]: run["state"] for run in listed}["adopted"] == "running"
    whole.ensure(1)
    assert whole.call("cancel", run_dir).returncode == 0
    assert whole.finish(run_dir)["outcome"] == "cancelled"


def test_numbers_that_the_script_loads_become_values_of_points(whole: NodeCluster) -> None:
    script = SWEEP.replace('name="square x=%d" % x', "").replace("x * x", "x * x + 0.5")
    script = script.replace("sum(int(", "sum(float(").replace("get_bytes", "get_str")
    run_dir = whole.run("values", script, "5", companion=True)
    assert whole.finish(run_dir)["outcome"] == "done"
    rows = [row for row in points(run_dir).values() if row["point"]]
    assert sorted((row["parameters"]["x"], row["value"]) for row in rows) == [
        (x, x * x + 0.5) for x in range(5)
    ]
    assert {(row["state"], row["source"]) for row in rows} == {("finished", "companion")}


def test_a_run_is_followed_from_where_a_reader_left_it(whole: NodeCluster) -> None:
    script = "import sys; sys.stdout.write('gr\\u00fc\\u00dfe\\n' * 40000); sys.stderr.write('abc')"
    run_dir = whole.run("offsets", script, env={"PYTHONIOENCODING": "utf-8"})
    wanted = "grüße\n" * 40000
    assert text(whole.follow(run_dir), "out").encode("utf-8", "surrogateescape") == wanted.encode()
    rest = whole.follow(run_dir, "--out", 3, "--err", 1)  # in the middle of a character
    assert text(rest, "out").encode("utf-8", "surrogateescape") == wanted.encode()[3:]
    assert text(rest, "err") == "bc"


def test_a_script_finds_what_it_would_find_on_a_laptop(whole: NodeCluster) -> None:
    script = """\
import json, os, pathlib, sys
pathlib.Path("made.txt").write_text("made")
names = "WORD PATH RAIN_DEPLOY_SERVER RAIN_DEPLOY_FIGURES PYTHONHASHSEED PWD".split()
print(json.dumps([sys.argv, sys.stdin.read(), os.getcwd(), {n: os.environ[n] for n in names}]))
"""
    run_dir = whole.run(
        "laptop", script, "-v", "two words", "", env={"WORD": "ö $HOME", "PYTHONHASHSEED": "3"}
    )
    argv, stdin, cwd, env = json.loads(text(whole.follow(run_dir), "out"))
    assert argv == ["script.py", "-v", "two words", ""]
    assert (stdin, cwd) == ("", str(run_dir / "files"))
    assert env["PATH"].split(":")[0] == str(whole.env / "bin")
    del env["PATH"]
    assert env == {
        "WORD": "ö $HOME",
        "RAIN_DEPLOY_SERVER": f"{whole.address(1)}:{json.loads((run_dir / 'run.json').read_text())['port']}",
        "RAIN_DEPLOY_FIGURES": str(run_dir / "figures"),
        "PYTHONHASHSEED": "3",
        "PWD": cwd,
    }
    with tarfile.open(fileobj=io.BytesIO(whole.call("pack", run_dir).stdout)) as tar:
        names = tar.getnames()
    assert {*names} == {"stdout.log", "stderr.log", "state.json", "files/made.txt", "left.json", "sums.json"}


def test_tasks_get_the_variables_of_their_run_and_those_go_with_it(whole: NodeCluster) -> None:
    script = """\
from rain.client import Client, remote
import os
@remote()
def look(ctx):
    return ",".join(os.environ.get(n, "-") for n in ("WORD", "OMP_NUM_THREADS", "TF_NUM_INTEROP_THREADS"))
with Client("localhost", 7210).new_session("s") as session:
    task = look(); task.output.keep(); session.submit(); print(task.output.fetch().get_bytes().decode())
"""
    run_dir = whole.run("variables", script, env={"WORD": "secret", "OMP_NUM_THREADS": "2"})
    assert text(whole.follow(run_dir), "out") == "secret,2,1\n"
    assert not (run_dir / "env.json").exists()


def test_a_script_that_fails_keeps_its_own_exit_code_and_traceback(whole: NodeCluster) -> None:
    run_dir = whole.run("fails", "import sys\nprint('x')\nsys.exit(3)")
    whole.follow(run_dir)
    assert (state(run_dir)["outcome"], state(run_dir)["exit_code"]) == ("failed", 3)
    run_dir = whole.run("raises", "raise ValueError('no')")
    lines = whole.follow(run_dir)
    assert (state(run_dir)["outcome"], state(run_dir)["exit_code"]) == ("failed", 1)
    assert text(lines, "err").startswith("Traceback")
    assert text(lines, "err").endswith("ValueError: no\n")


def test_a_failed_task_is_reported_in_its_row(whole: NodeCluster) -> None:
    # One task: a governor of Rain 0.4.0 may panic on what it ends for a failed session, and the log is lost.
    script = SWEEP.replace("time.sleep(0.05)", "assert x, 'zero'")
    run_dir = whole.run("failed-task", script, "1")
    assert whole.finish(run_dir)["outcome"] == "failed"
    [row] = points(run_dir).values()
    assert (row["parameters"], row["state"], row["message"]) == ({"x": 0}, "failed", "AssertionError: zero")


def test_a_failed_task_is_the_reason_also_when_the_engine_dies_after_it(whole: NodeCluster) -> None:
    script = SWEEP.replace("time.sleep(0.05)", "assert x != 5, 'five'").replace(
        "    session.wait_all()",
        "    try:\n        session.wait_all()\n    except Exception as error:\n"
        "        print('task failed', flush=True)\n        time.sleep(1)\n        raise",
    )
    run_dir = whole.run("failed-first", script, "20")
    wait_for_output(run_dir, "task failed")
    kill(*whole.processes(1, "server"))
    told = whole.finish(run_dir)
    assert (told["outcome"], told["exit_code"]) == ("failed", 1), told["message"]
    assert "then Rain's server ended" in told["message"]


def test_runs_wait_in_line_and_can_be_cancelled_there(whole: NodeCluster) -> None:
    first = whole.run("first", SLEEPER)
    second, third = whole.run("second", SLEEPER), whole.run("third", "print('third')")
    wait_for_output(first, "started")
    refused = whole.ship("refused", SLEEPER)
    answer = whole.call("queue", refused, "--no-wait")
    assert (answer.returncode, answer.stderr) == (11, b"other runs are not finished: first, second, third\n")
    assert state(refused)["state"] == "shipped"
    assert json.loads(whole.call("queue", third).stdout)["ahead"] == 2
    assert whole.call("cancel", second).returncode == 0
    assert whole.finish(second)["outcome"] == "cancelled"
    assert state(first)["state"] == "running"
    assert not (second / "job.json").exists()
    whole.call("cancel", first)
    assert whole.finish(third)["outcome"] == "done"
    told = {one["run"]: one["outcome"] for one in json.loads(whole.call("runs", whole.directory).stdout)}
    assert told.items() >= {
        ("first", "cancelled"),
        ("second", "cancelled"),
        ("third", "done"),
        ("refused", ""),
    }


def test_a_cancelled_script_may_end_by_itself_and_its_exit_code_is_kept(whole: NodeCluster) -> None:
    run_dir = whole.run("cancelled", SLEEPER)
    wait_for_output(run_dir, "started")
    assert whole.call("cancel", run_dir).returncode == 0
    lines = whole.follow(run_dir)
    assert text(lines, "out") == "started\ntold to end\n"
    assert (state(run_dir)["outcome"], state(run_dir)["exit_code"]) == ("cancelled", 7)


def test_a_script_that_does_not_end_in_time_is_killed_with_all_it_started(whole: NodeCluster) -> None:
    script = """\
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(610)"], start_new_session=True)
time.sleep(600)
"""
    run_dir = whole.run("timeout", script, timeout_s=1.0)
    told = whole.finish(run_dir)
    assert (told["outcome"], told["exit_code"]) == ("timeout", -signal.SIGKILL)
    # The limit counts from a moment before ``started_s``.
    assert told["ended_s"] - told["started_s"] > 3, "it has 5 s to end by itself"
    assert whole.processes(1, "job") == []


def test_what_a_script_leaves_in_the_background_ends_with_it(whole: NodeCluster) -> None:
    script = """\
import subprocess, sys
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(610)"])
"""
    run_dir = whole.run("background", script)
    assert whole.finish(run_dir)["outcome"] == "done"
    assert whole.processes(1, "job") == []


@pytest.mark.parametrize(
    ("limit", "why"),
    [
        ({}, "the run was cancelled"),
        ({"timeout_s": 15.0}, "the script did not end within 15 s"),
        ({"cap": {"seconds": 15.0, "words": "--max-cost 2.00 CHF"}}, "--max-cost 2.00 CHF is reached"),
    ],
    ids=["cancel", "timeout", "cost"],
)
def test_a_point_that_did_not_finish_says_why_the_run_was_ended(
    whole: NodeCluster, limit: dict[str, object], why: str, request: pytest.FixtureRequest
) -> None:
    script = SWEEP.replace("time.sleep(0.05)", "time.sleep(600)")
    run_dir = whole.run(f"ended-{request.node.callspec.id}", script, "6", **limit)
    wait_for(lambda: "running" in states(run_dir), describe=lambda: str(state(run_dir)))
    if not limit:
        assert whole.call("cancel", run_dir).returncode == 0
    whole.finish(run_dir)
    rows = [row for row in points(run_dir).values() if row["point"]]
    assert {row["state"] for row in rows} == {"cancelled", "not run"}
    assert {row["message"] for row in rows} == {why}


LONG_SWEEP = SWEEP.replace("time.sleep(0.05)", "time.sleep(0.2)").replace(
    "    session.wait_all()", "    print('submitted', flush=True)\n    session.wait_all()"
)


@pytest.mark.parametrize(
    ("victim", "reason"),
    [((2, "rain governor"), "the connection to node-2 was lost"), ((1, "rain server"), "")],
    ids=["governor", "server"],
)
def test_the_death_of_the_engine_ends_the_run_and_says_so(
    whole: NodeCluster, victim: tuple[int, str], reason: str
) -> None:
    run_dir = whole.run(f"engine-{victim[0]}", LONG_SWEEP, "100")
    wait_for_output(run_dir, "submitted")
    kill(whole.program(*victim))
    told = whole.finish(run_dir)
    assert (told["outcome"], told["exit_code"]) == ("engine", 1)
    assert reason in told["message"]
    assert "KjException" in (run_dir / "stderr.log").read_text()
    whole.probe()  # the cluster is whole again by itself


@pytest.mark.parametrize("role", ["supervisor", "keeper", "both"])
def test_killed_services_come_back_and_the_run_goes_on(whole: NodeCluster, role: str) -> None:
    run_dir = whole.run(f"survives-{role}", LONG_SWEEP, "60")
    wait_for_output(run_dir, "submitted")
    roles = ["supervisor", "keeper"] if role == "both" else [role]
    killed = [pid for one in roles for pid in whole.processes(1, one)]
    assert len(killed) == len(roles)
    kill(*killed)
    if role == "both":
        whole.ensure(1)
    told = whole.finish(run_dir)
    assert (told["outcome"], told["exit_code"]) == ("done", 0)
    assert (run_dir / "stdout.log").read_text() == "submitted\n70210\n"
    rows = points(run_dir).values()
    assert [row["state"] for row in rows] == ["finished"] * 60
    lines = (run_dir / "points.jsonl").read_text().splitlines()
    assert len(lines) == len(set(lines))
    for one in roles:
        wait_for(lambda one=one: len(whole.processes(1, one)) == 1)  # type: ignore[misc]
    assert not set(killed) & set(whole.processes(1))


def test_a_supervisor_killed_at_any_moment_of_a_run_starts_the_script_once(whole: NodeCluster) -> None:
    for number in range(5):
        run_dir = whole.run(f"killed-{number}", "import time; print('once', flush=True); time.sleep(0.3)")
        time.sleep(0.15 * number)
        kill(*whole.processes(1, "supervisor"))
        whole.ensure(1)
        assert whole.finish(run_dir)["outcome"] == "done", state(run_dir)
        assert (run_dir / "stdout.log").read_text() == "once\n"


def test_a_job_that_vanishes_is_lost(whole: NodeCluster) -> None:
    run_dir = whole.run("lost", SLEEPER)
    wait_for_output(run_dir, "started")
    kill(*whole.processes(1, "job"))
    told = whole.finish(run_dir)
    assert (told["outcome"], told["exit_code"]) == ("lost", None)


def test_following_ends_when_nobody_reads(whole: NodeCluster) -> None:
    run_dir = whole.run("unread", SLEEPER)
    reader = subprocess.Popen(whole.argv("follow", run_dir), stdout=subprocess.PIPE)
    assert reader.stdout
    assert json.loads(reader.stdout.readline())["t"] == "state"
    wait_for_output(run_dir, "started")
    reader.stdout.close()
    assert reader.wait(timeout=LONG_S) == 0
    whole.call("cancel", run_dir)
    whole.finish(run_dir)


def test_services_of_an_older_code_are_replaced_in_mid_run(whole: NodeCluster) -> None:
    run_dir = whole.run("upgrade", LONG_SWEEP, "60")
    wait_for_output(run_dir, "submitted")
    whole.renew_code()
    whole.ensure(1)  # within a second they would go on as the new code by themselves
    services = whole.processes(1, "keeper") + whole.processes(1, "supervisor")
    assert len(services) == 2
    for pid in services:
        assert str(whole.code) in Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    assert whole.ensure(1) == []
    assert whole.finish(run_dir)["outcome"] == "done"


def test_a_node_tells_how_it_is(whole: NodeCluster) -> None:
    whole.probe()
    told = json.loads(whole.call("status", whole.directory, whole.node_dir(1)).stdout)
    assert told["services"] == {
        "keeper": whole.processes(1, "keeper")[0],
        "supervisor": whole.processes(1, "supervisor")[0],
    }
    assert told["governor"]["pid"] == whole.program(1, "rain governor")
    assert told["governor"]["ready"]
    assert told["disk_free_bytes"] > 0
    assert told["runs"] == json.loads(whole.call("runs", whole.directory).stdout)
    other = json.loads(whole.call("status", whole.directory, whole.node_dir(2)).stdout)
    assert (list(other["services"]), other["runs"]) == (["keeper"], [])


@pytest.mark.slow
def test_a_run_without_all_governors_starts_only_when_that_was_allowed(whole: NodeCluster) -> None:
    whole.stop_node(2)
    refused, allowed = whole.run("refused-2", "print(1)"), whole.run("allowed", "print(1)", min_nodes=1)
    told = whole.finish(refused)
    assert (told["outcome"], told["missing"], told["exit_code"]) == ("engine", ["node-2"], None)
    assert "node-2" in told["message"]
    told = whole.finish(allowed)
    assert (told["outcome"], told["nodes"], told["missing"]) == ("done", ["node-1"], ["node-2"])


def test_a_run_is_cancelled_while_it_waits_for_governors(whole: NodeCluster) -> None:
    whole.stop_node(2)
    run_dir = whole.run("waits", "print(1)")
    wait_for(lambda: state(run_dir)["state"] == "starting")
    whole.call("cancel", run_dir)
    assert whole.finish(run_dir)["outcome"] == "cancelled"
    assert not (run_dir / "stdout.log").exists()


def test_stopping_a_node_leaves_no_process_of_it_and_none_of_another_is_touched(whole: NodeCluster) -> None:
    run_dir = whole.run("stopped", SLEEPER)
    wait_for_output(run_dir, "started")
    marked = {**os.environ, "RAIN_DEPLOY_SERVICE": whole.service(1)}
    orphan = subprocess.Popen(["sleep", "600"], env=marked, start_new_session=True)
    keeper = whole.processes(2, "keeper")
    assert len(whole.processes(1)) >= 6
    whole.stop_node(1)
    assert whole.processes(1) == []
    assert orphan.wait(timeout=LONG_S) == -signal.SIGTERM
    assert whole.processes(2, "keeper") == keeper
    whole.stop_node(1)
    whole.up()
    assert whole.finish(run_dir)["outcome"] in {"lost", "engine"}
