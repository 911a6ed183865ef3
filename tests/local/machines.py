"""Machines within this one: an SSH server with mounts, processes and a host name of its own.

What is made in a machine's /var/lib/rain-deploy lies in a directory of the test, and all that runs in it ends
with it.  Needs root.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from rain_deploy.core.layout import ROOT_BASE, user_base
from rain_deploy.core.spec import ResolvedEnvironment
from rain_deploy.parts.software import environment_digest, node_lock
from rain_deploy.providers.hosts.openssh_config import SSH_PORT
from rain_deploy.providers.keys import public_key
from rain_deploy.providers.local import node as local_node
from tests.local.command_line import CommandLine
from tests.support.processes import command, without_forks
from tests.support.sshd import SSHD, sshd_command
from tests.support.waiting import LONG_S, wait_for

WORKER = 4202
"""User id."""
QUIET_LOOKS = 50
"""A second and more: an engine has noticed by then that it lost a governor."""
SHARED = ("engine", "envs", "uv")
"""What machines take from the cache of the tests; node code is each machine's own."""

needs_machines = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for machines in namespaces"),
    pytest.mark.skipif(not SSHD.exists(), reason="needs an OpenSSH server: apt-get install openssh-server"),
    pytest.mark.skipif(not all(map(shutil.which, ("unshare", "nsenter", "ip"))), reason="needs iproute2"),
]


def filled(request: pytest.FixtureRequest) -> Path:
    """The tests' cache of a machine, with engine and environment in it: the session's cluster brings them."""
    test_cache: Path = request.getfixturevalue("test_cache")
    cache = test_cache / "local/cache"
    digest = environment_digest(ResolvedEnvironment(node_lock()))
    if not (cache / "envs" / digest / ".ok").exists() or not any(cache.glob("engine/*/rain")):
        request.getfixturevalue("session_cluster")
    return cache


@dataclass
class Machine:
    """``cache``: of a machine where the engine and the environment are."""

    name: str
    directory: Path
    address: str
    port: int
    authorized: str
    """Public key of who may log in."""
    cache: Path
    prefix: tuple[str, ...] = ()
    """What starts it, in another network for one."""
    logging: bool = False
    """The server is our own one, which notes every command in commands.jsonl."""
    powerless: bool = False
    """It lets ``worker`` in, who is not root and cannot become it."""
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def base(self) -> Path:
        """What lies there at ``place``."""
        return self.directory / "base"

    @property
    def place(self) -> Path:
        """The directory of ours there."""
        return Path(user_base(WORKER) if self.powerless else ROOT_BASE)

    @property
    def entry(self) -> str:
        return f"{'worker' if self.powerless else getpass.getuser()}@{self.address}:{self.port}"

    def known_line(self, key: str = "host_key") -> str:
        name = self.address if self.port == SSH_PORT else f"[{self.address}]:{self.port}"
        return f"{name} {public_key(self.directory / key)}\n"

    def prepare(self) -> None:
        for inner in ("home", "base/cache", *(f"base/cache/{name}" for name in SHARED)):
            (self.directory / inner).mkdir(parents=True, mode=0o700)
        (self.directory / "authorized_keys").write_text(f"{self.authorized}\n")
        (self.directory / "machine-id").write_text(f"{os.urandom(16).hex()}\n")
        # bash reads it before every command that comes over SSH.
        (self.directory / "home/.bashrc").write_text(f"echo Welcome to {self.name}; printf 'no \\036' >&2\n")
        worker = f"worker:x:{WORKER}:{WORKER}::{self.directory}/home:/bin/sh\n"
        (self.directory / "passwd").write_text(Path("/etc/passwd").read_text() + worker)
        public_key(self.directory / "host_key")

    def start(self, key: str = "host_key") -> None:
        """Start it; with another ``key`` it is somebody else at the same address."""
        public_key(self.directory / key)
        where = self.directory
        # Its parent is hidden first: on this machine itself the directory is neither used nor made.
        mounts = [
            f"mount -t tmpfs -o mode=1777 tmpfs {self.place.parent}",
            f"mkdir -m 0700 {self.place}",
            f"mount --bind {where}/base {self.place}",
            f"mount --bind {where}/machine-id /etc/machine-id",
            f"mount --bind {where}/passwd /etc/passwd",
        ]
        mounts += [f"mount --bind {self.cache}/{name} {self.place}/cache/{name}" for name in SHARED]
        # The shell stays: as the first process of its machine it takes in those that lose their parents.
        script = "; ".join(["set -e", f"hostname {self.name}", *mounts, f"{self._server(key)} & wait"])
        own = ("unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc")
        with (where / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self.prefix, *own, "sh", "-c", script], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        wait_for(self._listens, describe=(where / "log").read_text)

    def stop(self) -> None:
        """End everything that runs in it; a next start finds its ports free."""
        process = self._process
        if process:
            space = self._space()
            process.kill()
            process.wait(timeout=LONG_S)
            self._process = None
            wait_for(lambda: not command_lines(space), describe=lambda: str(command_lines(space)))

    def left(self) -> list[str]:
        """Files of ours beside the cache."""
        files = (path for path in self.base.rglob("*") if path.is_file())
        return sorted(str(path) for path in files if not path.is_relative_to(self.base / "cache"))

    def processes(self) -> list[str]:
        """Command lines of what runs in it, but its SSH server, what started that, and short probes."""
        others = ("sshd", f"{self.directory}/", "probe --warm")
        lines = command_lines(self._space())
        return sorted(line for line in lines if line and not any(other in line for other in others))

    def settled(self) -> list[str]:
        """Return its processes once its server and governor stay: they end when another governor is lost."""
        seen: list[list[str]] = []

        def quiet() -> bool:
            seen.append(self.processes())
            whole = all(any(f"/rain {part} " in line for line in seen[-1]) for part in ("server", "governor"))
            return whole and len(seen) > QUIET_LOOKS and seen[-QUIET_LOOKS:] == seen[-1:] * QUIET_LOOKS

        wait_for(quiet)
        return seen[-1]

    def _space(self) -> Path:
        """Its PID namespace; what has ended is in none."""
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        return Path(f"/proc/{children[0]}/ns/pid").readlink() if children else Path("none")

    def _listens(self) -> bool:
        """Its server's own table of ports says so, whatever network it is in."""
        assert self._process is not None
        assert self._process.poll() is None, (self.directory / "log").read_text()
        rows = Path(f"/proc/{self._process.pid}/net/tcp").read_text().splitlines()
        octets = "".join(f"{int(octet):02X}" for octet in reversed(self.address.split(".")))
        return any(f" {octets}:{self.port:04X} 00000000:0000 0A " in row for row in rows)

    def _server(self, key: str) -> str:
        where = self.directory
        if self.logging:
            (where / "config.json").write_text(
                f'{{"address": "{self.address}", "port": {self.port}, "directory": "{where}"}}'
            )
            program = shlex.join((sys.executable, "-P", local_node.__file__, f"{where}/config.json"))
            return f"HOME={where}/home exec {program} 3>{where}/lock"
        command = sshd_command(where, f"{self.address}:{self.port}", (where / key,), {"HOME": where / "home"})
        # Files of root are the worker's there, and nobody is root.
        rights = f"unshare --user --map-user={WORKER} --map-group={WORKER} " if self.powerless else ""
        return rights + shlex.join(command)


def command_lines(space: Path) -> list[str]:
    """Of every process in a PID namespace."""
    pids = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and (entry / "ns/pid").readlink() == space:
                pids.append(int(entry.name))
    return [command(pid) for pid in without_forks(pids)]


@dataclass(frozen=True)
class User(CommandLine):
    """Somebody who reaches machines with a key and a known_hosts of their own."""

    @property
    def ssh(self) -> Path:
        return self.home.parent / ".ssh"

    @classmethod
    def of(cls, line: CommandLine, prefix: tuple[str, ...] = ()) -> User:
        """With the home of ``line``, and a fresh key."""
        user = cls(line.home, line.cwd, (*line.env, ("HOME", str(line.home.parent))), prefix)
        user.ssh.mkdir(mode=0o700)
        (user.ssh / "config").write_text(f"Host *\n  IdentityFile {user.ssh}/id_ed25519\n")
        public_key(user.ssh / "id_ed25519")
        return user

    def knows(self, *lines: str) -> None:
        (self.ssh / "known_hosts").write_text("".join(lines))


@contextlib.contextmanager
def started(*machines: Machine) -> Iterator[None]:
    """Machines that run; whatever happens, nothing of them is left."""
    try:
        for machine in machines:
            machine.prepare()
            machine.start()
        yield
    finally:
        for machine in machines:
            machine.stop()


@contextlib.contextmanager
def network(name: str, addresses: Mapping[str, str]) -> Iterator[dict[str, tuple[str, ...]]]:
    """Network namespaces on one bridge, each with an IPv4 address: what starts a command in each, by name."""
    made: list[str] = []

    def ip(*argv: str) -> None:
        subprocess.run(("ip", *argv), check=True, capture_output=True, timeout=30)

    def namespace(part: str) -> str:
        ip("netns", "add", f"{name}-{part}")
        made.append(f"{name}-{part}")
        return made[-1]

    try:
        # The bridge has a namespace too, so the machine that tests keeps its links and rules.
        bridge = namespace("bridge")
        ip("-n", bridge, "link", "add", "name", "br0", "type", "bridge")
        ip("-n", bridge, "link", "set", "br0", "up")
        for part, address in addresses.items():
            own = namespace(part)
            ip("-n", own, "link", "add", "eth", "type", "veth", "peer", "name", part, "netns", bridge)
            ip("-n", own, "addr", "add", f"{address}/24", "dev", "eth")
            for device in ("eth", "lo"):
                ip("-n", own, "link", "set", "dev", device, "up")
            ip("-n", bridge, "link", "set", "dev", part, "master", "br0", "up")
        yield {part: ("nsenter", f"--net=/run/netns/{name}-{part}") for part in addresses}
    finally:
        for each in reversed(made):
            subprocess.run(("ip", "netns", "del", each), check=False, timeout=30)
