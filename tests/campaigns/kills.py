"""Kills at random moments of a sweep: its result is as if there were none, and no finished point is lost.

Every task leaves a mark when it is executed, so that what was executed again is counted.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import random
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.campaigns.homes import cached_home
from tests.faults.crash_points import Score
from tests.local.command_line import LocalCluster, Running
from tests.support.processes import command
from tests.support.waiting import wait_for

KINDS = ("governor", "executor", "server", "keeper", "supervisor", "helper", "script", "node")
NODES = 2
POINTS = 20
_PROCESSES = {
    "governor": ("governor", " governor "),
    "executor": ("governor", "rain.executor"),
    "helper": ("job", "journal-helper"),
    "script": ("job", "sweep.py"),
}
"""Role and words of the command line of a kind that is not a role of its own."""
FIRST_UP_S = 900.0
RUN_DEADLINE_S = 180.0
SCRIPT = f"""\
import sys
from rain.client import Client, remote

@remote()
def square(ctx, x, marks):
    import time
    with open("%s/%d" % (marks, x), "a") as file:
        file.write("%f\\n" % time.time())
    time.sleep(0.4)
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


@dataclass(frozen=True, slots=True)
class Round:
    """What one kill cost."""

    kind: str
    attempts: int = 0
    executed: int = 0
    again: int = 0  # executions of points that had been shown as finished
    in_flight: int = 0  # points that had begun at the kill and were not shown as finished
    resumed_s: float | None = None  # from the kill to the next execution in another attempt
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        after = "" if self.resumed_s is None else f", the next task after {self.resumed_s:.1f} s"
        again = f"{self.executed - POINTS} of {self.in_flight} in flight executed again"
        return f"{self.kind}: {self.attempts} attempts, {again}{after}"


@dataclass
class Totals(Score):
    """The sum over the rounds."""

    lost: int = 0
    again: int = 0
    resumed_s: list[float] = field(default_factory=list)

    def take(self, one: Round) -> None:
        """Count a round."""
        self.add(str(one), one.wrong)
        self.lost += one.again
        self.again += max(0, one.executed - POINTS)
        self.resumed_s += [] if one.resumed_s is None else [one.resumed_s]

    def __str__(self) -> str:
        times = sorted(self.resumed_s)
        median = f"{times[len(times) // 2]:.1f} s, at most {times[-1]:.1f} s" if times else "not met"
        counts = f"{self.tried} kills, {len(self.failed)} failed, {self.passed_by} not met"
        return f"{counts}, {self.lost} points lost, {self.again} re-executions, loss to next task {median}"


class Kills:
    """Sweeps on a cluster of two local nodes, each with one kill."""

    def __init__(self, cluster: LocalCluster, chance: random.Random) -> None:
        self._cluster, self._chance = cluster, chance
        self._number = 0
        (cluster.line.cwd / "sweep.py").write_text(SCRIPT)

    def round(self, kind: str) -> Round | None:
        """Kill something of this kind in a sweep; None if there was none of it."""
        self._restore()
        self._number += 1
        marks = self._cluster.line.cwd / f"marks-{self._number}"
        marks.mkdir()
        begun = self._chance.randint(1, POINTS - 4)
        run = self._cluster.start("run", "sweep.py", str(marks))
        wait_for(lambda: len(_executions(marks)) >= begun, describe=lambda: f"{run.stdout} {run.stderr}")
        time.sleep(self._chance.uniform(0, 0.4))
        pids = self._victims(kind)
        directory = max((self._cluster.directory / "runs").iterdir())  # their names sort by age
        shown = _finished(directory)
        before = _executions(marks)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):  # it has ended by itself, or with the one before
                os.kill(pid, signal.SIGKILL)
        killed_s = time.time()
        found = self._end(kind, run, directory, marks, shown=shown, before=before, killed_s=killed_s)
        return found if pids else None

    def _end(
        self,
        kind: str,
        run: Running,
        directory: Path,
        marks: Path,
        *,
        shown: set[int],
        before: dict[tuple[int, int], float],
        killed_s: float,
    ) -> Round:
        told = run.ended(RUN_DEADLINE_S)
        state = json.loads((directory / "state.json").read_text())
        after = _executions(marks)
        wrong = []
        if told.exit_code != 0 or ARRAY not in told.stdout:
            wrong.append(f"{told} {state}")
        again = sorted(x for x in shown if (x, 1) in after)
        if again:
            wrong.append(f"points {again} had been shown as finished, and were executed again")
        if (kept := _table(self._cluster.line.cwd / "results" / directory.name)) != set(range(POINTS)):
            wrong.append(f"the table has {sorted(kept)}")
        flying = {x for x, _ in before} - shown
        next_s = [at_s - killed_s for (_, number), at_s in after.items() if number and at_s > killed_s]
        return Round(
            kind=kind,
            attempts=state["attempt"],
            executed=len(after),
            again=len(again),
            in_flight=len(flying),
            resumed_s=min(next_s, default=None) if state["attempt"] > 1 else None,
            wrong=wrong,
        )

    def _restore(self) -> None:
        up = self._cluster("up", "--provider", "local", "--nodes", str(NODES))
        assert up.exit_code == 0, str(up)
        self._cluster.await_governors(NODES)

    def _victims(self, kind: str) -> list[int]:
        """Pids of one thing of this kind; all processes of a node, its SSH server first."""
        node = self._chance.randint(1, NODES)
        if kind == "node":
            ssh = self._cluster.processes(NODES, "ssh")
            return [*ssh, *(pid for pid in self._cluster.processes(NODES) if pid not in ssh)]
        role, words = _PROCESSES.get(kind, (kind, ""))
        found = self._of(role, node if role in {"governor", "keeper"} else 1, words)
        return found[:1] if role == "governor" else found

    def _of(self, role: str, node: int, words: str = "") -> list[int]:
        return [pid for pid in self._cluster.processes(node, role) if words in command(pid)]


def play(place: Path, chance: random.Random, rounds: int) -> Totals:
    """Kill something ``rounds`` times, each kind as often as the others."""
    line = cached_home(place)
    cluster = LocalCluster(line, "kills")
    cluster.well("up", "--provider", "local", "--nodes", str(NODES), timeout_s=FIRST_UP_S)
    totals = Totals()
    try:
        kills = Kills(cluster, chance)
        for number in range(rounds):
            found = kills.round(KINDS[number % len(KINDS)])
            if found is None:
                totals.add(KINDS[number % len(KINDS)], None)
            else:
                totals.take(found)
                print(found, *found.wrong, sep="\n  ", flush=True)
    finally:
        cluster("down", "--yes", "--discard-results")
    return totals


def _executions(marks: Path) -> dict[tuple[int, int], float]:
    """When each point was executed, by point and number of the execution."""
    return {
        (int(path.name), number): float(at_s)
        for path in marks.iterdir()
        for number, at_s in enumerate(path.read_text().split())
    }


def _finished(directory: Path) -> set[int]:
    """Points that whoever follows the run has seen as finished."""
    last = {}
    *lines, _ = (directory / "points.jsonl").read_text().split("\n")  # the last one may be half written
    for line in lines:
        row = json.loads(line)
        if row["point"]:
            last[row["parameters"]["x"]] = row["state"]
    return {x for x, state in last.items() if state == "finished"}


def _table(results: Path) -> set[int]:
    """Points that are finished in the table, with the right value."""
    with (results / "points.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    right = (row for row in rows if row["state"] == "finished" and float(row["value"]) == int(row["x"]) ** 2)
    return {int(row["x"]) for row in right}
