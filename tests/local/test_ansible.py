"""Ansible's role makes what ``up`` makes: on two OpenSSH servers in namespaces of their own."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from rain_deploy.providers.keys import public_key
from tests.local.ansible import ANSIBLE, INVENTORY, Played, play
from tests.local.command_line import LocalCluster
from tests.local.conftest import MakeHome
from tests.local.machines import Machine, User, filled, needs_machines, started
from tests.local.scripts import SQUARES, WAITS
from tests.support.network import WORKER
from tests.support.results import verify
from tests.support.waiting import wait_for

pytestmark = [*needs_machines, pytest.mark.timeout(900)]
NETWORK = f"127.203.{WORKER}"
TRUSTED = ("-e", '{"rain_node_trust_network": ["127.0.0.0/8"]}')


@dataclass(frozen=True)
class Controller:
    """Somebody who plays, with an inventory of two machines."""

    user: User
    inventory: Path

    def play(self, book: str, *words: str, inventory: Path | None = None) -> Played:
        return self.ansible("ansible-playbook", str(ANSIBLE / book), *words, inventory=inventory)

    def ansible(self, program: str, *words: str, inventory: Path | None = None) -> Played:
        return play(self.user, program, *words, inventory=inventory or self.inventory)


Pair = tuple[Machine, Machine]


@pytest.fixture(scope="module")
def user(make_home: MakeHome) -> User:
    return User.of(make_home())


@pytest.fixture(scope="module")
def machines(
    user: User, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    authorized, cache = public_key(user.ssh / "id_ed25519"), filled(request)
    first, second = (
        Machine(name, tmp_path_factory.mktemp(name), f"{NETWORK}.{n}", 2200 + n, authorized, cache)
        for n, name in enumerate(("alpha", "beta"), start=1)
    )
    with started(first, second):
        user.knows(first.known_line(), second.known_line())
        yield first, second


@pytest.fixture(scope="module")
def controller(user: User, machines: Pair) -> Controller:
    return Controller(user, written(user, *machines))


def written(user: User, *machines: Machine) -> Path:
    """An inventory file of the machines, as the user writes it."""
    ssh = f"-F /dev/null -o UserKnownHostsFile={user.ssh}/known_hosts -o StrictHostKeyChecking=yes"
    hosts = {
        machine.name: {
            "ansible_host": machine.address,
            "ansible_port": machine.port,
            "ansible_user": machine.entry.partition("@")[0],
            "ansible_ssh_private_key_file": str(user.ssh / "id_ed25519"),
            "ansible_ssh_common_args": ssh,
            "rain_node_address": machine.address,
        }
        for machine in machines
    }
    inventory = user.cwd / "inventory.json"
    inventory.write_text(json.dumps({"rain": {"hosts": hosts}}))
    return inventory


def test_a_check_on_fresh_hosts_changes_nothing(controller: Controller, machines: Pair) -> None:
    played = controller.play("site.yml", "--check", "--diff", *TRUSTED)
    assert played.changed() > 0
    assert all(machine.left() == [] and machine.processes() == [] for machine in machines)
    assert controller.user.clusters() == []


def test_the_first_play_makes_a_cluster_and_the_second_changes_nothing(
    controller: Controller, machines: Pair
) -> None:
    first = controller.play("site.yml", *TRUSTED)
    assert first.changed() > 0, first.out
    assert all(counts["failed"] == 0 for counts in first.recap().values())
    second = controller.play("site.yml", *TRUSTED)
    assert second.changed() == 0, second.out


def test_up_has_nothing_to_do_after_a_play_and_a_run_comes_home(controller: Controller) -> None:
    cluster = LocalCluster(controller.user, "default")
    again = cluster.well("up", "--provider", "hosts", "--json").result
    assert (again["changed"], again["started"]) == ([], 0)
    (controller.user.cwd / "squares.py").write_text(SQUARES)
    out = cluster.run("squares.py")
    rows = json.loads((out / "points.json").read_text())
    assert {row["node"] for row in rows} == {"node-1", "node-2"}


def test_a_changed_variable_is_configured_on_every_node_and_then_nothing_more(
    controller: Controller, machines: Pair
) -> None:
    words = (*TRUSTED, "-e", "rain_node_cpus_per_node=1")
    played = controller.play("site.yml", *words)
    assert all(counts["changed"] > 0 for counts in played.recap().values()), played.out
    for machine in machines:
        (config,) = machine.base.glob("clusters/*/nodes/*/node.json")
        assert json.loads(config.read_text())["cpus"] == 1
    assert controller.play("site.yml", *words).changed() == 0


def test_a_killed_service_is_started_by_the_next_play(controller: Controller, machines: Pair) -> None:
    machines[1].stop()
    machines[1].start()
    checked = controller.play("site.yml", "--check", *TRUSTED)
    assert checked.changed() > 0
    assert machines[1].processes() == []
    played = controller.play("site.yml", *TRUSTED)
    assert played.recap()["beta"]["changed"] > 0
    assert controller.play("site.yml", *TRUSTED).changed() == 0


def test_the_inventory_of_a_cluster_reaches_every_node(controller: Controller) -> None:
    pinged = controller.ansible("ansible", "all", "-m", "ping", inventory=INVENTORY)
    assert pinged.reached() == ["default-node-1", "default-node-2"]
    assert controller.play("site.yml", inventory=INVENTORY).changed() == 0


def test_the_inventory_lets_nobody_else_answer(controller: Controller, machines: Pair) -> None:
    machines[1].stop()
    machines[1].start(key="other_key")
    try:
        pinged = controller.ansible("ansible", "all", "-m", "ping", inventory=INVENTORY)
        assert "default-node-2 | UNREACHABLE" in pinged.out
        assert "Host key verification failed" in pinged.out
    finally:
        machines[1].stop()
        machines[1].start()


@pytest.mark.parametrize("how", ["reordered", "one left out", "limited", "one more"])
def test_down_refuses_other_hosts_than_the_cluster_has(
    controller: Controller, machines: Pair, how: str, tmp_path: Path
) -> None:
    before = [machines[0].settled(), machines[1].processes()]
    hosts = dict(json.loads(controller.inventory.read_text())["rain"]["hosts"].items())
    if how == "reordered":
        hosts = dict(reversed(hosts.items()))
    elif how == "one left out":
        hosts.pop("alpha")
    elif how == "one more":
        hosts["gamma"] = hosts["beta"] | {"ansible_port": 2299}
    other = tmp_path / "inventory.json"
    other.write_text(json.dumps({"rain": {"hosts": hosts}}))
    words = ("--limit", "alpha") if how == "limited" else ()
    refused = controller.play("down.yml", *words, inventory=other)
    assert refused.exit_code != 0
    assert ("is not in this play" if how == "limited" else "the play is for") in refused.out
    assert [machine.processes() for machine in machines] == before
    assert [each["name"] for each in controller.user.clusters()] == ["default"]


def test_down_refuses_while_a_run_is_active_and_brings_home_what_has_ended(controller: Controller) -> None:
    cluster = LocalCluster(controller.user, "default")
    go = controller.user.cwd / "go"
    (controller.user.cwd / "waits.py").write_text(WAITS)
    run = cluster.well("run", "--detach", "--json", "waits.py", str(go)).result
    for words in (("--check",), ()):
        refused = controller.play("down.yml", *words)
        assert refused.exit_code != 0
        assert f"run {run['run']} is still active on default; next: rain-deploy cancel" in refused.out
    go.touch()
    wait_for(lambda: cluster.well("runs", "--json").result["runs"][-1]["state"] == "finished")
    assert not (Path(run["results_dir"]) / "manifest.json").exists()


def test_down_leaves_what_rain_deploy_down_leaves(controller: Controller, machines: Pair) -> None:
    cluster = LocalCluster(controller.user, "default")
    results = controller.user.cwd / "results" / cluster.well("runs", "--json").result["runs"][-1]["run"]
    checked = controller.play("down.yml", "--check")
    assert checked.changed() > 0
    assert [each["name"] for each in controller.user.clusters()] == ["default"]
    played = controller.play("down.yml")
    assert played.changed() > 0
    for number, machine in enumerate(machines, start=1):
        assert machine.left() == []
        assert machine.processes() == []
        assert len(re.findall(rf"node-{number}: no ", played.out)) == 4, "processes, ports, files, drafts"
    assert controller.user.clusters() == []
    assert verify(results) == (), "the run that had ended before"
    assert controller.play("down.yml").changed() == 0


def test_after_up_a_play_changes_nothing(controller: Controller, machines: Pair) -> None:
    cluster = LocalCluster(controller.user, "default")
    hosts = ",".join(f"root@{machine.address}:{machine.port}" for machine in machines)
    cluster.well("up", "--provider", "hosts", "--hosts", hosts, "--trust-network", "127.0.0.0/8")
    assert controller.play("site.yml", inventory=INVENTORY).changed() == 0
    cluster.well("down")


@pytest.fixture
def alone(
    make_home: MakeHome, machines: Pair, request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[Controller, Machine]]:
    """A machine without root and without an engine, and a controller that has none either."""
    line, cache = make_home(), tmp_path / "cache"
    for place in (cache, line.home / "cache", line.home / "local/cache"):
        engine = place / "engine"
        if place.is_symlink():
            real = place.resolve()
            place.unlink()
            place.mkdir()
            for each in real.iterdir():
                (place / each.name).symlink_to(each)
            engine.unlink(missing_ok=True)
        engine.mkdir(parents=True)
    for name in ("envs", "uv"):
        (cache / name).symlink_to(filled(request) / name)
    user = User.of(line)
    machine = Machine(
        "solo",
        tmp_path / "solo",
        f"{NETWORK}.3",
        2203,
        public_key(user.ssh / "id_ed25519"),
        cache,
        powerless=True,
    )
    machine.directory.mkdir()
    with started(machine):
        user.knows(machine.known_line())
        yield Controller(user, written(user, machine)), machine


def test_without_root_and_without_an_engine_here_the_server_node_gets_it_and_it_is_kept(
    alone: tuple[Controller, Machine], request: pytest.FixtureRequest
) -> None:
    controller, machine = alone
    engine = next(filled(request).glob("engine/*/rain"))  # there may be older ones
    sha256 = hashlib.sha256(engine.read_bytes()).hexdigest()
    words = ("-e", f"rain_node_engine_url=file://{engine}", "-e", f"rain_node_engine_sha256={sha256}")
    assert controller.play("site.yml", "--check", *words).changed() > 0
    assert machine.left() == []
    assert controller.play("site.yml", *words).changed() > 0
    assert [path.parent.name for path in controller.user.home.glob("cache/engine/*/*/rain")] == [sha256]
    assert controller.play("site.yml", *words).changed() == 0
    assert LocalCluster(controller.user, "default").well("up", "--json").result["changed"] == []
    assert controller.play("down.yml").exit_code == 0
    assert machine.left() == []


def test_the_inventory_reaches_every_node_of_a_local_cluster(shared: LocalCluster) -> None:
    pinged = play(shared.line, "ansible", f"cluster_{shared.name}", "-m", "ping", inventory=INVENTORY)
    assert pinged.reached() == [f"{shared.name}-node-1", f"{shared.name}-node-2"]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (
            ("-e", "rain_node_trustnetwork=127.0.0.0/8"),
            "unknown variable rain_node_trustnetwork; did you mean rain_node_trust_network?",
        ),
        (("-e", '{"rain_node_trust_network": ["127.0.0.0/99"]}'), "trust_network: expected"),
        (("-e", "rain_node_requirements=/nowhere"), "requirements file /nowhere"),
        (("--become",), "leave out become"),
    ],
    ids=["unknown variable", "wrong value", "missing file", "become"],
)
def test_bad_input_fails_in_the_first_task(
    controller: Controller, words: tuple[str, ...], problem: str
) -> None:
    played = controller.play("site.yml", *words)
    assert played.exit_code != 0
    assert problem in played.out
    assert "TASK [rain_node : Check that" not in played.out
    assert controller.user.clusters() == []
