"""New host keys: a real SSH server changes its key, and whatever breaks off, a recorded key opens it."""

from __future__ import annotations

import contextlib
import getpass
import itertools
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.install import rekey
from rain_deploy.core.cluster import Cluster, Node
from rain_deploy.core.machine import Facts, Host
from rain_deploy.core.step import Command, CommandResult
from rain_deploy.errors import HostKeyError, RainDeployError, Unreachable
from rain_deploy.fleet.fanout import SshExecutor
from rain_deploy.parts.facts import DEBIAN_12
from rain_deploy.parts.machine import HostKey
from rain_deploy.providers.base import Provider
from rain_deploy.providers.keys import public_key
from rain_deploy.state.store import Record, Store
from rain_deploy.transport.base import Chunk
from rain_deploy.transport.local import LocalTransport
from rain_deploy.transport.ssh import SshTransport
from tests.support.network import WORKER
from tests.support.sshd import SSHD, OpenSshd
from tests.support.waiting import wait_for

ADDRESS = f"127.106.{WORKER}.1"
OURS = replace(DEBIAN_12, marked=True, one_time_host_key=True)
pytestmark = pytest.mark.skipif(not SSHD.exists(), reason=f"no {SSHD}: install openssh-server")


class Machine:
    """An sshd that reads its host key from ``etc`` whenever ``systemctl reload`` is called."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.etc = directory / "etc"
        for made in (self.etc, directory / "machine", directory / "bin", directory / "home"):
            made.mkdir()
        self.first = public_key(self.etc / "ssh_host_ed25519_key")
        self.one_time = directory / "machine/one-time-host-key"
        self.one_time.write_text(f"{self.first}\n", encoding="utf-8")
        self.key = directory / "id_ed25519"
        path = f"{directory}/bin:{os.environ['PATH']}"
        environment = {
            "HOME": directory / "home",
            "PATH": path,
            "RAIN_DEPLOY_MACHINE": directory / "machine",
        }
        host_key = self.etc / "ssh_host_ed25519_key"
        self._sshd = OpenSshd(directory, ADDRESS, public_key(self.key), (host_key,), environment)
        self.program(
            "systemctl",
            f'[ "$1" = reload ] || exit 0\necho "$2" >>{directory}/reloaded\nkill -HUP {self._sshd.pid}',
        )

    def program(self, name: str, text: str) -> None:
        """Put it first on PATH of the machine's sessions."""
        path = self.directory / "bin" / name
        path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
        path.chmod(0o755)

    @property
    def in_use(self) -> str:
        return public_key(self.etc / "ssh_host_ed25519_key")

    def host(self) -> Host:
        return Host(
            name="node-1",
            address=ADDRESS,
            port=self._sshd.port,
            user=getpass.getuser(),
            host_keys=(self.first,),
            identity_files=(self.key,),
            machine="uuid-1",
        )

    def close(self) -> None:
        self._sshd.close()


class BreaksOff(SshTransport):
    """Loses its ``fatal``-th command, before it is sent or after it was done, as a killed operator does."""

    def __init__(self, fatal: int, *, done: bool) -> None:
        super().__init__()
        self._left = fatal
        self._done = done

    def run(
        self,
        host: Host,
        command: Command,
        *,
        on_stdout: Chunk | None = None,
        on_stderr: Chunk | None = None,
    ) -> CommandResult:
        self._left -= 1
        if self._left == 0 and not self._done:
            raise Unreachable("broken off")
        result = super().run(host, command, on_stdout=on_stdout, on_stderr=on_stderr)
        if self._left == 0:
            raise Unreachable("broken off")
        return result


class Operator:
    """The home of the one who made the machine; every command begins with what is on record."""

    def __init__(self, directory: Path, machine: Machine) -> None:
        self._home = directory / "home"
        self._machine = machine
        self.store = Store(self._home)
        self._base = str(directory / "base")
        self.made_anew()

    def made_anew(self) -> None:
        """The machine has the key that it has now from user-data, and nothing else is known of it."""
        self._machine.first = self._machine.in_use
        self._machine.one_time.write_text(f"{self._machine.first}\n", encoding="utf-8")
        node = Node("node-1", self._machine.host(), OURS, ADDRESS, 7301, 2)
        self.store.save_cluster(Cluster("ab12", "default", "exoscale", 1.5, (node,), base=self._base))

    @property
    def cluster(self) -> Cluster:
        cluster = self.store.cluster("default")
        assert cluster is not None
        return cluster

    @property
    def pinned(self) -> tuple[str, ...]:
        return self.cluster.server.host.host_keys

    def replace(self, transport: SshTransport, facts: Facts | None = None) -> Cluster:
        """What ``up`` does, with the facts that it would have found."""
        found = facts or replace(OURS, one_time_host_key=self._machine.one_time.exists())
        record = Record(self.store, "default")
        record.change_nodes(lambda node: replace(node, facts=found))
        with contextlib.closing(transport):
            return rekey(self._context(transport), record, HostKey(str(self._machine.etc)))

    def gets_in(self) -> bool:
        """Whether a recorded key opens the machine, whose server is away for a moment when it reloads."""

        def connects() -> bool:
            with contextlib.closing(SshTransport()) as transport, contextlib.suppress(Unreachable):
                transport.connect(self.cluster.server.host)
                return True
            return False

        wait_for(connects)
        return True

    def _context(self, transport: SshTransport) -> Context:
        def no_provider(name: str) -> Provider:
            raise AssertionError(name)

        return Context(
            home=self._home,
            store=self.store,
            transport=transport,
            local=LocalTransport(),
            provider_for=no_provider,
            emit=lambda _: None,
            confirm=lambda _: False,
            cwd=self._home,
            executor=SshExecutor(transport),
        )


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    (tmp_path / "node").mkdir()
    machine = Machine(tmp_path / "node")
    yield machine
    machine.close()


@pytest.fixture
def operator(tmp_path: Path, machine: Machine) -> Operator:
    return Operator(tmp_path, machine)


def test_the_key_that_travelled_in_user_data_opens_nothing_afterwards(
    machine: Machine, operator: Operator
) -> None:
    cluster = operator.replace(SshTransport())
    assert cluster.server.host.host_keys == operator.pinned == (machine.in_use,)
    assert operator.pinned != (machine.first,)
    assert operator.gets_in()
    with contextlib.closing(SshTransport()) as transport, pytest.raises(HostKeyError):
        transport.connect(machine.host())
    key = machine.etc / "ssh_host_ed25519_key"
    assert key.stat().st_mode & 0o777 == 0o600
    assert key.with_suffix(".pub").read_text(encoding="utf-8").split() == machine.in_use.split()
    assert {path.name for path in machine.etc.iterdir()} == {key.name, f"{key.name}.pub"}
    assert (machine.directory / "reloaded").read_text(encoding="utf-8") == "ssh\n"


def test_a_node_that_is_left_out_needs_no_key(machine: Machine, operator: Operator) -> None:
    absent = Node("node-2", Host("node-2", ADDRESS, 22, "me", ()), OURS)
    operator.store.save_cluster(replace(operator.cluster, left_out=(absent,)))
    operator.replace(SshTransport())
    assert operator.pinned == (machine.in_use,)
    assert [node.host.host_keys for node in operator.cluster.left_out] == [()]


def test_a_second_up_changes_nothing_and_asks_nothing(machine: Machine, operator: Operator) -> None:
    operator.replace(SshTransport())
    before = operator.pinned
    operator.replace(BreaksOff(1, done=False))
    assert operator.pinned == before == (machine.in_use,)


@pytest.mark.parametrize(
    "facts",
    [replace(OURS, marked=False), replace(OURS, systemd=False), replace(OURS, uid=1000, sudo=False)],
    ids=["not ours", "no systemd", "no root"],
)
def test_other_machines_keep_their_keys(machine: Machine, operator: Operator, facts: Facts) -> None:
    operator.replace(BreaksOff(1, done=False), facts)
    assert operator.pinned == (machine.first,) == (machine.in_use,)


@pytest.mark.parametrize("fatal", [1, 2])
@pytest.mark.parametrize("done", [False, True], ids=["not sent", "done and not told"])
def test_an_operator_who_is_cut_off_still_gets_in_and_goes_on(
    machine: Machine, operator: Operator, fatal: int, done: bool
) -> None:
    with pytest.raises(RainDeployError):
        operator.replace(BreaksOff(fatal, done=done))
    assert machine.in_use in operator.pinned
    assert operator.gets_in()
    told = operator.pinned[1:]
    operator.replace(SshTransport())
    assert operator.pinned == (machine.in_use,) != (machine.first,)
    assert told in {(), operator.pinned}  # one that may be on its way into use is not made again
    assert operator.gets_in()


CHANGES_SOMETHING = ("cat", "mv", "rm", "ssh-keygen", "sync", "systemctl")


@pytest.mark.slow
def test_wherever_the_machines_own_script_dies_a_recorded_key_opens_it(
    machine: Machine, operator: Operator
) -> None:
    """Its n-th call of a program that changes something is the last thing it does, for every n."""
    tried = 0
    for after in (False, True):
        for fatal in itertools.count(1):
            operator.made_anew()
            with dying(machine, fatal, after=after):
                try:
                    operator.replace(SshTransport())
                except Unreachable:
                    tried += 1
                else:
                    break
            assert machine.in_use in operator.pinned
            assert operator.gets_in()
            operator.replace(SshTransport())
            assert operator.pinned == (machine.in_use,) != (machine.first,)
    assert tried > 20


@contextlib.contextmanager
def dying(machine: Machine, fatal: int, *, after: bool) -> Iterator[None]:
    """The machine's ``fatal``-th program of those kills its whole session, before or after its work."""
    wrapped, calls = machine.directory / "wrapped", machine.directory / "calls"
    shutil.copytree(machine.directory / "bin", wrapped)
    calls.write_bytes(b"")
    for name in CHANGES_SOMETHING:
        real = wrapped / name if (wrapped / name).exists() else shutil.which(name)
        die = f'[ "$(wc -c <{calls})" != {fatal} ] || kill -9 0'
        first, last = (":", die) if after else (die, ":")
        machine.program(name, f'printf . >>{calls}\n{first}\n{real} "$@"\nstatus=$?\n{last}\nexit $status')
    yield
    shutil.rmtree(machine.directory / "bin")
    wrapped.rename(machine.directory / "bin")
