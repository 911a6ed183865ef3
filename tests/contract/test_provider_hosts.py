"""From the user's OpenSSH configuration to a real connection: jumps, keys, and keys that changed."""

from __future__ import annotations

import getpass
from pathlib import Path

import pytest

from rain_deploy.core.cluster import Cluster
from rain_deploy.core.machine import Host, Machines
from rain_deploy.core.spec import ClusterSpec
from rain_deploy.core.step import Command
from rain_deploy.errors import HostKeyError
from rain_deploy.providers.hosts.provider import HostsProvider
from rain_deploy.transport.ssh import SshTransport
from tests.contract.servers import ADDRESS, Sshds

CLUSTER = Cluster(id="ab12", name="default", provider="hosts", created_s=0.0)


class Home:
    """A user's home: `inner` is behind `gate`, both real servers, both known."""

    def __init__(self, path: Path, sshds: Sshds) -> None:
        self.path = path
        self.gate, self.inner, self.other = sshds.servers
        (path / ".ssh").mkdir()
        (path / ".ssh" / "config").write_text(
            f"Host gate\n  Port {self.gate.port}\nHost inner\n  Port {self.inner.port}\n  ProxyJump gate\n"
            f"Host *\n  HostName {ADDRESS}\n  User {getpass.getuser()}\n  IdentityFile {sshds.key}\n",
            encoding="utf-8",
        )
        self.know(self.gate.host_keys("ed25519", "rsa"), self.inner.host_keys("ecdsa"))

    def know(self, gate: tuple[str, ...], inner: tuple[str, ...]) -> None:
        pairs = ((self.gate, gate), (self.inner, inner))
        lines = [f"[{ADDRESS}]:{server.port} {key}\n" for server, keys in pairs for key in keys]
        (self.path / ".ssh" / "known_hosts").write_text("".join(lines), encoding="utf-8")

    def host(self) -> Host:
        provider = HostsProvider(user_home=self.path)
        spec = ClusterSpec("default", "hosts", "", machines=Machines(hosts=("inner",)))
        refs = tuple(map(provider.create, provider.intents(spec, CLUSTER, 1)))
        return provider.hosts(CLUSTER, refs)[0]


@pytest.fixture
def home(tmp_path: Path, sshds: Sshds) -> Home:
    return Home(tmp_path, sshds)


def test_a_name_behind_a_jump_is_reached_as_ssh_reaches_it(home: Home, transport: SshTransport) -> None:
    assert transport.run(home.host(), Command(("echo", "here"))).stdout == b"here\n"


@pytest.mark.parametrize("at", ["gate", "inner"])
@pytest.mark.parametrize("known", ["another key", "none"])
def test_a_key_that_is_not_the_known_one_stops_all(
    home: Home, transport: SshTransport, at: str, known: str
) -> None:
    wrong = home.other.host_keys("ed25519") if known == "another key" else ()
    gate, inner = home.gate.host_keys("ed25519"), home.inner.host_keys("ed25519")
    home.know(wrong if at == "gate" else gate, wrong if at == "inner" else inner)
    with pytest.raises(HostKeyError):
        transport.run(home.host(), Command(("true",)))
