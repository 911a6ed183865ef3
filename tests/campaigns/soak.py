"""Runs, one after the other, on one cluster: a service that lives for months must not grow with them.

After a warm-up nothing changes but the runs themselves: no process and no zombie more, no open file, no
memory, no space on the disks of the nodes or in the home.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

from tests.campaigns.homes import cached_home
from tests.faults.crash_points import Score
from tests.local.command_line import LocalCluster
from tests.support.processes import environments, start_time
from tests.support.waiting import wait_for

NODES = 2
WARM_UP = 10  # runs until every log and every cache has its size
LOOK_EVERY = 10
FIRST_UP_S = 900.0
SCRIPTS = {
    "good.py": (0, "session.wait_all()"),
    "raises.py": (42, "bad(9, name='bad x=9').output.keep(); session.submit(); session.wait_all()"),
    "exits.py": (41, "session.wait_all(); raise SystemExit(7)"),
    "leaves.py": (0, "import subprocess; subprocess.Popen(['sleep', '600'])"),
}
"""Exit code of ``run``, and the end of the script."""
SCRIPT = """\
from rain.client import Client, remote

@remote()
def square(ctx, x):
    return str(x * x)

@remote()
def bad(ctx, x):
    raise ValueError(x)

with Client("localhost", 7210).new_session("soak") as session:
    for x in range(4):
        square(x, name="square x=%d" % x).output.keep()
    session.submit()
    {end}
"""


@dataclass(frozen=True, slots=True)
class Size:
    """What a cluster has and takes, without its runs."""

    processes: int
    zombies: int
    open_files: int
    memory_bytes: int
    disk_bytes: int


MORE = Size(processes=0, zombies=0, open_files=4, memory_bytes=6_000_000, disk_bytes=400_000)
"""What may be more at any look: a connection just opened, slack of an allocator, logs of the last runs."""
PER_RUN = Size(processes=0, zombies=0, open_files=0, memory_bytes=2_000, disk_bytes=12_000)
"""What each run may leave: its record in the home, and lines in the logs of installations and of SSH."""


def play(place: Path, chance: random.Random, rounds: int) -> Score:
    """Type ``rounds`` runs; each look is a point."""
    line = cached_home(place)
    for name, (_, end) in SCRIPTS.items():
        (line.cwd / name).write_text(SCRIPT.replace("{end}", end))
    cluster = LocalCluster(line, "soak")
    cluster.well("up", "--provider", "local", "--nodes", str(NODES), timeout_s=FIRST_UP_S)
    score = Score()
    try:
        for number in range(WARM_UP):
            _run(cluster, [*SCRIPTS][number % len(SCRIPTS)])
        before = size(cluster)
        for number in range(1, rounds + 1):
            wrong = _run(cluster, chance.choice([*SCRIPTS]))
            if number % LOOK_EVERY == 0 or number == rounds:
                now = size(cluster)
                wrong += grown(before, now, number)
                print(f"after {number} runs: {now}", flush=True)
            score.add(f"run {number}", wrong)
    finally:
        cluster("down", "--yes", "--discard-results")
    return score


def _run(cluster: LocalCluster, name: str) -> list[str]:
    told = cluster("run", name)
    return [] if told.exit_code == SCRIPTS[name][0] else [str(told)]


def grown(before: Size, now: Size, runs: int) -> list[str]:
    """Sentences on what has grown by more than it may after so many runs."""
    found = []
    for each in fields(Size):
        was, has = getattr(before, each.name), getattr(now, each.name)
        if has > was + getattr(MORE, each.name) + runs * getattr(PER_RUN, each.name):
            found.append(f"{each.name}: {was} before, {has} after {runs} runs")
    return found


def size(cluster: LocalCluster) -> Size:
    """Measure, once the cluster is at rest."""
    cluster.await_governors(NODES)
    wait_for(lambda: not list(_zombies(cluster)), 10, lambda: str(list(_zombies(cluster))))
    pids = _pids(cluster)
    services = cluster.processes(None, "keeper", "supervisor", "ssh")
    return Size(
        processes=len(pids),
        zombies=len(list(_zombies(cluster))),
        open_files=sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in services),  # noqa: PTH208
        memory_bytes=sum(_resident_bytes(pid) for pid in services),
        disk_bytes=_disk_bytes(cluster.line.home),
    )


def _pids(cluster: LocalCluster) -> set[int]:
    mark = f"\0RAIN_DEPLOY_LOCAL_NODE={cluster.id}/"
    return {pid for pid, environment in environments().items() if mark in environment and start_time(pid)}


def _zombies(cluster: LocalCluster) -> Iterator[str]:
    """Lines of /proc of ended children that a process of the cluster has not waited for."""
    parents = _pids(cluster)
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            text = path.read_text()
            state, parent, *_ = text.rpartition(")")[2].split()
            if state == "Z" and int(parent) in parents:
                yield text


def _resident_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _disk_bytes(home: Path) -> int:
    """Blocks of all files in the home, the nodes' among them, but not of runs and not of caches (links)."""
    total = 0
    for directory, directories, files in os.walk(home):
        directories[:] = [name for name in directories if name != "runs"]
        for name in files:
            with contextlib.suppress(FileNotFoundError):
                total += (Path(directory) / name).lstat().st_size
    return total
