"""A local node's directory and its SSH server process."""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import random
import shutil
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from rain_deploy.errors import StateError
from rain_deploy.providers.keys import public_key, write_once
from rain_deploy.providers.local.processes import VARIABLE

PORT = 7022
"""The port of every node's SSH server; above 1024, so that it needs no root."""
DYING_S = 2.0
POLL_S = 0.01
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
        """The value of RAIN_DEPLOY_LOCAL_NODE in all its processes."""
        return f"{self.cluster_id}/{self.index}"

    @property
    def directory(self) -> Path:
        return self.root / self.cluster_id / str(self.index)

    @property
    def address(self) -> str:
        """127.x.y.z: x and y are the cluster's, z counts the nodes (and then y does too)."""
        second, third = _prefix(self.root / self.cluster_id / "prefix")
        octet, last = divmod(self.index - 1, _NODES_PER_OCTET)
        return f"127.{second}.{third + octet}.{last + 1}"

    @property
    def host_key(self) -> str:
        """``ssh-ed25519 base64``."""
        return public_key(self.directory / "host_key")

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
        lock = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        else:
            self._spawn(lock)
            return True
        finally:
            os.close(lock)

    def alive(self) -> bool:
        """Return whether a server process holds the lock."""
        try:
            lock = os.open(self.directory / "lock", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        else:
            return False
        finally:
            os.close(lock)

    def answers(self) -> bool:
        """Return whether its port speaks SSH."""
        try:
            with socket.create_connection((self.address, PORT), timeout=1.0) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False

    def log_end(self) -> str:
        """Return the end of the server's log."""
        try:
            return (self.directory / "server.log").read_text(encoding="utf-8", errors="replace")[-2000:]
        except FileNotFoundError:
            return ""

    def remove(self) -> None:
        """Remove the directory; a missing one is success."""
        shutil.rmtree(self.directory, ignore_errors=True)
        if self.directory.exists():
            raise StateError(f"{self.directory} cannot be removed")

    def _spawn(self, lock: int) -> None:
        """Start the server; of the caller's environment its processes get only PATH and LANG."""
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
        os.posix_spawn(
            sys.executable,
            [sys.executable, "-P", str(_PROGRAM), str(self.directory / "config.json")],
            environment,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, lock, 3),
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, log, append, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
        )


def user_name() -> str:
    """Return the name of the current user, or its number if it has no name."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _prefix(path: Path) -> tuple[int, int]:
    """Return the second and third octet of the cluster's addresses, chosen at random at first."""
    if not path.exists():
        write_once(path, _free_prefix().encode(), 0o600)
    second, _, third = path.read_text(encoding="utf-8").partition(".")
    return int(second), int(third)


def _free_prefix() -> str:
    chosen = random.SystemRandom()
    for _ in range(100):
        second, third = chosen.randrange(1, 255), chosen.randrange(0, 252, 4)
        with socket.socket() as probe:
            try:
                probe.bind((f"127.{second}.{third}.1", PORT))
            except OSError:
                continue
        return f"{second}.{third}"
    raise StateError(f"no address in 127.0.0.0/8 is free for port {PORT}")
