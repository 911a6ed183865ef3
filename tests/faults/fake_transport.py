"""SSH as it looks from the operator's side, over machines that are files: commands are answered, not run.

Machines live in a directory, one file each, so that the processes of several commands meet the same ones.
Who connects must name the right host key and hold the machine's own login key, as with a real server.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import re
import shlex
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_private_key

from rain_deploy.core.command import Command, CommandResult
from rain_deploy.core.machine import Host
from rain_deploy.errors import HostKeyError, Unreachable
from rain_deploy.parts.shell import DATA, MARK
from rain_deploy.transport.base import Chunk, Forward
from tests.lab.machines import Instance, NoMachines

_STEP = re.compile(
    r"^step_(?P<index>\d+)\(\) \{ # .*\n  \( (?P<check>[\s\S]*?) \) >/dev/null 2>&1 3>&- </dev/null\n"
    r"[\s\S]*?\n  \( set -e\n(?P<act>[\s\S]*?)\n  \) </dev/null 1>&2\n",
    re.MULTILINE,
)
_CACHED = re.compile(r"/[^\s'\"\]]+/(?:rain|uv|\.ok|__main__\.py)\b")
"""What the checks of the installation look for."""


@dataclass
class Machine:
    """What a command can find on one."""

    id: str
    host_key: str
    logins: tuple[str, ...]
    """Public keys of those who may log in, each ``keytype base64``."""
    running: bool = True
    files: dict[str, str] = field(default_factory=dict)
    """Path -> SHA-256, or nothing where no one asks for it."""
    services: list[str] = field(default_factory=list)


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
        machine = Machine(instance.id, host_key, logins, files=dict.fromkeys(self.installed, ""))
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
    """Implements the transport for machines of ``FakeMachines``."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

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
        script = command.argv[2] if command.argv[:2] == ("sh", "-c") else ""
        if command.argv[3:4] == ("facts",):
            output = _facts(host, machine, json.loads(command.argv[4]))
        elif script and "mark()" in script:
            output = _stage(machine, script, command.stdin)
            save(self._directory, host.address, machine)
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
        "have": [path for path in machine.files if _CACHED.fullmatch(path)],
        "node_config_sha256": next((sha for path, sha in machine.files.items() if path.endswith(config)), ""),
        "running": machine.services,
    }
    return json.dumps(found)


def _stage(machine: Machine, script: str, stdin: bytes | None) -> str:
    """Every step, in order: unchanged where its check would hold, else done."""
    payload = _digests(stdin) if stdin else {}
    lines: list[str] = []
    for step in _STEP.finditer(script):
        mark = f"{MARK}{step['index']}\t"
        wanted = _wanted(step["check"], payload)
        if wanted and wanted.items() <= machine.files.items():
            lines.append(f"{mark}unchanged")
            continue
        lines += [f"{mark}started", *_act(machine, step["act"]), f"{mark}done"]
        machine.files |= wanted
    return "".join(f"{line}\n" for line in lines)


def _digests(stdin: bytes) -> dict[str, str]:
    found = {}
    with tarfile.open(fileobj=io.BytesIO(stdin), mode="r:gz") as archive:
        for member in archive.getmembers():
            file = archive.extractfile(member)
            found[member.name] = hashlib.sha256(file.read() if file else b"").hexdigest()
    return found


def _wanted(check: str, payload: Mapping[str, str]) -> dict[str, str]:
    """Files that a check looks for."""
    if placed := re.search(r'cmp -s "\$S/([^"]+)" (\S+)', check):
        return {placed[2]: payload[placed[1]]}
    return dict.fromkeys(_CACHED.findall(check), "")


def _act(machine: Machine, act: str) -> list[str]:
    """Do what a step does to files and services; the lines that it reports."""
    for line in act.splitlines():
        if gone := re.match(r"rm -r?f -- (\S+)", line):
            machine.files = {path: sha for path, sha in machine.files.items() if not path.startswith(gone[1])}
    if "RAIN_DEPLOY_SERVICE=" in act:
        machine.services = []
    started = []
    if ensured := re.search(r"started=\$\((.*) ensure (.*)\)", act):
        wanted = ["governor", *(["supervisor"] if "--supervisor" in ensured[2] else [])]
        started = [service for service in wanted if service not in machine.services]
        machine.services += started
    told = [shlex.split(line)[1:3] for line in act.splitlines() if re.match(r"data \w+ [^\"]", line)]
    pairs = [*told, *(["started", service] for service in started)]
    return [f"{DATA}{name}\t{value}" for name, value in pairs]


def _verb(command: Command) -> str:
    """Answer of a verb of the node code on a cluster that never ran anything."""
    match command.argv:
        case (_, _, "runs", *_):
            return "[]"
        case (_, _, "interrupted", *_):
            return ""
        case _:
            raise AssertionError(f"nobody taught this fake to answer: {command.line()[:300]}")
