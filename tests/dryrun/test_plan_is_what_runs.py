"""The plan of a machine is, word for word, what its SSH server then receives."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Iterator

import pytest

from rain_deploy.providers.keys import public_key
from rain_deploy.state.store import Store
from tests.local.command_line import LocalCluster
from tests.local.conftest import MakeCluster, MakeHome
from tests.local.machines import Machine, User, filled, needs_machines, network, started
from tests.local.scripts import WAITS
from tests.local.test_wall_netns import pytestmark as needs_filters
from tests.support.framed import command_of

ADDRESSES = {"noted": "10.202.1.1", "laptop": "10.202.1.8"}


@pytest.fixture(scope="module")
def machine(
    make_home: MakeHome, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[User, Machine]]:
    """One that notes every command, and who knows it."""
    cache = filled(request)
    with network(f"rd202p-{os.getpid()}", ADDRESSES) as inside:
        user = User.of(make_home(), inside["laptop"])
        machine = Machine(
            name="noted",
            directory=tmp_path_factory.mktemp("noted"),
            address=ADDRESSES["noted"],
            port=2201,
            authorized=public_key(user.ssh / "id_ed25519"),
            cache=cache,
            prefix=inside["noted"],
            logging=True,
        )
        with started(machine):
            user.knows(machine.known_line())
            yield user, machine


def commands(machine: Machine) -> list[str]:
    """What its server has received since it was last asked."""
    log = machine.directory / "commands.jsonl"
    text = log.read_text() if log.exists() else ""
    lines = [command_of(json.loads(line)["command"]) for line in text.splitlines()]
    log.unlink(missing_ok=True)
    return lines


def apply_marks(test: Callable[..., None]) -> Callable[..., None]:
    """What machines of their own need."""
    for mark in (*needs_machines, *needs_filters):
        test = mark(test)
    return test


def up(cluster: LocalCluster, machine: Machine) -> list[str]:
    """Print the plan, do it, and compare word for word; the names of its stages."""
    words = ("--provider", "hosts", "--hosts", machine.entry)
    plan = cluster.well("up", "--dry-run", "--json", *words).result
    assert commands(machine) == [], "a plan sends nothing"
    assert plan["facts"] == "from state"
    (host,) = plan["hosts"]
    cluster.well("up", *words)
    assert commands(machine) == [stage["command"] for stage in host["stages"]]
    return [stage["stage"] for stage in host["stages"]]


@pytest.fixture(scope="module")
def cluster(machine: tuple[User, Machine]) -> LocalCluster:
    """One that was up and is down: its facts are in state."""
    user, noted = machine
    cluster = LocalCluster(user, "planned")
    cluster.well("up", "--provider", "hosts", "--hosts", noted.entry)
    cluster.well("down")
    commands(noted)
    return cluster


@apply_marks
def test_on_a_machine_that_has_everything(cluster: LocalCluster, machine: tuple[User, Machine]) -> None:
    assert up(cluster, machine[1]) == ["facts", "wall", "start"]
    assert up(cluster, machine[1]) == ["facts", "wall"], "it is as it should be"
    cluster.well("down")


@apply_marks
def test_on_a_machine_that_lacks_our_code(cluster: LocalCluster, machine: tuple[User, Machine]) -> None:
    user, noted = machine
    cluster.well("up", "--provider", "hosts", "--hosts", noted.entry)
    store = Store(user.home)
    node = next(one for known in store.clusters() for one in known.nodes)
    cluster.well("down")
    commands(noted)
    assert node.facts is not None
    shutil.rmtree(noted.base / "cache/code")
    have = tuple(path for path in node.facts.have if "/cache/code/" not in path)
    store.save_facts(dataclasses.replace(node, facts=dataclasses.replace(node.facts, have=have)))
    assert up(cluster, noted) == ["facts", "install", "wall", "start"]
    cluster.well("down")


@apply_marks
def test_what_an_earlier_cluster_did_there_does_not_count(
    cluster: LocalCluster, machine: tuple[User, Machine]
) -> None:
    user, noted = machine
    (user.cwd / "waits.py").write_text(WAITS)
    words = ("--provider", "hosts", "--hosts", noted.entry)
    cluster.well("up", *words)
    cluster.well("run", "--detach", "waits.py", "never")
    cluster.well("up", *words)  # notes that a run is active and that services run
    cluster.well("down", "--yes", "--discard-results")
    commands(noted)
    assert up(cluster, noted) == ["facts", "wall", "start"]
    cluster.well("down")


@pytest.mark.smoke
def test_on_living_local_nodes(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(2)
    for flags, wanted in (
        ((), {1: ["facts"], 2: ["facts"]}),
        (("--cpus-per-node", "3"), {1: ["facts", "start"], 2: ["facts", "start"]}),
    ):
        plan = cluster.well("up", "--dry-run", "--json", *flags).result
        planned = {int(host["host"][-1]): host["stages"] for host in plan["hosts"]}
        assert {node: [stage["stage"] for stage in stages] for node, stages in planned.items()} == wanted
        before = {node: len(cluster.commands(node)) for node in planned}
        cluster.well("up", *flags)
        received = {node: cluster.commands(node)[before[node] :] for node in planned}
        assert received == {node: [stage["command"] for stage in stages] for node, stages in planned.items()}
    cluster.well("down")
