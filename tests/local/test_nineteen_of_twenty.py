"""A sweep that ends at 19 of 20 points, however it ends: 19 values are in its table."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.local.command_line import LocalCluster
from tests.local.node_cluster import NodeCluster, points
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from tests.local.conftest import Installation

SWEEP = """\
import os, sys, time
from rain.client import Client, remote

@remote()
def train(ctx, size):
    if size == 19:
        time.sleep(600)
    with open(os.environ["MARKS"], "a") as marks:
        marks.write("x")
    return str(size * 2)

with Client("localhost", 7210).new_session("sweep") as session:
    tasks = [train(size, name="train size=%d" % size) for size in range(20)]
    for task in tasks:
        task.output.keep()
    session.submit()
    session.wait_all()
    print([task.output.fetch().get_str() for task in tasks])
"""
NINETEEN = {str(size): str(size * 2) for size in range(19)} | {"19": ""}
PULLED_S = 120.0  # before the machine's limit, the run is ended


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    path = tmp_path / "marks"
    path.touch()
    return path


def nineteen(marks: Path) -> None:
    wait_for(lambda: marks.stat().st_size == 19, describe=lambda: f"{marks.stat().st_size} of 19")


def values(results: Path) -> dict[str, str]:
    with (results / "points.csv").open(newline="") as file:
        return {row["size"]: row["value"] for row in csv.DictReader(file)}


@pytest.mark.parametrize("end", ["cancel", "timeout"])
def test_a_run_that_is_ended_has_nineteen_values(shared: LocalCluster, marks: Path, end: str) -> None:
    (shared.line.cwd / "sweep.py").write_text(SWEEP)
    limit = ("--timeout", "45") if end == "timeout" else ()
    running = shared.start(
        "run", "--json", "--env", f"MARKS={marks}", "--env", f"END={end}", *limit, "sweep.py"
    )
    nineteen(marks)
    if end == "cancel":
        shared.well("cancel")
    told = running.ended()
    assert (told.exit_code, told.result["outcome"]) == (43, "cancelled" if end == "cancel" else "timeout")
    assert values(Path(told.result["results_dir"])) == NINETEEN


@pytest.fixture
def cluster(
    installation: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[NodeCluster]:
    """Nodes whose services take ``machine`` for the place where a rented machine has its time limit."""
    (tmp_path / "machine").mkdir()
    monkeypatch.setenv("RAIN_DEPLOY_MACHINE", str(tmp_path / "machine"))
    cluster = NodeCluster(tmp_path / "cluster", installation.engine, installation.env)
    cluster.install()
    cluster.up()
    yield cluster
    cluster.stop()


@pytest.mark.parametrize("limit", ["cost cap", "limit of the machine"])
def test_a_run_that_meets_a_limit_has_nineteen_values(
    cluster: NodeCluster, marks: Path, tmp_path: Path, limit: str
) -> None:
    cap = {"cap": {"seconds": 40.0, "words": "--max-cost 1.00 CHF"}} if limit == "cost cap" else {}
    env = {"MARKS": str(marks)}
    run_dir = cluster.run("sweep", SWEEP, companion=True, restarts=5, env=env, **cap)
    nineteen(marks)
    if not cap:
        (tmp_path / "machine" / "limit").write_text(str(time.time() + PULLED_S))
    status = cluster.finish(run_dir)
    assert (status["outcome"], status["attempt"]) == ("limit", 1), status
    rows = points(run_dir).values()
    assert {str(row["parameters"]["size"]): str(row["value"] or "") for row in rows} == NINETEEN | {"0": ""}
