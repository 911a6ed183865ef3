"""Servers that the contract tests start: a real OpenSSH server, and a relay that counts, cuts and freezes."""

from __future__ import annotations

import contextlib
import getpass
import socket
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path

from rain_deploy.core.machine import Host
from rain_deploy.providers.keys import public_key
from tests.support.network import WORKER
from tests.support.sshd import OpenSshd

ADDRESS = f"127.101.{WORKER}.1"


class Relay:
    """Leads TCP connections to ``target``, and knows how many there were and what they carried."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._listener = socket.create_server((ADDRESS, 0), backlog=64)
        self._sockets: list[socket.socket] = []
        self._flowing = threading.Event()
        self._flowing.set()
        self._threads: list[threading.Thread] = []
        self.accepted = 0
        self.carried_bytes = 0
        self._start(self._accept)

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def cut(self) -> None:
        """End every connection as a lost network would be noticed."""
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def freeze(self) -> None:
        """Pass nothing on any more, and end nothing."""
        self._flowing.clear()

    def close(self) -> None:
        self._flowing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(timeout=5)
        for each in self._sockets:
            each.close()

    def _start(self, work: object, *arguments: object) -> None:
        assert callable(work)
        self._threads.append(threading.Thread(target=work, args=arguments, daemon=True))
        self._threads[-1].start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            far = socket.create_connection(self._target)
            self._sockets += (near, far)
            self._start(self._pump, near, far)
            self._start(self._pump, far, near)

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        for each in (source, sink):
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                self._flowing.wait()
                sink.sendall(data)
                self.carried_bytes += len(data)
            sink.shutdown(socket.SHUT_WR)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An SSH server of one kind; ``host`` reaches it directly."""

    kind: str
    host: Host
    host_keys: tuple[str, ...]
    """All that the server has."""


class ThreeKeys(OpenSshd):
    """The system's own sshd with three host keys."""

    def __init__(self, directory: Path, authorized: str) -> None:
        self._directory = directory
        keys = [directory / f"host_{kind}" for kind in ("rsa", "ecdsa", "ed25519")]
        for key in keys:
            _keygen(key)
        super().__init__(
            directory, ADDRESS, authorized, keys, {"HOME": directory}, f"AllowUsers {getpass.getuser()}"
        )

    def host_keys(self, *kinds: str) -> tuple[str, ...]:
        lines = ((self._directory / f"host_{kind}.pub").read_text(encoding="utf-8") for kind in kinds)
        return tuple(" ".join(line.split()[:2]) for line in lines)


class Sshds:
    """Three real SSH servers that let in one key; made once, for keys take their time."""

    def __init__(self, directory: Path) -> None:
        self.key = directory / "id_ed25519"
        public = public_key(self.key)
        self.servers: list[ThreeKeys] = []
        for name in ("one", "two", "three"):
            (directory / name).mkdir()
            self.servers.append(ThreeKeys(directory / name, public))

    @staticmethod
    def known_line(server: ThreeKeys, *kinds: str) -> str:
        """Lines of known_hosts for keys of these kinds."""
        return "".join(f"[{ADDRESS}]:{server.port} {key}\n" for key in server.host_keys(*kinds))

    def close(self) -> None:
        for server in self.servers:
            server.close()


def _keygen(path: Path) -> None:
    command = ["ssh-keygen", "-q", "-t", path.name.removeprefix("host_"), "-N", "", "-f", str(path)]
    subprocess.run(command, check=True, timeout=120)
