"""What the companion and its journal cost: sweeps with and without them in turn, on two local nodes.

Nothing random is in it.  It measures a machine too: run it while nothing else is running.  The processor time
is that of all processes of the cluster, from the script's start until it has closed its session.
"""

from __future__ import annotations

import json
import random
import re
import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.campaigns.homes import cached_home
from tests.campaigns.kills import FIRST_UP_S
from tests.faults.crash_points import Score
from tests.local.command_line import LocalCluster

NODES = 2
TASKS = 1000
LARGE, LARGE_BYTES = 40, 5_000_000
UNNAMED = (10_000, 20_000, 30_000)
CLOCKS = 10
MOST_RATIO, MOST_HITS_S, MOST_LATENCY_S = 1.2, 1.0, 2.0
"""What is promised."""
MOST_GROWTH = 1.5
"""How much the ratio may grow with three times as many tasks: Rain's own time grows with their square."""
DEADLINE_S = 1200.0

SCRIPT = """\
import glob, json, os, sys, time
began = time.monotonic()
from rain.client import Client, remote

count, size, named = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "named"

def cpu_s():
    ours = ("RAIN_DEPLOY_LOCAL_NODE=" + os.environ["RAIN_DEPLOY_LOCAL_NODE"].partition("/")[0] + "/").encode()
    kinds = "journal-helper", "values.py", "rain.executor", "rain server", "rain governor", "script.py"
    found = {}
    for place in glob.glob("/proc/[0-9]*"):
        try:
            if ours not in open(place + "/environ", "rb").read():
                continue
            words = open(place + "/cmdline", "rb").read().replace(b"\\0", b" ").decode()
            fields = open(place + "/stat").read().rpartition(")")[2].split()
        except OSError:
            continue
        kind = next((kind for kind in kinds if kind in words), "others")
        found[kind] = found.get(kind, 0) + (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return found

@remote()
def one(ctx, number, size):
    return str(number).encode().ljust(size)

before = cpu_s()
submitted = time.monotonic()
with Client("localhost", 7210).new_session("cost") as session:
    tasks = [one(n, size, name=f"n={n}") if named else one(n, size) for n in range(count)]
    for task in tasks:
        task.output.keep()
    session.submit()
    session.wait_all()
    total = sum(int(task.output.fetch().get_bytes().strip()) for task in tasks)
ended = time.monotonic()
assert total == sum(range(count)), total
spent = {kind: value - before.get(kind, 0) for kind, value in cpu_s().items()}
print(json.dumps({"seconds": ended - submitted, "script_s": ended - began, "cpu": spent}))
"""
CLOCK = """\
from rain.client import Client, remote

@remote()
def clock(ctx, x):
    import time
    time.sleep(0.5)
    return f"at {time.time()}"

with Client("localhost", 7210).new_session("clock") as session:
    for x in range(int(__import__("sys").argv[1])):
        clock(x, name=f"x={x}").output.keep()
    session.submit()
    session.wait_all()
"""


@dataclass
class Costs(Score):
    """What was measured, in words; what is promised and did not hold is a failure."""

    lines: list[str] = field(default_factory=list)

    def note(self, what: str, *, held: bool = True) -> None:
        """Note and print a measurement."""
        print(what, flush=True)
        self.lines.append(what)
        self.add(what, [] if held else ["this is more than is promised"])

    def __str__(self) -> str:
        return "; ".join(self.lines)


class Measuring:
    """Runs the scripts on a cluster."""

    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster = cluster
        (cluster.line.cwd / "script.py").write_text(SCRIPT)
        (cluster.line.cwd / "clock.py").write_text(CLOCK)

    def sweep(self, count: int, *options: str, size: int = 1, named: bool = True) -> dict[str, Any]:
        """Run a sweep of so many tasks; return what its script has measured."""
        words = (str(count), str(size), "named" if named else "unnamed")
        results = self._cluster.run(*options, "script.py", *words, timeout_s=DEADLINE_S)
        found: dict[str, Any] = json.loads((results / "stdout.log").read_text())
        return found

    def latencies(self) -> list[float]:
        """Return how long after each task's end its row is there for who follows the run."""
        run = self._cluster.start("run", "--fresh", "clock.py", str(CLOCKS))
        seen: dict[str, float] = {}
        while run.process.poll() is None:
            for x in re.findall(r"^x=(\d+): ", run.stdout + run.stderr, re.MULTILINE):
                seen.setdefault(x, time.time())
            time.sleep(0.01)
        run.ended()
        directory = max((self._cluster.directory / "runs").iterdir(), key=lambda path: path.stat().st_mtime)
        ends = (
            json.loads(line) for line in (directory / "companion" / "ends.jsonl").read_text().splitlines()
        )
        told = {str(end["task"]): float(end["value"].split()[1]) for end in ends}
        in_order = sorted(told, key=int)  # ids of tasks are in the order of x
        return [seen[str(x)] - told[task] for x, task in enumerate(in_order)]


def ratios(measuring: Measuring, costs: Costs, what: str, count: int, rounds: int, **how: Any) -> None:
    """Compare sweeps with and without the companion, in turn."""
    pairs = [
        (measuring.sweep(count, "--no-companion", **how), measuring.sweep(count, "--fresh", **how))
        for _ in range(rounds)
    ]
    wall = [with_["seconds"] / without["seconds"] for without, with_ in pairs]
    cpu = [sum(with_["cpu"].values()) / sum(without["cpu"].values()) for without, with_ in pairs]
    without, with_ = (_medians(one[side]["cpu"] for one in pairs) for side in (0, 1))
    seconds = [_spread(one[side]["seconds"] for one in pairs) for side in (0, 1)]
    print(f"  processor seconds without: {_parts(without)}\n  with: {_parts(with_)}")
    times = f"{_spread(wall)} times the time ({seconds[1]} s, {seconds[0]} s without)"
    held = statistics.median(wall) <= MOST_RATIO
    costs.note(f"{what}: {times}, {_spread(cpu)} times the processor time", held=held)


def play(place: Path, chance: random.Random, rounds: int) -> Costs:
    """Measure, with ``rounds`` pairs of sweeps."""
    del chance
    cluster, costs = LocalCluster(cached_home(place), "cost"), Costs()
    cluster.well("up", "--provider", "local", "--nodes", str(NODES), timeout_s=FIRST_UP_S)
    try:
        measuring = Measuring(cluster)
        ratios(measuring, costs, f"{TASKS} trivial tasks", TASKS, rounds)
        measuring.sweep(TASKS)
        hits = [measuring.sweep(TASKS)["seconds"] for _ in range(rounds)]
        held = statistics.median(hits) < MOST_HITS_S
        costs.note(f"a rerun of {TASKS} hits: {_spread(hits)} s of the script", held=held)
        latencies = [one for _ in range(rounds) for one in measuring.latencies()]
        costs.note(
            f"from the end of a task to its row: {_spread(latencies)} s",
            held=max(latencies) <= MOST_LATENCY_S,
        )
        _unnamed(measuring, costs)
        ratios(measuring, costs, f"{LARGE} results of 5 MB", LARGE, (rounds + 1) // 2, size=LARGE_BYTES)
    finally:
        cluster("down", "--yes", "--discard-results")
    return costs


def _unnamed(measuring: Measuring, costs: Costs) -> None:
    """Measure sweeps of many tasks without names."""
    each = []
    for count in UNNAMED:
        seconds = measuring.sweep(count, "--fresh", named=False)["seconds"]
        without = measuring.sweep(count, "--no-companion", named=False)["seconds"]
        each.append(seconds / without)
        costs.note(f"{count} unnamed tasks: {seconds:.1f} s, {without:.1f} s without")
    growth = each[-1] / each[0]
    costs.note(f"that is {growth:.2f} times the ratio of {UNNAMED[0]}", held=growth <= MOST_GROWTH)


def _spread(values: Iterable[float]) -> str:
    values = sorted(values)
    return f"{statistics.median(values):.2f} ({values[0]:.2f} to {values[-1]:.2f})"


def _medians(spent: Iterable[dict[str, float]]) -> dict[str, float]:
    all_of_it = list(spent)
    kinds = dict.fromkeys(kind for one in all_of_it for kind in one)
    return {kind: statistics.median(one.get(kind, 0.0) for one in all_of_it) for kind in kinds}


def _parts(spent: dict[str, float]) -> str:
    return ", ".join(f"{kind} {value:.2f}" for kind, value in sorted(spent.items()))
