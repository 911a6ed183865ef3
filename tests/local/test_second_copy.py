"""Finished results come to the laptop as they are stored: it is the second copy while it is connected."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from rain_deploy.node.journal.store import Journal
from rain_deploy.results.journals import copies
from rain_deploy.runs.journal import WINDOW_S
from tests.local.command_line import CommandLine, LocalCluster
from tests.local.conftest import MakeCluster
from tests.support.waiting import wait_for

POINTS = 8
AT_ONCE = 5
"""So many points end at once; the others wait for the file ``go``."""
ROOM_S = 5.0
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


def test_results_are_here_while_the_run_goes_on(cluster: LocalCluster, place: Path) -> None:
    run = cluster.start("run", "sweep.py", str(place))
    wait_for(lambda: run.stderr.count("finished") >= AT_ONCE, 60, lambda: f"{run.stdout} {run.stderr}")
    shown_s = time.monotonic()
    wait_for(lambda: results_here(cluster.line) == AT_ONCE, WINDOW_S + ROOM_S)
    assert time.monotonic() - shown_s < WINDOW_S + ROOM_S
    assert run.process.poll() is None
    (place / "go").touch()
    told = run.ended()
    assert (told.exit_code, ARRAY in told.stdout) == (0, True), told
    assert results_here(cluster.line) == POINTS
    assert executed(place) == list(range(POINTS))
