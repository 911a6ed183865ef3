"""Ways in which money or results could be lost on an account, each as a promise that holds."""

from __future__ import annotations

import contextlib
import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rain_deploy.core.money import per_hour_now
from rain_deploy.core.model import Cluster, RunRecord
from tests.faults.matrix import CLUSTER, Account, Home, account, until
from tests.faults.matrix_commands import Commands


@pytest.fixture
def another(tmp_path: Path, commands: Commands) -> Iterator[Account]:
    """A second account of the same person."""
    (tmp_path / "another").mkdir()
    with account(tmp_path / "another", commands) as made:
        yield made


def cluster_of(home: Home) -> Cluster:
    found = home.store.cluster(CLUSTER)
    assert found is not None
    return found


def power_off(cloud: Account) -> None:
    for vm in cloud.lab.instances():
        if not vm.seeded:
            cloud.lab.machines.stop(vm.id)
            vm.state = "stopped"


def ids(cloud: Account) -> dict[str, str]:
    return {vm.labels["rain-deploy-node"]: vm.id for vm in cloud.lab.instances() if not vm.seeded}


def test_a_machine_that_lived_before_is_not_deleted_because_its_start_failed(cloud: Account, me: Home) -> None:
    me.well("up", "--nodes", "2")
    before = ids(cloud)
    power_off(cloud)
    cloud.lab.faults.outcome("start-instance", "failure", times=1)
    done = me.run("up")
    print(done)
    assert ids(cloud) == before, "its disk has the results"


def test_down_in_another_account_does_not_say_that_all_is_gone(
    cloud: Account, me: Home, another: Account
) -> None:
    me.well("up", "--nodes", "2")
    me.environ |= another.lab.environ()
    done = me.run("down")
    print(done)
    assert done.status != 0
    assert me.store.cluster(CLUSTER) is not None
    made = len(another.creates())
    done = me.run("up")
    print(done)
    assert len(another.creates()) == made


def test_a_replaced_machine_is_asked_for(cloud: Account, me: Home) -> None:
    me.well("up", "--nodes", "2")
    (vm,) = [vm for vm in cloud.lab.instances() if vm.labels.get("rain-deploy-node") == "node-2"]
    old = cluster_of(me).nodes[1]
    with cloud.lab.store.lock:
        cloud.lab.machines.delete(vm.id)
        cloud.lab.store.zones[cloud.lab.zone].instances.pop(vm.id)
    cloud.lab.seed_instance(name="recycler")
    done = me.run("up")
    print(done)
    now = cluster_of(me)
    print(old.host.address, old.cluster_address, now.nodes[1].host.address, now.nodes[1].cluster_address)
    print(now.meters)
    assert now.nodes[1].cluster_address == now.nodes[1].host.address
    assert per_hour_now(now.meters) == pytest.approx(2 * 0.04946)


def test_max_cost_given_to_a_living_cluster_holds(cloud: Account, me: Home) -> None:
    me.well("up", "--nodes", "2")
    done = me.well("up", "--max-cost", "0.1")
    print(done)
    assert cluster_of(me).max_cost == 0.1
    assert cluster_of(me).limit_s < time.time() + 4000


def test_partial_machines_after_ctrl_c_are_metered(cloud: Account, me: Home) -> None:
    fault = cloud.lab.faults.hang("create-instance", skip=1)
    running = me.start("up", "--nodes", "2", "--keep-partial")
    until(lambda: len(cloud.lab.log.of("create-instance")) == 2, "sent")
    time.sleep(0.3)
    running.signal(signal.SIGINT)
    time.sleep(0.2)
    fault.release()
    done = running.wait()
    print(done)
    assert per_hour_now(cluster_of(me).meters) == pytest.approx(2 * 0.04946)


def test_an_up_that_goes_on_with_a_partial_one_undoes_what_it_made_itself(cloud: Account, me: Home) -> None:
    cloud.lab.faults.outcome("create-instance", "failure", reason="fault", times=None)
    done = me.run("up", "--nodes", "1", "--keep-partial")
    print(done)
    cloud.lab.faults.clear()
    print(cloud.ours())
    cloud.lab.faults.status("create-instance", 400, "Quota exceeded: instance limit reached", skip=2)
    done = me.run("up", "--nodes", "4")
    print(done)
    print(cloud.ours("instance"))
    assert len(cloud.ours("instance")) <= 1


def test_extend_then_up_of_stopped(cloud: Account, me: Home) -> None:
    me.well("up", "--nodes", "1", "--ttl", "1h")
    power_off(cloud)
    print(me.run("extend", "3h"))
    print(me.run("up"))


def test_killed_twice(cloud: Account, me: Home) -> None:
    cloud.lab.faults.hang("create-instance")
    running = me.start("up", "--nodes", "1")
    until(lambda: len(cloud.lab.log.of("create-instance")) == 1, "sent")
    running.signal(signal.SIGKILL)
    running.wait()
    cloud.lab.faults.clear()
    cloud.wait_until_quiet()
