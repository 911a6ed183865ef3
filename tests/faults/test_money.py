"""Ways in which money or results could be lost on an account, each as a promise that holds."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rain_deploy.core.cluster import Bill, Cluster
from rain_deploy.core.run import RunRecord
from tests.faults.account import CLUSTER, Account, Home, account, until
from tests.lab.machines import Instance

PER_HOUR = 0.04946
"""Of one standard.medium with a disk of 20 GiB."""


def bill_of(cluster: Cluster) -> Bill:
    assert cluster.bill is not None
    return cluster.bill


@pytest.fixture
def another(tmp_path: Path) -> Iterator[Account]:
    """A second account of the same person."""
    with account(tmp_path / "another") as made:
        made.seed_foreign()
        yield made


def cluster_of(home: Home) -> Cluster:
    found = home.store.cluster(CLUSTER)
    assert found is not None
    return found


def power_off(cloud: Account) -> None:
    """As the time limit does."""
    for vm in cloud.lab.instances():
        if not vm.seeded:
            cloud.lab.machines.stop(vm.id)
            vm.state = "stopped"


def delete_by_hand(cloud: Account, node: str) -> None:
    """As somebody in the portal does."""
    vm = cloud.vm(node)
    cloud.lab.machines.delete(vm.id)
    with cloud.lab.store.lock:
        cloud.lab.store.zones[cloud.lab.zone].instances.pop(vm.id)


def ids(cloud: Account) -> dict[str, str]:
    return {each.labels["rain-deploy-node"]: each.id for each in cloud.ours("instance")}


def limits_told(home: Home) -> int:
    """How often a time limit was brought to a node."""
    log = home.path / "clusters" / cluster_of(home).id / "install.log"
    return log.read_text().count("== limit: time limit")


def test_a_machine_that_lived_before_is_not_deleted_because_its_start_failed(
    cloud: Account, me: Home
) -> None:
    me.well("up", "--nodes", "2")
    before = ids(cloud)
    power_off(cloud)
    cloud.lab.faults.outcome("start-instance", "failure", reason="fault")
    me.ends(23, "up")
    assert ids(cloud) == before, "results are on its disk"
    me.converges("up", nodes=2)


def test_in_another_account_nothing_is_called_gone_and_nothing_is_made(
    cloud: Account, me: Home, another: Account
) -> None:
    me.well("up", "--nodes", "2")
    mine, theirs = dict(me.environ), another.lab.environ()
    made = len(another.creates())
    for words in (("down",), ("down", "--discard-results"), ("up",)):
        me.environ = mine | theirs
        done = me.run(*words)
        assert done.status == 10, str(done)
        assert "per hour" in done.err, "what costs elsewhere is told"
    assert len(another.creates()) == made
    me.environ = mine
    assert len(cloud.ours("instance")) == 2
    me.goes_down()


def test_another_key_of_the_same_account_is_as_good(cloud: Account, me: Home) -> None:
    me.well("up", "--nodes", "1")
    key, secret = cloud.lab.add_key()
    me.environ = {"EXOSCALE_API_KEY": key, "EXOSCALE_API_SECRET": secret}
    me.converges("up", nodes=1)


def test_a_machine_in_the_place_of_a_deleted_one_is_in_the_plan_has_its_own_address_and_one_meter(
    cloud: Account, me: Home
) -> None:
    me.well("up", "--nodes", "2")
    old = cluster_of(me).nodes[1]
    delete_by_hand(cloud, "node-2")
    recycled = cloud.lab.machines.create(Instance("x", "x"))  # the old address is another's now
    assert "instance node-2" in me.well("up", "--dry-run").out
    done = me.well("up")
    assert "1 x standard.medium" in done.err, "it was asked for"
    now = cluster_of(me)
    assert old.cluster_address == recycled
    assert now.nodes[1].cluster_address == now.nodes[1].host.address != recycled
    assert bill_of(now).per_hour == pytest.approx(2 * PER_HOUR)


def test_a_sum_that_is_named_for_a_living_cluster_limits_it(cloud: Account, me: Home) -> None:
    me.well("up", "--nodes", "2")
    told = limits_told(me)
    me.well("up", "--max-cost", "0.1")
    limit_s = cluster_of(me).limit_s or 0.0
    assert limit_s == pytest.approx(time.time() + 0.1 / (2 * PER_HOUR) * 3600, abs=60)
    assert {int(each.labels["rain-deploy-expires"][1:]) for each in cloud.ours("instance")} == {int(limit_s)}
    assert limits_told(me) == told + 2


def test_a_limit_that_was_moved_while_machines_were_off_is_reported_when_up_starts_them(
    cloud: Account, me: Home
) -> None:
    me.well("up", "--nodes", "1", "--ttl", "1h")
    power_off(cloud)
    me.well("extend", "3h")
    told = limits_told(me)
    me.well("up")
    assert limits_told(me) > told


def test_an_up_of_an_expired_cluster_that_failed_leaves_the_limit_as_it_is_on_its_machines(
    cloud: Account, me: Home
) -> None:
    me.well("up", "--nodes", "1")
    first = cluster_of(me).limit_s
    cloud.lab.faults.status("create-instance", 400, "no", times=None)
    me.ends(10, "up", "--nodes", "2", "--max-cost", "0.2")
    assert cluster_of(me).limit_s == first
    assert bill_of(cluster_of(me)).max_cost is None


def test_machines_that_stay_after_ctrl_c_are_metered(cloud: Account, me: Home) -> None:
    fault = cloud.lab.faults.hang("create-instance", times=2)
    running = me.start("up", "--nodes", "2", "--keep-partial")
    until(lambda: len(cloud.lab.log.of("create-instance")) == 2, "both creates are sent")
    running.signal(signal.SIGINT)
    fault.release()
    assert running.wait().status == 130
    assert bill_of(cluster_of(me)).per_hour == pytest.approx(2 * PER_HOUR)


def test_an_up_that_goes_on_where_one_was_broken_off_undoes_what_it_made_itself(
    cloud: Account, me: Home
) -> None:
    cloud.lab.faults.status("create-instance", 400, "no", skip=1, times=None)
    done = me.run("up", "--nodes", "2", "--keep-partial")
    assert done.status == 10, str(done)
    (kept,) = cloud.ours("instance")
    cloud.lab.faults.clear()
    cloud.lab.faults.status("create-instance", 400, "no", skip=1, times=None)
    me.ends(10, "up", "--nodes", "4")
    assert cloud.ours("instance") == [kept]
    me.converges("up", "--nodes", "2", nodes=2)


def test_a_create_that_is_sent_again_is_waited_for_from_then_on(cloud: Account, me: Home) -> None:
    """Killed twice: lists that do not show the second create yet must not lead to a third."""
    cloud.lab.faults.hang("create-instance", times=2)
    for number in (1, 2):
        running = me.start("up", "--nodes", "1", settle_s=1.0)
        until(lambda number=number: len(cloud.lab.log.of("create-instance")) == number, "it is sent")  # type: ignore[misc]
        running.signal(signal.SIGKILL)
        running.wait()
        (intent,) = [ref for ref in me.store.resources(cluster_of(me).id) if ref.name == "node-1"]
        assert intent.recorded_s == pytest.approx(cloud.lab.log.of("create-instance")[-1].began_s, abs=2)
        time.sleep(2.5)
    cloud.lab.faults.clear()
    cloud.wait_until_quiet()
    me.goes_down()


def test_a_node_whose_create_had_no_outcome_is_deleted_by_scale(cloud: Account, me: Home) -> None:
    me.well("up", "--nodes", "1")
    cloud.lab.faults.list_lag_s["list-instances"] = 30.0
    cloud.lab.faults.cut("create-instance", committed=True, times=None)
    me.well("up", "--nodes", "2", "--min-nodes", "1", api_s=5.0, settle_s=10.0)
    cloud.lab.faults.list_lag_s.clear()
    cloud.lab.faults.clear()
    assert len(cloud.ours("instance")) >= 2
    me.well("scale", "1")
    assert me.nodes() == ["node-1"]
    me.goes_down()


def test_where_a_machine_is_gone_the_others_their_labels_and_the_record_agree_on_a_moved_limit(
    cloud: Account, me: Home
) -> None:
    me.well("up", "--nodes", "2", "--ttl", "1h")
    first = cluster_of(me).limit_s or 0.0
    delete_by_hand(cloud, "node-2")
    assert me.run("extend", "5h").status == 23
    limit_s = cluster_of(me).limit_s or 0.0
    assert limit_s == pytest.approx(first + 5 * 3600, abs=1)
    assert cloud.vm("node-1").labels["rain-deploy-expires"] == f"t{int(limit_s)}"


def test_down_goes_on_where_the_machine_with_the_results_is_gone_and_says_so(
    cloud: Account, me: Home
) -> None:
    me.well("up", "--nodes", "2")
    cluster = cluster_of(me)
    run = RunRecord("r1", cluster.id, cluster.name, 1, 7230, "x.py", (), "", time.time(), me.path / "out")
    me.store.save_run(run)
    delete_by_hand(cloud, "node-1")
    done = me.well("down")
    assert "not pulled: r1: node-1: its machine is gone from the account" in done.err
    assert cloud.ours() == []
