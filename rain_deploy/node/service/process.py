"""Processes: identified by pid and start time, started detached, found again by their environment."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..files import open_log
from ..wire import NodeConfig

SERVICE = "RAIN_DEPLOY_SERVICE"
"""``<cluster id>/<node>`` in every process of ours and in all that it starts."""
ROLE = "RAIN_DEPLOY_ROLE"
"""``keeper``, ``supervisor``, ``governor``, ``server`` or ``job``, inherited likewise."""
PLACE = "RAIN_DEPLOY_PLACE"
"""The directory that tells one life of a role from another: an epoch's or a run's."""

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Process:
    """A process; a later one with the same pid has another start time."""

    pid: int
    start_ticks: int
    """Clock ticks since boot."""
    group: int = field(default=0, compare=False)
    """The process that leads its process group; it itself if we started it."""
    place: str = field(default="", compare=False)
    """Its RAIN_DEPLOY_PLACE, if it was found by its marks."""

    def alive(self) -> bool:
        """Return False also for a zombie; one that is our child is reaped."""
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)
        return identify(self.pid) == self

    def age_s(self) -> float:
        """Return the seconds since it started, by a clock that nobody sets."""
        return time.clock_gettime(time.CLOCK_BOOTTIME) - self.start_ticks / _TICKS_PER_S


def node_argv(config: NodeConfig, verb: str, *arguments: str | Path) -> list[str]:
    """Return the argument vector of a verb of this node code.

    Isolated and without site-packages: a user's variables and ``.pth`` files do not reach a service.
    """
    return [config.python, "-I", "-S", str(config.code), verb, *map(str, arguments)]


def environment(config: NodeConfig, role: str, place: Path) -> dict[str, str]:
    """Return the environment of a service: the caller's, our marks, the node environment first on PATH."""
    path = f"{config.env / 'bin'}:{os.environ.get('PATH', os.defpath)}"
    marks = {SERVICE: config.service, ROLE: role, PLACE: str(place)}
    inherited = {name: value for name, value in os.environ.items() if name not in {"PWD", "OLDPWD"}}
    return {**inherited, "PATH": path, "PYTHONHASHSEED": "0", **marks}


def identify(pid: int) -> Process | None:
    """Return the identity of a living process; None when there is none or it is a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # 0 state, 2 process group, 19 start time
    return None if fields[0] in "ZX" else Process(pid, int(fields[19]), int(fields[2]))


def spawn(argv: Sequence[str], *, env: dict[str, str], log: Path, errors: Path | None = None) -> Process:
    """Start a program in a session of its own; its stderr goes to ``errors`` if given.  Raises OSError."""
    out, err = open_log(log), open_log(errors or log)
    try:
        child = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=env, start_new_session=True
        )
    finally:
        os.close(out)
        os.close(err)
    child.returncode = 0  # not Popen's to wait for: Process.alive reaps it, or another parent does
    return identify(child.pid) or Process(child.pid, 0)


def scan(service: str, role: str | None = None, place: Path | None = None) -> list[Process]:
    """Return every process with exactly this service (and role, and place), except the caller."""
    marks = {SERVICE: service, ROLE: role, PLACE: place}
    wanted = {os.fsencode(f"{name}={value}") for name, value in marks.items() if value is not None}
    start = f"{PLACE}=".encode()
    found = []
    for pid in _pids():
        try:
            variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if pid != os.getpid() and wanted.issubset(variables) and (process := identify(pid)):
            places = [os.fsdecode(one.removeprefix(start)) for one in variables if one.startswith(start)]
            found.append(replace(process, place="".join(places[:1])))
    return found


def leader(service: str, role: str, place: Path | None = None) -> Process | None:
    """Return the living process that was started for this role, if there is one."""
    return next((process for process in scan(service, role, place) if process.group == process.pid), None)


def end(find: Callable[[], Iterable[Process]], *, grace_s: float, deadline_s: float) -> tuple[Process, ...]:
    """Send SIGTERM, after ``grace_s`` SIGKILL, to what ``find`` returns until it returns nothing.

    Returns what is left at the deadline.  ``find`` is called again each time, because a process may start
    another while it is being ended.
    """
    started = time.monotonic()
    signalled: set[tuple[Process, int]] = set()
    while left := tuple(find()):
        waited_s = time.monotonic() - started
        if waited_s > deadline_s:
            return left
        number = signal.SIGTERM if waited_s < grace_s else signal.SIGKILL
        for process in left:
            if (process, number) not in signalled and identify(process.pid) == process:
                signalled.add((process, number))
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, number)
        time.sleep(0.02)
    return ()


def wait_until(done: Callable[[], bool], deadline_s: float) -> bool:
    """Return True as soon as ``done`` does; False once ``deadline_s`` seconds have passed."""
    deadline = time.monotonic() + deadline_s
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def group(pid: int) -> tuple[Process, ...]:
    """Return the living members of the process group that ``pid`` leads or led."""
    return tuple(process for process in map(identify, _pids()) if process and process.group == pid)


def _pids() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdigit())  # noqa: PTH208 - names only, and often
