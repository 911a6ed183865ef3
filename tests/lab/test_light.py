"""Light machines: what a cloud's instance promises, kept by SSH servers of this machine."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rain_deploy.cluster.hosts import ask_facts
from rain_deploy.core.machine import Facts, Host
from rain_deploy.core.step import Command, CommandResult
from rain_deploy.errors import HostKeyError, Unreachable
from rain_deploy.fleet.fanout import once_it_answers
from rain_deploy.parts.facts import facts_command
from rain_deploy.parts.machine import user_data
from rain_deploy.providers.keys import public_key
from rain_deploy.providers.local.server import pids_of
from rain_deploy.transport.ssh import SshTransport
from tests.lab.light import MACHINE, LightMachine, LightMachines
from tests.lab.machines import Instance, NoAddressError
from tests.support.waiting import LONG_S, wait_for


class Bench:
    """A lab's machines and the operator's side of them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.key = directory / "id_ed25519"
        self.host_key = directory / "host_key"
        self.off: list[str] = []
        self.transport = SshTransport()
        self.machines = LightMachines(directory / "lab", size=3)
        self.machines.on_power_off = self.off.append

    def instance(self, name: str, *, limit_s: float | None = None, idle_s: float | None = None) -> Instance:
        public = public_key(self.host_key)
        told = user_data(
            host_key_private=self.host_key.read_text(encoding="ascii"),
            host_key_public=public,
            limit_s=limit_s,
            idle_s=idle_s,
        )
        return Instance(name, f"rd-{name}", told, (public_key(self.key),))

    def create(self, name: str, *, limit_s: float | None = None, idle_s: float | None = None) -> LightMachine:
        self.machines.create(self.instance(name, limit_s=limit_s, idle_s=idle_s))
        return self.machines.machine(name)

    def host(self, machine: LightMachine, host_key: Path | None = None) -> Host:
        return Host(
            name="node-1",
            address=machine.address,
            port=machine.port,
            user="debian",
            host_keys=(public_key(host_key or self.host_key),),
            identity_files=(self.key,),
        )

    def facts(self, machine: LightMachine) -> Facts:
        host = self.host(machine)
        question = facts_command(host, "c1")
        return once_it_answers(lambda: ask_facts(self.transport, host, question), LONG_S)

    def sh(self, machine: LightMachine, script: str) -> CommandResult:
        return self.transport.run(self.host(machine), Command(("sh", "-c", script), deadline_s=LONG_S))

    def close(self) -> None:
        self.transport.close()
        self.machines.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.close()


def stays(holds: Callable[[], bool], for_s: float = 2.0) -> bool:
    """Whether it holds all that time: as long as the machine's limit program looks several times."""
    end_s = time.monotonic() + for_s
    while holds() and time.monotonic() < end_s:
        time.sleep(0.05)
    return holds()


def listening(machine: LightMachine) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((machine.address, machine.port)) == 0


def connections(machine: LightMachine) -> bytes:
    """Lines of the kernel's table that have its SSH port as their own end."""
    own = f"{socket.inet_aton(machine.address)[::-1].hex().upper()}:{machine.port:04X}".encode()
    lines = Path("/proc/net/tcp").read_bytes().splitlines()
    return b"\n".join(line for line in lines if line.split()[1] == own)


def test_it_is_reached_with_the_keys_that_it_was_given_and_with_no_others(bench: Bench) -> None:
    machine = bench.create("a")
    assert bench.facts(machine).base == str(bench.machines.base)
    other = bench.directory / "other"
    with pytest.raises(HostKeyError):
        bench.transport.connect(bench.host(machine, host_key=other))
    (bench.directory / "id_ed25519").rename(bench.directory / "lost")
    public_key(bench.key)
    with contextlib.closing(SshTransport()) as fresh, pytest.raises(Unreachable, match="refused the login"):
        fresh.connect(bench.host(machine))


def test_no_power_off_and_no_new_host_key_can_be_asked_of_it(bench: Bench) -> None:
    machine = bench.create("a")
    facts = bench.facts(machine)
    assert not facts.marked
    assert not facts.one_time_host_key
    assert machine.path("/var/lib/rain-deploy-machine/mark").exists()


def test_its_environment_holds_the_callers_installer_settings_and_no_secret_of_ours(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_INDEX_URL", "http://127.2.0.9/simple")
    monkeypatch.setenv("EXOSCALE_API_SECRET", "canary")
    machine = bench.create("a")
    bench.facts(machine)
    environment = bench.sh(machine, "env").stdout.decode()
    assert "UV_INDEX_URL=http://127.2.0.9/simple" in environment
    assert f"RAIN_DEPLOY_MACHINE={machine.path('/var/lib/rain-deploy-machine')}" in environment
    assert "canary" not in environment


def test_at_its_limit_it_powers_itself_off_and_is_started_again_for_half_an_hour(bench: Bench) -> None:
    machine = bench.create("a", limit_s=time.time() + 3600)
    bench.facts(machine)
    bench.sh(machine, "echo kept >file; setsid sleep 300 >/dev/null 2>&1 </dev/null &")
    machine.path(f"{MACHINE}/limit").write_text(f"{int(time.time())}\n")
    wait_for(lambda: bench.off == ["a"])
    assert not bench.machines.running("a")
    assert not listening(machine)
    assert pids_of(machine.marker) == ()
    bench.machines.start("a")
    bench.facts(machine)
    assert bench.sh(machine, "cat file").stdout == b"kept\n"
    machine.pass_time(1700)
    assert stays(lambda: len(bench.off) <= 1)
    machine.pass_time(1800)
    wait_for(lambda: bench.off == ["a", "a"])


def test_a_session_keeps_an_idle_one_up(bench: Bench) -> None:
    machine = bench.create("a", idle_s=3600)
    bench.facts(machine)
    machine.pass_time(4000)
    assert stays(lambda: bench.off == [])
    bench.transport.close()
    wait_for(lambda: b" 01 " not in connections(machine))
    machine.pass_time(8000)
    wait_for(lambda: bench.off == ["a"])


def test_stopped_by_the_cloud_it_does_not_report_that_it_went_off_itself(bench: Bench) -> None:
    machine = bench.create("a")
    bench.facts(machine)
    bench.machines.stop("a")
    bench.machines.stop("a")
    assert (bench.machines.running("a"), listening(machine), bench.off) == (False, False, [])
    bench.machines.start("a")
    bench.machines.start("a")
    assert bench.facts(machine).hostname


def test_deleted_it_leaves_no_process_no_file_and_its_address(bench: Bench) -> None:
    machine = bench.create("a")
    bench.facts(machine)
    cluster = bench.machines.base / "clusters/c1"
    for name, address in (("1", machine.address), ("2", f"{bench.machines.network}.0.99")):
        (cluster / "nodes" / name).mkdir(parents=True)
        described = json.dumps({"address": address, "server": True})
        (cluster / "nodes" / name / "node.json").write_text(described, encoding="utf-8")
    bench.sh(machine, "trap '' TERM; setsid sh -c 'while :; do sleep 1; done' >/dev/null 2>&1 </dev/null &")
    wait_for(lambda: len(pids_of(machine.marker)) > 1)
    bench.machines.delete("a")
    bench.machines.delete("a")
    assert pids_of(machine.marker) == ()
    assert not machine.directory.exists()
    assert [node.name for node in (cluster / "nodes").iterdir()] == ["2"]
    assert bench.create("b").address == machine.address


def test_each_has_an_address_of_its_own_until_there_is_none(bench: Bench) -> None:
    instances = [bench.instance(name) for name in "abc"]
    threads = [threading.Thread(target=bench.machines.create, args=(one,)) for one in instances]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {bench.machines.machine(name).address for name in "abc"} == {
        f"{bench.machines.network}.0.{n}" for n in (1, 2, 3)
    }
    with pytest.raises(NoAddressError):
        bench.create("d")


@pytest.mark.parametrize("told", [b"", b"#!/bin/sh\n", b"#cloud-config\nruncmd: []\n"])
def test_without_user_data_that_it_understands_it_lets_in_the_registered_keys(
    bench: Bench, told: bytes
) -> None:
    bench.machines.create(Instance("a", "a", told, (public_key(bench.key),)))
    machine = bench.machines.machine("a")
    bench.host_key = machine.directory / "host_key"
    assert bench.facts(machine).uid == os.getuid()


def test_after_a_run_with_then_off_server_and_governor_go_off(bench: Bench) -> None:
    server, governor = bench.create("s"), bench.create("g")
    cluster = bench.machines.base / "clusters/c1"
    for name, machine in (("1", server), ("2", governor)):
        (cluster / "nodes" / name).mkdir(parents=True)
        described = {
            "address": machine.address,
            "server": machine is server,
            "server_address": server.address,
        }
        text = json.dumps(described, indent=1, sort_keys=True)
        (cluster / "nodes" / name / "node.json").write_text(text, encoding="utf-8")
    run = cluster / "runs/r1"
    run.mkdir(parents=True)
    described = {"run": "r1", "sequence": 1, "port": 7231, "then_off": True}
    for name, value in (("run", described), ("state", {"state": "running"})):
        (run / f"{name}.json").write_text(json.dumps(value, indent=1), encoding="utf-8")
    future = time.time() + 5  # shipped after the boot
    os.utime(run / "run.json", (future, future))
    with socket.create_server((server.address, 7231)):
        for machine in (server, governor):
            machine.pass_time(1000)
        assert stays(lambda: bench.off == [])
    (run / "state.json").write_text(json.dumps({"state": "finished"}, indent=1), encoding="utf-8")
    wait_for(lambda: bench.off == ["s"])
    wait_for(lambda: governor.path("/var/lib/rain-deploy-machine/silent").exists())
    governor.pass_time(1400)
    wait_for(lambda: bench.off == ["s", "g"])
