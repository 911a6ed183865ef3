"""From the user's OpenSSH configuration to a real connection: jumps, keys, and keys that changed."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from pathlib import Path

import pytest

from rain_deploy.core.command import Command
from rain_deploy.core.model import Cluster, Host
from rain_deploy.core.spec import ClusterSpec
from rain_deploy.errors import HostKeyError
from rain_deploy.providers.hosts import HostsProvider
from rain_deploy.providers.local_keys import public_key
from rain_deploy.transport.ssh import SshTransport
from tests.contract.servers import ADDRESS, SSHD, OpenSshd

pytestmark = pytest.mark.skipif(not SSHD.exists(), reason=f"no {SSHD}: install openssh-server")

CLUSTER = Cluster(id="ab12", name="default", provider="hosts", created_s=0.0)


class Home:
    """A user's home: `inner` is behind `gate`, both real servers, both known."""

    def __init__(self, path: Path) -> None:
        self.path, key = path, path / "id_ed25519"
        public = public_key(key)
        self.servers: list[OpenSshd] = []
        for name in ("gate", "inner"):
            (path / name).mkdir()
            self.servers.append(OpenSshd(path / name, public))
        gate, inner = self.servers
        (path / ".ssh").mkdir()
        (path / ".ssh" / "config").write_text(
            f"Host gate\n  Port {gate.port}\nHost inner\n  Port {inner.port}\n  ProxyJump gate\n"
            f"Host *\n  HostName {ADDRESS}\n  User {getpass.getuser()}\n  IdentityFile {key}\n",
            encoding="utf-8",
        )
        self.know(gate.host_keys("ed25519", "rsa"), inner.host_keys("ecdsa"))

    def know(self, gate: tuple[str, ...], inner: tuple[str, ...]) -> None:
        lines = [
            f"[{ADDRESS}]:{server.port} {key}\n"
            for server, keys in zip(self.servers, (gate, inner), strict=True)
            for key in keys
        ]
        (self.path / ".ssh" / "known_hosts").write_text("".join(lines), encoding="utf-8")

    def host(self) -> Host:
        provider = HostsProvider(user_home=self.path)
        spec = ClusterSpec("default", "hosts", "", hosts=("inner",))
        refs = tuple(map(provider.create, provider.intents(spec, CLUSTER, 1)))
        return provider.hosts(CLUSTER, refs)[0]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path)
    yield home
    for server in home.servers:
        server.close()


def test_a_name_behind_a_jump_is_reached_as_ssh_reaches_it(home: Home, transport: SshTransport) -> None:
    assert transport.run(home.host(), Command(("echo", "here"))).stdout == b"here\n"


@pytest.mark.parametrize("other", ["gate", "inner"])
def test_another_key_on_either_machine_stops_all(home: Home, transport: SshTransport, other: str) -> None:
    gate, inner = (server.host_keys("ed25519") for server in home.servers)
    home.know(inner if other == "gate" else gate, gate if other == "inner" else inner)
    with pytest.raises(HostKeyError):
        transport.run(home.host(), Command(("true",)))


@pytest.mark.parametrize("unknown", ["gate", "inner"])
def test_an_unknown_key_on_either_machine_stops_all(
    home: Home, transport: SshTransport, unknown: str
) -> None:
    gate, inner = (server.host_keys("ed25519") for server in home.servers)
    home.know(() if unknown == "gate" else gate, () if unknown == "inner" else inner)
    with pytest.raises(HostKeyError):
        transport.run(home.host(), Command(("true",)))
