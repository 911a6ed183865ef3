"""Searches that train with TensorFlow lose a governor: finished accuracies stay, and none is trained twice.

The published search loads as much data as MNIST has: a result of 55 MB, near the 64 MB of a message of Rain.
"""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

from tests.campaigns.homes import cached_home
from tests.campaigns.kills import FIRST_UP_S
from tests.faults.crash_points import Score
from tests.local.command_line import LocalCluster
from tests.support.waiting import wait_for
from tests.wheels.build import build_offline_mnist

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPTS = ("digits.py", "hsearch.py")
POINTS = 20
NODES = 2
SEARCH_DEADLINE_S = 2700.0
SERVED_BYTES = 50_000_000
"""The journal has a result of at least this size after the published search: its data."""


def play(place: Path, chance: random.Random, rounds: int) -> Score:
    """Lose a governor in ``rounds`` searches, each script in turn."""
    line = cached_home(place)
    cluster = LocalCluster(line, "trainings")
    wheel = build_offline_mnist(place)
    cluster.well(
        "up", "--provider", "local", "--nodes", str(NODES), "--with", str(wheel), timeout_s=FIRST_UP_S
    )
    score = Score()
    try:
        for number in range(rounds):
            script = SCRIPTS[number % len(SCRIPTS)]
            (line.cwd / script).write_bytes((EXAMPLES / script).read_bytes())
            score.add(*_search(cluster, script, chance.randint(2, POINTS // 2), chance.uniform(0, 3)))
    finally:
        cluster("down", "--yes", "--discard-results")
    return score


def _search(cluster: LocalCluster, script: str, before: int, wait_s: float) -> tuple[str, list[str]]:
    """Run a search and kill a governor when some of it has finished; what happened, and what is wrong."""
    words = ("--fresh", "--env", "OFFLINE_MNIST_TENTHS=10", script)
    runs = cluster.directory / "runs"
    known = set(runs.glob("*"))
    run = cluster.start("run", *words)
    wait_for(lambda: set(runs.glob("*")) - known, 60, lambda: f"{run.stdout} {run.stderr}")
    (directory,) = set(runs.glob("*")) - known
    wait_for(
        lambda: len(_shown(directory)) >= before, SEARCH_DEADLINE_S, lambda: f"{run.stdout} {run.stderr}"
    )
    time.sleep(wait_s)
    shown = _shown(directory)
    for pid in cluster.processes(NODES, "governor"):
        os.kill(pid, signal.SIGKILL)
    told = run.ended(SEARCH_DEADLINE_S)
    state = json.loads((directory / "state.json").read_text())
    with (cluster.line.cwd / "results" / directory.name / "points.csv").open(newline="") as file:
        values = [row["value"] for row in csv.DictReader(file) if row["state"] == "finished"]
    rows = {row["name"]: row for row in _last_rows(directory)}
    wrong = [] if told.exit_code == 0 and state["attempt"] == 2 else [f"{told} {state}"]
    if len(values) != POINTS or not all(values):
        wrong.append(f"not {POINTS} accuracies: {values}")
    wrong += [
        f"{name} had {accuracy}, and then {rows[name]}"
        for name, accuracy in shown.items()
        if rows[name]["value"] != accuracy or not rows[name]["cached"]
    ]
    if not all(row["cached"] for row in rows.values() if not row["point"]):
        wrong.append("the data were loaded again")
    data = max(_sizes(directory), default=0)
    if script == "hsearch.py" and data < SERVED_BYTES:
        wrong.append(f"the largest result that was kept has {data} bytes")
    told_of = f"{script}: {len(shown)} points had finished, largest kept result {data / 1e6:.1f} MB"
    print(told_of, flush=True)
    return told_of, wrong


def _last_rows(directory: Path) -> list[dict[str, Any]]:
    """The newest row of each task of a run."""
    path = directory / "points.jsonl"
    lines = path.read_text().splitlines() if path.exists() else ()
    return list({(row["session"], row["task"]): row for row in map(json.loads, lines)}.values())


def _shown(directory: Path) -> dict[str, float]:
    """The accuracies of points that whoever follows the run has seen, by name."""
    return {
        row["name"]: row["value"]
        for row in _last_rows(directory)
        if row["point"] and row["state"] == "finished" and row["value"] is not None
    }


def _sizes(directory: Path) -> list[int]:
    """Sizes of the files that hold the results of finished tasks."""
    return [path.stat().st_size for path in directory.parent.parent.rglob("*.seg")]
