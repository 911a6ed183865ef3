"""Settings of the user's OpenSSH that decide a login count here as for ``ssh``, or are refused by name."""

from __future__ import annotations

import getpass
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from rain_deploy.core.cluster import Cluster
from rain_deploy.core.machine import Host, Machines
from rain_deploy.core.spec import ClusterSpec
from rain_deploy.core.step import Command
from rain_deploy.errors import HostKeyError, InputError, Unreachable
from rain_deploy.parts.access import known_hosts_text, ssh_config_text
from rain_deploy.providers.hosts.provider import HostsProvider
from rain_deploy.providers.keys import public_key
from rain_deploy.transport.ssh import SshTransport
from tests.contract.servers import ADDRESS
from tests.support.sshd import SSHD, OpenSshd

CLUSTER = Cluster(id="ab12", name="default", provider="hosts", created_s=0.0)
pytestmark = pytest.mark.skipif(not SSHD.exists(), reason=f"no {SSHD}: install openssh-server")


class Oak:
    """A user with a machine ``oak``: a real SSH server that lets in one key, and who has a certificate."""

    def __init__(self, path: Path) -> None:
        self.path, self.ssh = path, path / "user/.ssh"
        self.ssh.mkdir(parents=True)
        self.key, self.ca = self.ssh / "id_oak", path / "ca"
        public, self.pinned = public_key(self.key), public_key(path / "host_key")
        (self.ssh / "id_oak.pub").write_text(public + "\n")
        (path / "ca.pub").write_text(public_key(self.ca) + "\n")
        trusted = f"TrustedUserCAKeys {path}/ca.pub"
        self.server = OpenSshd(path, ADDRESS, public, [path / "host_key"], {"HOME": path}, trusted)
        self.knows(self.ssh / "known_hosts")
        self.settings()

    def knows(self, file: Path, mark: str = "", key: str = "") -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{mark}[{ADDRESS}]:{self.server.port} {key or self.pinned}\n")

    def settings(self, *lines: str, key: str = "~/.ssh/id_oak") -> None:
        """Write the user's config."""
        first = (f"HostName {ADDRESS}", f"Port {self.server.port}", f"User {getpass.getuser()}")
        text = "".join(f"  {line}\n" for line in (*first, f"IdentityFile {key}", *lines))
        (self.ssh / "config").write_text(f"Host oak\n{text}")

    def host(self, *, check: bool = False) -> Host:
        provider = HostsProvider(user_home=self.ssh.parent)
        spec = ClusterSpec("default", "hosts", "", machines=Machines(hosts=("oak",)))
        if check:
            provider.preflight(spec)
        refs = tuple(map(provider.create, provider.intents(spec, CLUSTER, 1)))
        return provider.hosts(CLUSTER, refs)[0]

    def system_ssh(self, host: Host) -> str:
        """What the system's ssh prints with the configuration that rain-deploy writes."""
        known, config = self.path / "our_known_hosts", self.path / "our_config"
        known.write_text(known_hosts_text("ab12", (host,)))
        config.write_text(ssh_config_text("ab12", (host,), known))
        argv = ["ssh", "-o", "BatchMode=yes", "-F", str(config), "node-1", "echo", "here"]
        return subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False
        ).stdout


@pytest.fixture
def oak(tmp_path: Path) -> Iterator[Oak]:
    oak = Oak(tmp_path)
    yield oak
    oak.server.close()


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The session's agent, with more keys than a server lets one try."""
    socket = tmp_path / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.DEVNULL)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
    while not socket.exists():
        assert process.poll() is None
    for number in range(8):
        add(tmp_path / f"other{number}")
    yield socket
    process.kill()
    process.wait()


def add(key: Path) -> None:
    public_key(key)
    subprocess.run(["ssh-add", "-q", str(key)], check=True, timeout=30)


def sign(oak: Oak, key: Path) -> None:
    """Make ``key``-cert.pub."""
    words = ("-q", "-s", str(oak.ca), "-I", "me", "-n", getpass.getuser(), f"{key}.pub")
    subprocess.run(["ssh-keygen", *words], check=True, timeout=30)


def reached(transport: SshTransport, host: Host) -> bool:
    return transport.run(host, Command(("echo", "here"))).stdout == b"here\n"


# Keys


def test_of_many_keys_in_the_agent_the_named_one_logs_in(
    oak: Oak, agent: Path, transport: SshTransport
) -> None:
    add(oak.key)
    oak.key.unlink()  # its public half is left, as with a key on a token
    oak.settings("IdentitiesOnly yes")
    host = oak.host()
    assert reached(transport, host)
    assert oak.system_ssh(host) == "here\n"


def test_a_locked_key_file_logs_in_through_the_agent(oak: Oak, agent: Path, transport: SshTransport) -> None:
    add(oak.key)
    subprocess.run(["ssh-keygen", "-q", "-p", "-N", "secret", "-f", str(oak.key)], check=True, timeout=30)
    assert reached(transport, oak.host())


def test_identities_only_offers_no_other_key_of_the_agent(
    oak: Oak, agent: Path, transport: SshTransport
) -> None:
    subprocess.run(["ssh-add", "-q", "-D"], check=True, timeout=30)
    add(oak.key)
    stranger = oak.ssh / "stranger"
    public_key(stranger)
    oak.settings("IdentitiesOnly yes", key=str(stranger))
    with pytest.raises(Unreachable, match=rf"refused the login of \S+ with {re.escape(str(stranger))} \("):
        reached(transport, oak.host())
    oak.settings(key=str(stranger))
    assert reached(transport, oak.host())


def test_too_many_keys_are_said_and_what_limits_them(oak: Oak, agent: Path, transport: SshTransport) -> None:
    oak.settings(key="none")
    with pytest.raises(Unreachable, match=r"after \d keys; IdentitiesOnly limits which are tried"):
        reached(transport, oak.host())


@pytest.mark.parametrize("held", ["file", "agent"])
def test_a_certificate_logs_in(oak: Oak, agent: Path, transport: SshTransport, held: str) -> None:
    (oak.path / "authorized_keys").write_text("")
    with pytest.raises(Unreachable, match="refused the login"):
        reached(transport, oak.host())
    sign(oak, oak.key)
    shutil.move(oak.ssh / "id_oak-cert.pub", oak.ssh / "signed by us.pub")
    if held == "agent":
        add(oak.key)
        oak.key.unlink()
    oak.settings('CertificateFile "~/.ssh/signed by us.pub"', "IdentitiesOnly yes")
    host = oak.host()
    assert reached(transport, host)
    assert oak.system_ssh(host) == "here\n"


def test_a_certificate_beside_its_key_logs_in(oak: Oak, transport: SshTransport) -> None:
    (oak.path / "authorized_keys").write_text("")
    sign(oak, oak.key)
    assert reached(transport, oak.host())


# Host keys


@pytest.mark.parametrize(
    "value",
    ['"{0}/with space/known hosts"', '~/.ssh/none "{0}/with space/known hosts"', "{0}/plain {0}/with"],
)
def test_every_known_hosts_file_counts(oak: Oak, transport: SshTransport, value: str) -> None:
    (oak.ssh / "known_hosts").unlink()
    oak.knows(oak.path / "with space/known hosts")
    oak.knows(oak.path / "plain")
    oak.settings(f"UserKnownHostsFile {value.format(oak.path)}")
    assert reached(transport, oak.host(check=True))


@pytest.mark.parametrize(
    ("line", "words", "step"),
    [
        (
            "UserKnownHostsFile /dev/null",
            "UserKnownHostsFile is /dev/null",
            "take UserKnownHostsFile and StrictHostKeyChecking for it out of your OpenSSH configuration",
        ),
        (
            "KnownHostsCommand /bin/echo %H",
            "KnownHostsCommand is not supported",
            "take KnownHostsCommand for it out",
        ),
        ("UserKnownHostsFile {ssh}/authority", "@cert-authority alone", '"[{name}]:{port} $(ssh oak '),
    ],
)
def test_a_host_key_that_only_ssh_would_accept_is_refused_with_what_helps(
    oak: Oak, line: str, words: str, step: str
) -> None:
    (oak.ssh / "known_hosts").unlink()
    oak.knows(oak.ssh / "authority", "@cert-authority ", (oak.path / "ca.pub").read_text().strip())
    oak.settings(line.format(ssh=oak.ssh))
    with pytest.raises(HostKeyError, match=f"oak: .*{re.escape(words)}") as caught:
        oak.host(check=True)
    assert step.format(name=ADDRESS, port=oak.server.port) in (caught.value.next_step or "")


def test_keys_that_are_revoked_in_a_file_of_their_own_are_refused_by_name(oak: Oak) -> None:
    oak.settings(f"RevokedHostKeys {oak.path}/revoked")
    with pytest.raises(InputError, match=r"RevokedHostKeys .*/revoked is not supported"):
        oak.host(check=True)
