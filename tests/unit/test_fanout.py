"""Work on many hosts: everything is collected, nothing hides anything else."""

from __future__ import annotations

import threading

import pytest

from rain_deploy.cluster.hosts import ask_facts
from rain_deploy.core.machine import Facts, Host
from rain_deploy.core.step import Command, CommandResult
from rain_deploy.errors import HostKeyError, InstallFailed, RainDeployError, Unreachable
from rain_deploy.fleet.fanout import fan_out, once_it_answers
from rain_deploy.parts.facts import facts_command
from rain_deploy.transport.base import Chunk, Forward
from rain_deploy.transport.local import LocalTransport

HOSTS = tuple(Host(f"node-{n}", f"127.0.0.{n}", 22, "me", ()) for n in range(1, 5))


def test_every_outcome_is_kept_and_all_that_failed_are_named() -> None:
    def work(host: Host) -> str:
        if host.index % 2:
            raise InstallFailed(f"no disk on {host.name}")
        return host.name

    outcomes = fan_out(HOSTS, work)
    assert dict(outcomes.values) == {"node-2": "node-2", "node-4": "node-4"}
    assert {name: error.node for name, error in outcomes.errors.items()} == {
        "node-1": "node-1",
        "node-3": "node-3",
    }
    with pytest.raises(InstallFailed, match=r"no disk on node-1 \(failed as well: node-3\)"):
        outcomes.require()


def test_hosts_are_worked_on_at_the_same_time() -> None:
    together = threading.Barrier(len(HOSTS), timeout=10)
    assert len(fan_out(HOSTS, lambda _: together.wait()).values) == len(HOSTS)


def test_a_bug_is_not_an_outcome() -> None:
    def work(host: Host) -> int:
        return {"node-1": 1}[host.name]

    with pytest.raises(KeyError):
        fan_out(HOSTS, work)


class Booting:
    """A machine that refuses ``refusals`` connections before it answers."""

    def __init__(self, refusals: int, error: type[RainDeployError] = Unreachable) -> None:
        self.left = refusals
        self.tries = 0
        self._error = error
        self._machine = LocalTransport()

    def connect(self, host: Host) -> None:
        self._machine.connect(host)

    def run(
        self,
        host: Host,
        command: Command,
        *,
        on_stdout: Chunk | None = None,
        on_stderr: Chunk | None = None,
    ) -> CommandResult:
        self.tries += 1
        if self.left:
            self.left -= 1
            raise self._error("no")
        return self._machine.run(host, command, on_stdout=on_stdout, on_stderr=on_stderr)

    def forward(self, host: Host, address: str, port: int, *, local_port: int = 0) -> Forward:
        return self._machine.forward(host, address, port, local_port=local_port)

    def close(self) -> None:
        self._machine.close()


class Clock:
    """Time that passes only when somebody waits."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def pause(self, seconds: float) -> None:
        self.now_s += seconds


def facts_of(machine: Booting, wait_s: float) -> Facts:
    clock, question = Clock(), facts_command(HOSTS[0], "ab12")
    return once_it_answers(
        lambda: ask_facts(machine, HOSTS[0], question), wait_s, clock=clock, pause=clock.pause
    )


def test_a_machine_that_still_boots_is_waited_for() -> None:
    machine = Booting(3)
    facts = facts_of(machine, wait_s=10)
    assert machine.tries == 4
    assert facts.arch
    assert facts.cpus >= 1
    assert facts.memory_bytes > 1 << 28
    assert facts.glibc
    assert facts.disk_free_bytes > 0


def test_the_wait_has_a_deadline() -> None:
    machine = Booting(100)
    with pytest.raises(Unreachable):
        facts_of(machine, wait_s=5)
    assert machine.tries == 6


def test_a_wrong_host_key_is_never_tried_again() -> None:
    machine = Booting(100, HostKeyError)
    with pytest.raises(HostKeyError):
        facts_of(machine, wait_s=60)
    assert machine.tries == 1
