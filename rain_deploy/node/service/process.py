"""Processes and services of a node: started once, found again by their environment, ended to the last one."""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from ..files import load, node_config, open_log, write_json
from ..wire import NodeConfig

SERVICE = "RAIN_DEPLOY_SERVICE"  # ``<cluster id>/<node>`` in every process of ours and in all that it starts
ROLE = "RAIN_DEPLOY_ROLE"  # ``keeper``, ``supervisor``, ``governor``, ``server`` or ``job``; inherited too
PLACE = "RAIN_DEPLOY_PLACE"  # the directory that tells one life of a role from another: an epoch's or a run's

SHOWN = {"keeper": "governor", "supervisor": "runner"}  # what users know these services as
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_START_DEADLINE_S = 10.0
_SHOWN_DEADLINE_S = 2.0
_BECOMES_S = 0.1
_RECORD_DEADLINE_S = 2.0
"""Deadline of a service from its lock to its recorded identity: the disk may be busy."""
_LOOK_EVERY_S = 1.0
_FAULT_PAUSE_S = 1.0


@dataclass(frozen=True, slots=True)
class Process:
    """A process; a later one with the same pid has another start time."""

    pid: int
    start_ticks: int  # clock ticks since boot
    group: int = field(default=0, compare=False)
    """The process that leads its process group; it itself if we started it."""
    place: str = field(default="", compare=False)  # its RAIN_DEPLOY_PLACE, if it was found by its marks

    def alive(self) -> bool:
        """Return False also for a zombie."""
        return identify(self.pid) == self

    def age_s(self) -> float:
        """Return the seconds since it started, by a clock that nobody sets."""
        return time.clock_gettime(time.CLOCK_BOOTTIME) - self.start_ticks / _TICKS_PER_S


def node_argv(config: NodeConfig, verb: str, *arguments: str | Path) -> list[str]:
    """Return the argument vector of a verb of this node code, out of reach of a user's variables and .pth."""
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


def reap() -> None:
    """Collect the children that have ended, and those that these left to us: none stays as a zombie.

    Not by ignoring SIGCHLD, which every program that we start would inherit.
    """
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def spawn(argv: Sequence[str], *, env: dict[str, str], log: Path, errors: Path | None = None) -> Process:
    """Start a program in a session of its own; its stderr goes to ``errors`` if given.  Raises OSError.

    From then on ``scan`` finds it: the kernel shows no environment of it for some milliseconds.
    """
    out, err = open_log(log), open_log(errors or log)
    try:
        child = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=env, start_new_session=True
        )
    finally:
        os.close(out)
        os.close(err)
    child.returncode = 0  # not Popen's to wait for: ``reap`` does, or another parent
    process = identify(child.pid) or Process(child.pid, 0)
    wait_until(lambda: bool(variables(process.pid)) or not process.alive(), _SHOWN_DEADLINE_S)
    return process


def scan(service: str, role: str | None = None, place: Path | None = None) -> list[Process]:
    """Return every process with exactly this service (and role, and place), except the caller."""
    marks = {SERVICE: service, ROLE: role, PLACE: place}
    wanted = {os.fsencode(f"{name}={value}") for name, value in marks.items() if value is not None}
    start = f"{PLACE}=".encode()
    found = []
    for pid in _pids():
        shown = variables(pid).split(b"\0")
        if pid != os.getpid() and wanted.issubset(shown) and (process := identify(pid)):
            places = [os.fsdecode(one.removeprefix(start)) for one in shown if one.startswith(start)]
            found.append(replace(process, place="".join(places[:1])))
    return found


def variables(pid: int) -> bytes:
    """Return the environment of a process; nothing if it has ended or belongs to another user.

    The kernel shows none for some milliseconds while a young process becomes its program.
    """
    deadline = time.monotonic() + _BECOMES_S
    try:
        while not (found := Path(f"/proc/{pid}/environ").read_bytes()):
            process = identify(pid)
            # Processes of the kernel have no environment, and no group.
            if not process or not process.group or process.age_s() > 1 or time.monotonic() > deadline:
                break
            time.sleep(0.001)
    except OSError:
        return b""
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


class Service:
    """The keeper or the supervisor of a node: the one process that holds its lock."""

    def __init__(self, config: NodeConfig, role: str) -> None:
        self.config, self.role = config, role
        directory, places = config.governor_dir, [config.node_dir]
        if role == "supervisor":
            directory, places = config.server_dir, [config.cluster_dir, config.node_dir]
        self.argv = node_argv(config, role, *places)
        self.env = environment(config, role, directory)
        self.log = directory / f"{role}.log"
        self._lock, self._identity = directory / f"{role}.lock", directory / f"{role}.pid"
        self._looked_s = 0.0

    def process(self) -> Process | None:
        """Return the living process that holds the lock, if there is one."""
        process = load(self._identity, Process)
        return process if process and process.alive() else None

    def start(self) -> None:
        """Start the service and wait until it holds the lock.  Raises OSError, TimeoutError."""
        process = spawn(self.argv, log=self.log, env=self.env)
        wait_until(lambda: bool(self.process()) or not process.alive(), _START_DEADLINE_S)
        # If it has ended, another one may have the lock, and write its identity now.
        if not wait_until(lambda: bool(self.process()), _RECORD_DEADLINE_S):
            raise TimeoutError(f"the {self.role} of {self.config.name} does not start; see {self.log}")

    def hold(self) -> bool:
        """Lock the service for the life of this process; return False if another process holds it."""
        self._lock.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return False
        write_json(self._identity, identify(os.getpid()))
        return True

    def repeat(self, step: Callable[[], float], there: Path) -> None:
        """Call ``step`` until a path is deleted, and each time pause as long as it says."""
        works: tuple[Callable[[], float | None], ...] = (self.look_after, step)
        pause_s: float | None = None
        while there.exists():
            for work in works:  # a fault of one does not keep the other from its work
                try:
                    pause_s = work()
                except OSError:  # such as a full disk: nobody else does the work of this service
                    traceback.print_exc(file=sys.stderr)
                    pause_s = _FAULT_PAUSE_S
            time.sleep(pause_s or 0)

    def look_after(self) -> None:
        """Once a second, reap children, follow node.json, and start the other service of a server node.

        If node.json names other node code, this process becomes that code.  It keeps its pid, so it stays
        the parent of what it started, and adopts it as after a kill.
        """
        if time.monotonic() - self._looked_s < _LOOK_EVERY_S:
            return
        self._looked_s = time.monotonic()
        reap()
        config = node_config(self.config.node_dir)
        new = Service(config, self.role)
        if sys.orig_argv != new.argv and (config.code / "__main__.py").exists():
            print(f"going on as {' '.join(new.argv)}", file=sys.stderr, flush=True)
            os.execve(new.argv[0], new.argv, new.env)  # noqa: S606 - no shell is wanted
        other = Service(config, "keeper" if self.role == "supervisor" else "supervisor")
        if config.server and not other.process():
            # In its own process, so that the service is not a child of this one.
            argv = node_argv(config, "ensure", config.node_dir, "--supervisor", config.cluster_dir)
            helper = spawn(argv, log=other.log, env=environment(config, "ensure", config.node_dir))
            wait_until(lambda: not helper.alive(), _START_DEADLINE_S)


def ensure(node_dir: Path, *, supervisor: Path | None) -> int:
    """Start the services that do not run, or that run other node code; print their names.

    A service may be replaced at any time, even during a run: the next one adopts what it finds.  Raises
    NotInstalled, OSError, TimeoutError.
    """
    config = node_config(node_dir)
    for role in ("keeper", "supervisor") if supervisor else ("keeper",):
        service, running = Service(config, role), partial(scan, config.service, role)
        if runs_alone(running, service.argv):
            continue
        end(running, grace_s=5, deadline_s=10)
        service.start()
        print(SHOWN[role])
    return 0


def runs_alone(find: Callable[[], Iterable[Process]], argv: list[str]) -> bool:
    """Return True if ``find`` finds a process with this argument vector, and none that keeps another.

    It looks again at the others: a child looks like its parent until it has become another program.
    """
    found = tuple(find())
    others = {process for process in found if _argv(process) != argv}
    return len(others) < len(found) and (not others or others.isdisjoint(find()))


def _argv(process: Process) -> list[str]:
    try:
        words = Path(f"/proc/{process.pid}/cmdline").read_bytes()
    except OSError:
        return []
    return [os.fsdecode(word) for word in words.split(b"\0")[:-1]]
