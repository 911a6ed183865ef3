"""A local node's directory, its SSH server and its processes: those with its name in their environment."""

import contextlib
import fcntl
import json
import os
import pwd
import random
import shutil
import signal
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rain_deploy.errors import DownIncomplete, StateError
from rain_deploy.providers.keys import public_key, write_once

PORT = 7022  # the port of every node's SSH server; above 1024, so that it needs no root
VARIABLE = "RAIN_DEPLOY_LOCAL_NODE"
"""``<cluster id>/<N>``; every process of a node inherits it from the node's SSH server."""
DYING_S = 2.0
TERM_S = 3.0
DEADLINE_S = 20.0
POLL_S = 0.01
_BECOMES_S = 0.1
_NODES_PER_OCTET = 250
_PROGRAM = Path(__file__).with_name("node.py")


@dataclass(frozen=True, slots=True)
class LocalServer:
    """Node ``index`` of a cluster; ``root`` holds all local nodes of this home."""

    root: Path
    cluster_id: str
    index: int

    @property
    def node(self) -> str:
        """Return the value of RAIN_DEPLOY_LOCAL_NODE in all its processes."""
        return f"{self.cluster_id}/{self.index}"

    @property
    def directory(self) -> Path:
        return self.root / self.cluster_id / str(self.index)

    @property
    def address(self) -> str:
        """Return 127.x.y.z: x and y are chosen once for the cluster; z, and then y too, counts the nodes."""
        prefix = self.root / self.cluster_id / "prefix"
        if not prefix.exists():
            write_once(prefix, _free_prefix().encode(), 0o600)
        second, _, third = prefix.read_text(encoding="utf-8").partition(".")
        octet, last = divmod(self.index - 1, _NODES_PER_OCTET)
        return f"127.{second}.{int(third) + octet}.{last + 1}"

    def prepare(self, authorized_key: str) -> None:
        """Create what is missing of its directory.  .bashrc is empty: shells read it before every command."""
        home = self.directory / "home"
        self.root.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        for directory in (self.root, self.directory.parent, self.directory, home):
            directory.mkdir(exist_ok=True, mode=0o700)  # parents=True would give parents the caller's umask
        (home / ".bashrc").touch(mode=0o600)
        public_key(self.directory / "host_key")
        write_once(self.directory / "authorized_keys", f"{authorized_key}\n".encode(), 0o600)
        config = {"address": self.address, "port": PORT, "directory": str(self.directory)}
        write_once(self.directory / "config.json", json.dumps(config).encode(), 0o600)

    def ensure(self) -> None:
        """Start the server unless it runs; return once it runs, perhaps before it answers."""
        deadline = time.monotonic() + DYING_S
        # One killed a moment ago still holds its lock, and one that has just started does not answer yet.
        while not (self._start() or self.answers()) and time.monotonic() < deadline:
            time.sleep(POLL_S)

    def _start(self) -> bool:
        """Take the lock and pass it to a new server, which holds it for life: one of two starters wins."""
        # Of the caller's environment its processes get only PATH and LANG.
        log, append = str(self.directory / "server.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": os.environ.get("LANG", "C.UTF-8"),
            "HOME": str(self.directory / "home"),
            "USER": user_name(),
            "LOGNAME": user_name(),
            "SHELL": "/bin/sh",
            VARIABLE: self.node,
        }
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        with os.fdopen(os.open(self.directory / "lock", flags, 0o600), "wb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            os.posix_spawn(
                sys.executable,
                [sys.executable, "-P", str(_PROGRAM), str(self.directory / "config.json")],
                environment,
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, lock.fileno(), 3),
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 1, log, append, 0o600),
                    (os.POSIX_SPAWN_DUP2, 1, 2),
                ],
                setsid=True,
            )
        return True

    def alive(self) -> bool:
        """Return whether a server process holds the lock."""
        with contextlib.suppress(FileNotFoundError), (self.directory / "lock").open("rb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def answers(self) -> bool:
        """Return whether its port speaks SSH."""
        try:
            with socket.create_connection((self.address, PORT), timeout=1.0) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False


def user_name() -> str:
    """Return the name of the current user, or its number if it has no name."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _free_prefix() -> str:
    chosen = random.SystemRandom()
    for _ in range(100):
        second, third = (
            chosen.randrange(1, 100),
            chosen.randrange(0, 252, 4),
        )  # the others are free for others
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((f"127.{second}.{third}.1", PORT))
            return f"{second}.{third}"
    raise StateError(f"no address in 127.0.0.0/8 is free for port {PORT}")


def environments() -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (pid, environment at its start) of every readable process except this one."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):  # it has ended, or belongs to another user
                text = environment_of(int(entry.name)).decode("utf-8", "surrogateescape")
                pairs = (item.partition("=") for item in text.split("\0"))
                yield int(entry.name), {name: value for name, _, value in pairs}


def environment_of(pid: int) -> bytes:
    """Return the environment of a process.  Raises OSError.

    The kernel shows none for some milliseconds while a young process becomes its program.
    """
    deadline = time.monotonic() + _BECOMES_S
    while not (found := Path(f"/proc/{pid}/environ").read_bytes()):
        birth_s = int(_birth(pid) or 0) / os.sysconf("SC_CLK_TCK")
        if time.clock_gettime(time.CLOCK_BOOTTIME) - birth_s > 1 or time.monotonic() > deadline:
            break
        time.sleep(0.001)
    return found


def existing(root: Path) -> list[tuple[str, int]]:
    """Return cluster id and index of the nodes below ``root`` that have a directory or a living process."""
    found = {(each.parent.name, int(each.name)) for each in root.glob("*/*/") if each.name.isdigit()}
    for _, environment in environments():
        cluster_id, _, index = environment.get(VARIABLE, "").rpartition("/")
        # Processes of other homes have the variable too, and another HOME.
        if environment.get("HOME", "").startswith(f"{root}/{cluster_id}/") and cluster_id and index.isdigit():
            found.add((cluster_id, int(index)))
    return sorted(found)


def pids_of(node: str) -> tuple[int, ...]:
    """Return the living processes of ``node`` (``<cluster id>/<N>``)."""
    return tuple(pid for pid, environment in environments() if environment.get(VARIABLE) == node)


def remove_tree(path: Path) -> None:
    """Delete a directory, also one with directories inside that refuse even their owner; best effort."""
    shutil.rmtree(path, ignore_errors=True)
    if not path.exists():
        return
    with contextlib.suppress(OSError):
        path.chmod(0o700)
    for folder, names, _ in os.walk(path):  # from the top: a directory is opened once it may be
        for inner in (Path(folder, name) for name in names):
            if not inner.is_symlink():
                with contextlib.suppress(OSError):
                    inner.chmod(0o700)
    shutil.rmtree(path, ignore_errors=True)


def end_processes(node: str) -> None:
    """End all processes of ``node``: SIGTERM, and SIGKILL after 3 s.  Raises DownIncomplete after 20 s."""
    started = time.monotonic()
    found: dict[int, str] = {}
    while True:
        fresh = {pid: birth for pid in pids_of(node) if (birth := _birth(pid))}
        # A dying process loses its environment before it closes its files and ports.
        dying = {pid for pid, birth in found.items() if _birth(pid) == birth}
        pids = sorted(dying.union(fresh))
        if not pids:
            return
        waited = time.monotonic() - started
        if waited > DEADLINE_S:
            message = f"these processes of local node {node} do not end: {', '.join(map(str, pids))}"
            raise DownIncomplete(message, next_step=f"kill -9 {' '.join(map(str, pids))}")
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                if waited > TERM_S:
                    os.kill(pid, signal.SIGKILL)
                elif pid not in found:
                    os.kill(pid, signal.SIGTERM)
        found.update(fresh)
        time.sleep(2 * POLL_S)


def _birth(pid: int) -> str:
    """Return the start time of process ``pid``, in ticks since boot; empty once it has ended."""
    try:
        status = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return ""
    state, *fields = status.rpartition(b")")[2].split()
    return "" if state in {b"Z", b"X"} else fields[18].decode()
