"""``hosts``: machines that the user has, from up to down, on real OpenSSH servers that let root in."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from rain_deploy.core.step import PayloadFile, Stage, Step
from rain_deploy.parts.shell import stage_command
from rain_deploy.providers.keys import public_key
from tests.local.command_line import LocalCluster
from tests.local.conftest import MakeHome
from tests.local.machines import Machine, User, filled, needs_machines, started
from tests.local.scripts import SQUARES
from tests.support.network import WORKER
from tests.support.waiting import wait_for

pytestmark = needs_machines
NAMES = ("alpha", "beta")
NETWORK = f"127.202.{WORKER}"
Pair = tuple[Machine, Machine]


@pytest.fixture(scope="module")
def user(make_home: MakeHome) -> User:
    return User.of(make_home())


@pytest.fixture(scope="module")
def machines(
    user: User, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    """Two machines that the user knows by names of an OpenSSH configuration."""
    authorized, cache = public_key(user.ssh / "id_ed25519"), filled(request)
    first, second = (
        Machine(name, tmp_path_factory.mktemp(name), f"{NETWORK}.{n}", 2200 + n, authorized, cache)
        for n, name in enumerate(NAMES, start=1)
    )
    with (user.ssh / "config").open("a") as config:
        for machine in (first, second):
            config.write(f"Host {machine.name}\n  HostName {machine.address}\n  Port {machine.port}\n")
    with started(first, second):
        user.knows(first.known_line(), second.known_line())
        lines = (f"{each.name} address={each.address} # mine\n" for each in (first, second))
        (user.cwd / "hosts").write_text("".join(lines))
        yield first, second


@pytest.fixture(scope="module")
def cluster(user: User, machines: Pair) -> LocalCluster:
    """Up.  Addresses are told, because every loopback address is reached from the same one."""
    del machines
    (user.cwd / "squares.py").write_text(SQUARES)
    cluster = LocalCluster(user, "mine")
    cluster.well("up", "--provider", "hosts", "--hosts", "./hosts", "--trust-network", "127.0.0.0/8")
    return cluster


def test_a_second_up_names_nothing_and_changes_nothing(cluster: LocalCluster, machines: Pair) -> None:
    before = [each.processes() for each in machines]
    again = cluster.well("up", "--json").result
    assert (again["provider"], again["changed"], again["started"]) == ("hosts", [], 0)
    assert [node["label"] for node in again["nodes"]] == list(NAMES)
    assert [each.processes() for each in machines] == before


def test_a_run_uses_every_machine_and_comes_home(cluster: LocalCluster) -> None:
    out = cluster.run("squares.py")
    assert (out / "stdout.log").read_text().split() == [str(x * x) for x in range(20)]
    rows = json.loads((out / "points.json").read_text())
    assert {row["node"] for row in rows} == {"node-1", "node-2"}


def test_status_and_exec_tell_the_machines_apart(cluster: LocalCluster) -> None:
    cluster.await_governors(2)
    status = cluster.well("status", "--check", "--json").result
    assert [(node["label"], node["state"]) for node in status["nodes"]] == [(name, "ready") for name in NAMES]
    assert cluster.well("exec", "--", "hostname").stdout == "node-1 | alpha\nnode-2 | beta\n"
    spoken = cluster.well("ssh", "2", "--", "hostname").stdout  # as the system's ssh shows it
    assert spoken == "Welcome to beta\nbeta\n"


def test_a_machine_that_another_cluster_uses_is_refused(cluster: LocalCluster, machines: Pair) -> None:
    before = [each.processes() for each in machines]
    trusting = ("--provider", "hosts", "--hosts", "./hosts", "--trust-network", "127.0.0.0/8")
    refused = LocalCluster(cluster.line, "second")("up", *trusting, "--json")
    assert (refused.exit_code, cluster.id in refused.error["message"]) == (10, True)
    assert [each.processes() for each in machines] == before
    assert [each["name"] for each in cluster.line.clusters()] == [cluster.name]


def runs_on(machine: Machine) -> list[str]:
    return [file for file in machine.left() if "/runs/" in file]


def test_another_machine_at_a_known_address_stops_every_verb_before_it_does_anything(
    cluster: LocalCluster, machines: Pair, tmp_path: Path
) -> None:
    first, second = machines
    second.stop()
    second.start(key="other_key")
    before = first.settled(), runs_on(first)
    try:
        for verb, *words in (
            ("up",),
            ("run", "squares.py"),
            ("exec", "--", "touch", str(tmp_path / "touched")),
            ("push", "squares.py", f"{tmp_path}/pushed"),
            ("ssh", "2", "--", "touch", str(tmp_path / "touched")),
            ("status",),
            ("down",),
        ):
            told = cluster(verb, *words)
            assert told.exit_code == 31, (verb, told)
            assert f"node-2 (beta): the host key at {NETWORK}.2 port 2202 has changed" in told.stderr
        assert (first.processes(), runs_on(first)) == before
        assert list(tmp_path.iterdir()) == []
    finally:
        second.stop()
        second.start()


def test_up_heals_a_machine_that_was_restarted(cluster: LocalCluster, machines: Pair) -> None:
    """The test before has ended all that ran on the second one."""
    first, second = machines
    before = first.settled()
    assert second.processes() == []
    assert cluster("status", "--check").exit_code == 3
    assert cluster.well("up", "--json").result["changed"] == ["node-2: started governor"]
    assert cluster.well("status", "--json").result["governors"] == 2
    assert first.processes() == before, "a healthy node is not touched"


def test_down_does_not_claim_what_it_cannot_see(cluster: LocalCluster, machines: Pair) -> None:
    machines[1].stop()
    told = cluster("down", "--json")
    assert (told.exit_code, told.error["node"]) == (61, "node-2")
    assert "rain-deploy down -c mine --forget node-2" in told.error["next"]
    assert [line["name"] for line in cluster.line.clusters()] == ["mine"]
    machines[1].start()


def killed_on_its_way(user: User, machine: Machine) -> None:
    """A command that had just brought its files there, and whose step goes on without it."""
    step = Step("long", act="sleep 321")
    command = stage_command(Stage("ship", (step,), (PayloadFile("run/env.json", b"{}"),)), str(machine.place))
    options = ("-F", str(user.ssh / "config"), "-o", f"UserKnownHostsFile={user.ssh}/known_hosts")
    with subprocess.Popen(["ssh", *options, machine.name, command.line()], stdin=subprocess.PIPE) as ssh:
        assert ssh.stdin
        ssh.stdin.write(command.stdin or b"")
        ssh.stdin.close()
        wait_for(lambda: "sleep 321 " in machine.processes())
        ssh.kill()


def test_down_leaves_nothing_but_caches(cluster: LocalCluster, user: User, machines: Pair) -> None:
    for machine in machines:
        killed_on_its_way(user, machine)
    told = cluster.well("down", "--json").result
    for number, machine in enumerate(machines, start=1):
        assert machine.left() == []
        assert machine.processes() == []
        assert [*(machine.base / "tmp").iterdir()] == []
        looked = [line for line in told["certificate"] if line.startswith(f"node-{number}: no ")]
        assert len(looked) == 4, "processes, ports, files of the cluster, files of commands"
    assert cluster.well("down").stdout.startswith("cluster mine is not recorded on this machine")
    assert cluster.line.clusters() == []


def test_a_machine_that_the_user_does_not_know_is_not_used(user: User, machines: Pair) -> None:
    before = user.clusters()
    user.knows()
    try:
        told = user("up", "--provider", "hosts", "--hosts", "alpha", "--trust-network", "127.0.0.0/8")
    finally:
        user.knows(*(each.known_line() for each in machines))
    assert told.exit_code == 31
    assert "run `ssh alpha` once" in told.stderr
    assert user.clusters() == before


def test_a_machine_that_was_installed_anew_is_forgotten_by_name(user: User, machines: Pair) -> None:
    first, second = machines
    cluster = LocalCluster(user, "again")
    cluster.well("up", "--provider", "hosts", "--hosts", "./hosts", "--trust-network", "127.0.0.0/8")
    identity = cluster.id
    second.stop()
    second.start(key="other_key")
    try:
        for verb in ("up", "down"):
            told = cluster(verb, "--json")
            assert told.exit_code == 31
            assert "rain-deploy down -c again --forget node-2" in told.error["next"]
        assert cluster("down", "--forget", "node-2").exit_code == 2, "it asks"
        down = cluster.well("down", "--forget", "node-2", "--yes", "--json").result
        (left,) = down["forgotten"]
        assert f"{second.place}/clusters/{identity}" in left
        assert (first.left(), first.processes()) == ([], [])
        assert cluster.line.clusters() == []
    finally:
        second.stop()
        second.start()
