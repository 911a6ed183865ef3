"""Finished results come to the laptop as they are stored: it is the second copy while it is connected."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from rain_deploy.node.journal.store import Journal
from rain_deploy.results.journals import copies
from rain_deploy.runs.journal import WINDOW_S
from tests.local.command_line import PROGRAM, CommandLine, LocalCluster
from tests.local.conftest import FIRST_UP_S, MakeCluster
from tests.support.results import verify
from tests.support.waiting import wait_for

POINTS = 8
AT_ONCE = 5
"""So many points end at once; the others wait for the file ``go``."""
ROOM_S = 20.0
"""A busy machine may take so much longer."""
DEADLINE_S = 60.0
"""From the loss of the server's node to the end of the command."""
SWEEP = f"""\
import itertools, os, sys, time
from rain.client import Client, remote

@remote()
def square(ctx, x, place):
    for turn in itertools.count():
        try:
            mark = os.open("%s/turn-%d" % (place, turn), os.O_CREAT | os.O_EXCL | os.O_WRONLY)
            break
        except FileExistsError:
            pass
    os.write(mark, b"%d" % x)
    while turn >= {AT_ONCE} and not os.path.exists(place + "/go"):
        time.sleep(0.05)
    return str(x * x)

with Client("localhost", 7210).new_session("squares") as session:
    tasks = [square(x, sys.argv[1], name="square x=%d" % x) for x in range({POINTS})]
    for task in tasks:
        task.output.keep()
    session.submit()
    session.wait_all()
    print("array", [int(task.output.fetch().get_bytes()) for task in tasks])
"""
ARRAY = f"array {[x * x for x in range(POINTS)]}\n"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "sweep.py").write_text(SWEEP)
    return tmp_path


@pytest.fixture
def cluster(make_cluster: MakeCluster, place: Path) -> LocalCluster:
    made = make_cluster(2)
    return LocalCluster(made.line.at(place), made.name)


def executed(place: Path) -> list[int]:
    """The points whose task was executed, once for each time."""
    return sorted(int(path.read_text()) for path in place.glob("turn-*"))


def results_here(line: CommandLine) -> int:
    """So many results are in the copies of this home, whole."""
    count = 0
    for copy in copies(line.home):
        journal = Journal(copy.path)
        assert journal.load() == []
        count += journal.usage().records
    return count


def test_results_are_here_while_the_run_goes_on(shared: LocalCluster, place: Path) -> None:
    before = results_here(shared.line)
    run = shared.start("run", "sweep.py", str(place))
    wait_for(lambda: run.stderr.count("finished") >= AT_ONCE, describe=lambda: f"{run.stdout} {run.stderr}")
    wait_for(lambda: results_here(shared.line) == before + AT_ONCE, WINDOW_S + ROOM_S)
    assert run.process.poll() is None
    (place / "go").touch()
    told = run.ended()
    assert (told.exit_code, ARRAY in told.stdout) == (0, True), told
    assert results_here(shared.line) == before + POINTS
    assert executed(place) == list(range(POINTS))


@pytest.mark.slow
def test_the_loss_of_the_servers_node_costs_no_finished_point(cluster: LocalCluster, place: Path) -> None:
    run = cluster.start("run", "--env", "UNUSED=x y", "sweep.py", str(place))
    wait_for(lambda: results_here(cluster.line) == AT_ONCE, describe=lambda: f"{run.stdout} {run.stderr}")
    finished = sorted(int(x) for x in re.findall(r"^square x=(\d+): .*finished", run.stderr, re.MULTILINE))
    cluster.cut_power(1)
    shutil.rmtree(cluster.directory / "journal")  # and what was on its disk
    told = run.ended(DEADLINE_S)
    assert told.exit_code == 40, told
    assert (
        f"node-1 is gone: none of its processes is left; {AT_ONCE} of {POINTS} points finished" in told.stderr
    )
    (results,) = (place / "results").iterdir()
    with (results / "points.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["state"] == "finished"]
    assert sorted((int(row["x"]), int(row["value"])) for row in rows) == [(x, x * x) for x in finished]
    assert verify(results) == ("it was pulled before the run had ended",)
    table = (results / "points.csv").read_bytes()
    again = cluster.start("attach").ended(DEADLINE_S)
    assert (again.exit_code, (results / "points.csv").read_bytes()) == (40, table), again
    ran = executed(place)
    (place / "go").touch()
    environ = {**os.environ, "RAIN_DEPLOY_HOME": str(cluster.line.home), "UNUSED": "x y"}
    environ["PATH"] = f"{PROGRAM.parent}:{environ['PATH']}"
    next_step = re.search(r"^next: (.*)$", told.stderr, re.MULTILINE)
    assert next_step, told
    typed = next_step[1].replace("UNUSED=…", "UNUSED")
    after = subprocess.run(
        ["sh", "-c", typed], cwd=place, env=environ, capture_output=True, check=False, timeout=120, text=True
    )
    assert (after.returncode, ARRAY in after.stdout) == (0, True), f"{typed}: {after}"
    assert sorted(set(executed(place))) == list(range(POINTS))
    assert all(executed(place).count(x) == 1 for x in finished), (ran, executed(place))


@pytest.mark.slow
def test_attach_tells_how_a_run_ended_that_is_here_when_its_node_is_gone(
    cluster: LocalCluster, place: Path
) -> None:
    (place / "go").touch()
    results = cluster.run("sweep.py", str(place))
    cluster.cut_power(1)
    told = cluster.well("attach")
    assert f"{POINTS} points" in told.stdout
    assert f"all results of run {results.name} are here, in {results}" in told.stderr
    assert "not pulled" not in told.stdout + told.stderr
    assert verify(results) == ()


@pytest.mark.slow
def test_a_cluster_of_another_name_computes_nothing_again(cluster: LocalCluster, place: Path) -> None:
    (place / "go").touch()
    first = cluster.run("sweep.py", str(place))
    cluster.well("down", "--yes")
    second = LocalCluster(cluster.line, "another")
    told = second.well("up", "--provider", "local", "--nodes", "2", timeout_s=FIRST_UP_S)
    assert re.search(rf"sent {POINTS} results \(.* kB\) of cluster {cluster.name}", told.stderr), told
    again = second.run("sweep.py", str(place))
    assert (first / "stdout.log").read_text() == (again / "stdout.log").read_text() == ARRAY
    assert executed(place) == list(range(POINTS))


@pytest.mark.slow
def test_results_that_the_node_has_lost_come_back_from_here(cluster: LocalCluster, place: Path) -> None:
    (place / "go").touch()
    cluster.run("sweep.py", str(place))
    shutil.rmtree(cluster.directory / "journal")
    cluster.well("pull")
    assert results_here(cluster.line) == POINTS
    told = cluster.well("up", "--provider", "local", "--nodes", "2", timeout_s=FIRST_UP_S)
    assert f"sent {POINTS} results" in told.stderr, told
    cluster.run("sweep.py", str(place))
    assert executed(place) == list(range(POINTS))


def test_a_killed_command_line_loses_nothing_of_a_run_that_ends_without_it(
    shared: LocalCluster, place: Path
) -> None:
    before = results_here(shared.line)
    run = shared.start("run", "sweep.py", str(place))
    wait_for(lambda: run.stderr.count("finished") >= AT_ONCE, describe=lambda: f"{run.stdout} {run.stderr}")
    run.kill()
    name = re.search(r"^run (\S+): ", run.stderr, re.MULTILINE)
    assert name
    state = shared.directory / "runs" / name[1] / "state.json"
    (place / "go").touch()
    wait_for(lambda: json.loads(state.read_text())["state"] == "finished", describe=state.read_text)
    elsewhere = place / "elsewhere"
    elsewhere.mkdir()
    told = LocalCluster(shared.line.at(elsewhere), shared.name).well("attach")
    assert ARRAY in told.stdout
    (results,) = (place / "results").iterdir()
    assert results.name == state.parent.name
    assert verify(results) == ()
    assert (results / "stdout.log").read_text() == ARRAY
    with (results / "points.csv").open(newline="") as file:
        rows = sorted((int(row["x"]), int(row["value"]), row["state"]) for row in csv.DictReader(file))
    assert rows == [(x, x * x, "finished") for x in range(POINTS)]
    assert results_here(shared.line) == before + POINTS
    assert list((shared.line.home / "journal").glob(".*")) == []
    assert executed(place) == list(range(POINTS))


def test_ctrl_c_does_not_wait_for_a_pull_whose_line_is_dead(shared: LocalCluster, place: Path) -> None:
    run = shared.start("run", "sweep.py", str(place))
    wait_for(lambda: run.stderr.count("finished") >= AT_ONCE, describe=lambda: f"{run.stdout} {run.stderr}")
    ssh = shared.processes(1, "ssh")
    for pid in ssh:
        os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(WINDOW_S + 1)  # a pull has begun
        run.interrupt()
        assert run.ended(ROOM_S).exit_code == 130
    finally:
        for pid in ssh:
            os.kill(pid, signal.SIGCONT)
