"""Servers that the contract tests start: a real OpenSSH server, and a relay that counts, cuts and freezes."""

from __future__ import annotations

import contextlib
import getpass
import os
import socket
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from rain_deploy.core.machine import Host
from rain_deploy.providers.keys import public_key

SSHD = Path("/usr/sbin/sshd")
ADDRESS = "127.101.0.1"


class Relay:
    """Leads TCP connections to ``target``, and knows how many there were."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._listener = socket.create_server((ADDRESS, 0), backlog=64)
        self._sockets: list[socket.socket] = []
        self._flowing = threading.Event()
        self._flowing.set()
        self._threads: list[threading.Thread] = []
        self.accepted = 0
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
            sink.shutdown(socket.SHUT_WR)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An SSH server of one kind; ``host`` reaches it directly."""

    kind: str
    host: Host
    host_keys: tuple[str, ...]
    """All that the server has."""


class OpenSshd:
    """The system's own sshd with three host keys, on an address and port of the tests."""

    def __init__(self, directory: Path, authorized: str) -> None:
        self._directory = directory
        self.port = _free_port()
        for kind in ("ed25519", "ecdsa", "rsa"):
            _keygen(directory / f"host_{kind}", kind)
        (directory / "authorized_keys").write_text(authorized + "\n", encoding="utf-8")
        (directory / "config").write_text(self._config(), encoding="utf-8")
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(
                mode=0o755, exist_ok=True
            )  # sshd insists on it, a package's boot makes it
        self._log = (directory / "log").open("wb")
        self._process = subprocess.Popen(
            [SSHD, "-D", "-e", "-f", directory / "config"], stderr=self._log, stdin=subprocess.DEVNULL
        )
        _wait_for_port(ADDRESS, self.port)

    def host_keys(self, *kinds: str) -> tuple[str, ...]:
        lines = ((self._directory / f"host_{kind}.pub").read_text(encoding="utf-8") for kind in kinds)
        return tuple(" ".join(line.split()[:2]) for line in lines)

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(timeout=10)
        self._log.close()

    def _config(self) -> str:
        keys = "\n".join(f"HostKey {self._directory}/host_{kind}" for kind in ("rsa", "ecdsa", "ed25519"))
        return f"""{keys}
ListenAddress {ADDRESS}:{self.port}
AuthorizedKeysFile {self._directory}/authorized_keys
AllowUsers {getpass.getuser()}
PidFile none
StrictModes no
UsePAM no
SetEnv HOME={self._directory}
PasswordAuthentication no
KbdInteractiveAuthentication no
MaxStartups 100
Subsystem sftp internal-sftp
"""


class Sshds:
    """Three real SSH servers that let in one key; made once, for keys take their time."""

    def __init__(self, directory: Path) -> None:
        self.key = directory / "id_ed25519"
        public = public_key(self.key)
        self.servers: list[OpenSshd] = []
        for name in ("one", "two", "three"):
            (directory / name).mkdir()
            self.servers.append(OpenSshd(directory / name, public))

    @staticmethod
    def known_line(server: OpenSshd, *kinds: str) -> str:
        """Lines of known_hosts for keys of these kinds."""
        return "".join(f"[{ADDRESS}]:{server.port} {key}\n" for key in server.host_keys(*kinds))

    def close(self) -> None:
        for server in self.servers:
            server.close()


def _keygen(path: Path, kind: str) -> None:
    command = ["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(path)]
    subprocess.run(command, check=True, timeout=30)


def _free_port() -> int:
    with socket.create_server((ADDRESS, 0)) as probe:
        return int(probe.getsockname()[1])


def _wait_for_port(address: str, port: int) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=1):
            return
        time.sleep(0.02)
    raise TimeoutError(f"{address}:{port} does not listen")
