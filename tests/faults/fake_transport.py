"""SSH as it looks from the operator's side, over machines that are files: questions are answered, not run.

Machines live in a directory, one file each, so that the processes of several commands meet the same ones.
Who connects must name the right host key and hold the machine's own login key, as with a real server.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_private_key

from rain_deploy.core.machine import Host
from rain_deploy.core.step import Command, CommandResult
from rain_deploy.errors import HostKeyError, Unreachable
from rain_deploy.transport.base import Chunk, Forward
from tests.lab.machines import Instance, NoMachines
from tests.support.fake_executor import FakeExecutor
from tests.support.fake_executor import Machine as Remembers


@dataclass
class Machine(Remembers):
    """A machine of the lab: who may reach it, beside what stages have left on it."""

    id: str = ""
    host_key: str = ""
    logins: tuple[str, ...] = ()
    """Public keys of those who may log in, each ``keytype base64``."""
    running: bool = True


def load(directory: Path, address: str) -> Machine | None:
    """The machine at an address."""
    try:
        told = json.loads((directory / address).read_text())
    except FileNotFoundError:
        return None
    return Machine(**{**told, "logins": tuple(told["logins"])})


def save(directory: Path, address: str, machine: Machine) -> None:
    """By rename: a command may be killed at any moment."""
    draft = directory / f".{address}"
    draft.write_text(json.dumps(dataclasses.asdict(machine)))
    draft.replace(directory / address)


class FakeMachines(NoMachines):
    """The lab's machines, as files.  The lowest free address is given, so addresses come back.

    ``installed``: paths that each has from the start, as from a template of somebody's.
    """

    def __init__(self, directory: Path, network: str, installed: Iterable[str] = ()) -> None:
        super().__init__(network=network, size=40)
        self.directory = directory
        self.installed = tuple(installed)
        self.at: dict[str, str] = {}

    def create(self, instance: Instance) -> str:
        address = super().create(instance)
        keys = _user_data(instance.user_data).get("ssh_keys", {})
        host_key = _bare(keys.get("ed25519_public", "none none"))
        logins = tuple(map(_bare, instance.public_keys))
        files = dict.fromkeys(self.installed, "")
        machine = Machine(files, id=instance.id, host_key=host_key, logins=logins)
        save(self.directory, address, machine)
        self.at[instance.id] = address
        return address

    def start(self, instance_id: str) -> None:
        super().start(instance_id)
        self._power(instance_id, on=True)

    def stop(self, instance_id: str) -> None:
        super().stop(instance_id)
        self._power(instance_id, on=False)

    def delete(self, instance_id: str) -> None:
        if address := self.at.pop(instance_id, None):
            (self.directory / address).unlink()
        super().delete(instance_id)

    def kept(self) -> Callable[[], None]:
        """Return what brings back all machines as they are now."""
        at, addresses, running = dict(self.at), dict(self._addresses), set(self._running)
        files = {path: path.read_bytes() for path in self.directory.iterdir()}

        def bring_back() -> None:
            self.at, self._addresses, self._running = dict(at), dict(addresses), set(running)
            for path in self.directory.iterdir():
                path.unlink()
            for path, content in files.items():
                path.write_bytes(content)

        return bring_back

    def _power(self, instance_id: str, *, on: bool) -> None:
        machine = load(self.directory, self.at[instance_id])
        assert machine
        save(self.directory, self.at[instance_id], dataclasses.replace(machine, running=on))


def _user_data(text: bytes) -> Mapping[str, Mapping[str, str]]:
    """Cloud-config of ours is JSON below its first line."""
    found: Mapping[str, Mapping[str, str]] = json.loads(text.partition(b"\n")[2] or b"{}")
    return found


def _bare(key: str) -> str:
    return " ".join(key.split()[:2])


class FakeTransport:
    """Implements the transport for machines of ``FakeMachines``; stages go through ``executor``."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.executor = FakeExecutor(self._kept)

    def connect(self, host: Host) -> None:
        """Raises Unreachable, HostKeyError as a real one."""
        self._meet(host)

    def _meet(self, host: Host) -> Machine:
        machine = load(self._directory, host.address)
        if machine is None or not machine.running:
            raise Unreachable(f"nobody answers at {host.address}", node=host.name)
        if machine.host_key not in host.host_keys:
            raise HostKeyError(f"another host key at {host.address}", node=host.name)
        if not {_public(path) for path in host.identity_files} & set(machine.logins):
            raise Unreachable(f"login refused at {host.address}", node=host.name)
        return machine

    @contextlib.contextmanager
    def _kept(self, host: Host) -> Iterator[Machine]:
        machine = self._meet(host)
        yield machine
        save(self._directory, host.address, machine)

    def run(
        self,
        host: Host,
        command: Command,
        *,
        on_stdout: Chunk | None = None,
        on_stderr: Chunk | None = None,
    ) -> CommandResult:
        """As the command would leave it on a machine where everything goes well."""
        del on_stderr
        machine = self._meet(host)
        if command.argv[3:4] == ("facts",):
            output = _facts(host, machine, json.loads(command.argv[4]))
        else:
            output = _verb(command)
        if on_stdout:
            on_stdout(output.encode())
        return CommandResult(0, b"" if on_stdout else output.encode(), b"")

    def forward(self, host: Host, address: str, port: int, *, local_port: int = 0) -> Forward:
        """Nothing listens there."""
        raise Unreachable(f"{address}:{port} is not there (for local port {local_port})", node=host.name)

    def close(self) -> None:
        """Nothing is open."""


def _public(path: Path) -> str:
    """Of a private key file."""
    key = load_ssh_private_key(path.read_bytes(), None)
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def _facts(host: Host, machine: Machine, question: Mapping[str, Any]) -> str:
    config = "/clusters/{cluster}/nodes/{index}/node.json".format(**question)
    found = {
        "uid": 1000,
        "user": host.user,
        "sudo": True,
        "systemd": True,
        "marked": False,
        "arch": "x86_64",
        "glibc": "2.36",
        "cpus": 2,
        "memory_bytes": 4 << 30,
        "disk_free_bytes": 20 << 30,
        "python": "/usr/bin/python3",
        "hostname": host.name,
        "machine_id": machine.id,
        "route_address": host.address,
        "have": [path for path in machine.files if "/cache/" in path],
        "node_config_sha256": next((sha for path, sha in machine.files.items() if path.endswith(config)), ""),
        "running": machine.services,
    }
    return json.dumps(found)


def _verb(command: Command) -> str:
    """Answer of a verb of the node code on a cluster that never ran anything."""
    match command.argv:
        case (_, "-I", "-S", _, "runs", *_):
            return "[]"
        case (_, "-I", "-S", _, "interrupted", *_):
            return ""
        case _:
            raise AssertionError(f"nobody taught this fake to answer: {command.line()[:300]}")
