"""Processes of this machine, found without any code of the product."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from tests.support.waiting import wait_for

BEFORE_IT_SLEEPS_S = 0.05


def environments() -> dict[int, str]:
    """Return the environment of every process, each variable between two NUL."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                found[int(entry.name)] = "\0" + (entry / "environ").read_bytes().decode(errors="replace")
    return found


def command(pid: int) -> str:
    """Return its command line with spaces between the words; empty when it has ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


def start_time(pid: int) -> str:
    """Return when it was started, in ticks since boot; empty when it has ended."""
    state, *fields = _stat(f"{pid}") or ["Z"]
    return "" if state in "ZX" else fields[18]


def parent(pid: int) -> int:
    """Return the pid of its parent; 0 when it has ended."""
    _, *fields = _stat(f"{pid}") or ["Z", "0"]
    return int(fields[0])


def without_forks(pids: Collection[int]) -> list[int]:
    """Leave out each child that has not become its program yet: until then it looks like its parent."""
    return [pid for pid in pids if (its := parent(pid)) not in pids or command(pid) != command(its)]


def kill(*pids: int) -> None:
    """Kill them and wait for their ends: on a busy machine they live a moment longer."""
    started = {pid: start_time(pid) for pid in pids}
    _signal(pids, signal.SIGKILL)
    wait_for(lambda: not any(start and start_time(pid) == start for pid, start in started.items()))


def cut_power(find: Callable[[], Iterable[int]]) -> None:
    """Hold all processes that are found and then kill all: services start each other while one runs."""
    held: set[int] = set()
    while fresh := set(find()) - held:
        _signal(fresh, signal.SIGSTOP)
        held |= fresh

    def gone() -> bool:  # one that was just becoming another program could not be found before
        _signal(left := set(find()), signal.SIGKILL)
        return not left

    wait_for(gone, describe=lambda: f"{sorted(find())} are gone")


def wait_until_asleep(pid: int) -> None:
    """Wait until it has done all that the signals make it do that were sent to it, or has ended.

    It has if no signal is pending and all of its threads sleep, in two looks.
    """

    def asleep() -> bool:
        if not _sleeps(pid):
            return False
        time.sleep(BEFORE_IT_SLEEPS_S)
        return _sleeps(pid)

    wait_for(asleep, describe=lambda: f"process {pid} sleeps")


def _sleeps(pid: int) -> bool:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        threads = [f"{pid}/task/{thread}" for thread in os.listdir(f"/proc/{pid}/task")]  # noqa: PTH208
    except OSError:
        return True
    pending = [line.split()[1] for line in lines if line.startswith(("SigPnd:", "ShdPnd:"))]
    states = {(_stat(one) or "Z")[0] for one in threads}
    return not any(int(mask, 16) for mask in pending) and states <= {*"STZX"}


def _stat(name: str) -> list[str]:
    """Return the fields after the name: state, parent and so on; none when it has ended."""
    try:
        return Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _signal(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
