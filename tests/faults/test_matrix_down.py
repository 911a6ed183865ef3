"""Rows 65 to 71 of the fault matrix: what can go wrong while ``down`` takes a cluster away."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rain_deploy.core.run import RunRecord
from tests.faults.account import CLUSTER, Account, Home, until
from tests.faults.commands import HASTE, Running
from tests.faults.taught_transport import teach
from tests.lab.log import Request

RUN = "job-1"


@pytest.fixture
def me(cloud: Account) -> Home:
    """With a cluster of two nodes."""
    home = cloud.home()
    home.well("up", "--nodes", "2")
    cloud.lab.log.clear()
    return home


@pytest.fixture
def ran(me: Home, cloud: Account, tmp_path: Path) -> Home:
    """Whose cluster holds the results of a run that has ended."""
    cluster = me.store.cluster(CLUSTER)
    assert cluster
    me.store.add_run(
        lambda sequence: RunRecord(
            id=RUN,
            cluster_id=cluster.id,
            cluster=CLUSTER,
            sequence=sequence,
            port=7230,
            script="job.py",
            args=(),
            script_sha256="",
            created_s=time.time(),
            out=tmp_path / "results",
        )
    )
    teach(cloud.machines, "runs", [{"run": RUN, "state": "finished", "outcome": "done", "exit_code": 0}])
    teach(cloud.machines, "pack", None)
    return me


def of_node(cloud: Account, node: str) -> Callable[[Request], bool]:
    """Whether a request is about the node's machine."""
    identity = cloud.vm(node).id
    return lambda request: identity in request.path


# ---- 65: results


def test_row_65_results_that_cannot_be_pulled_keep_the_cluster(ran: Home, cloud: Account) -> None:
    done = ran.ends(50, "down")
    assert "--discard-results" in done.err
    assert cloud.lab.log.changes == []
    assert ran.nodes() == ["node-1", "node-2"]
    ran.well("down", "--discard-results")
    assert cloud.ours() == []


def test_row_65_results_on_a_node_that_does_not_answer_keep_the_cluster(ran: Home, cloud: Account) -> None:
    (cloud.machines / cloud.vm("node-1").address).rename(cloud.machines / "away")
    assert "--discard-results" in ran.ends(50, "down").err
    (cloud.machines / "away").rename(cloud.machines / cloud.vm("node-1").address)
    assert ran.nodes() == ["node-1", "node-2"]
    ran.well("down", "--discard-results")
    assert cloud.ours() == []


# ---- 66 to 69: what does not go


@pytest.mark.parametrize("state", ["success", "pending", "failure"])
def test_row_66_a_machine_that_stays_after_its_delete_stays_on_record(
    state: str, me: Home, cloud: Account
) -> None:
    cloud.lab.faults.outcome(
        "delete-instance", state, effect="none", times=None, match=of_node(cloud, "node-1")
    )
    assert "node-1" in me.ends(60, "down").err
    assert me.nodes() == ["node-1"]
    cluster = me.store.cluster(CLUSTER)
    assert cluster
    assert "node-1" in {ref.name for ref in me.store.resources(cluster.id)}
    me.goes_down()


def test_row_67_a_delete_that_is_refused_for_now_is_sent_again(me: Home, cloud: Account) -> None:
    faults = cloud.lab.faults
    planted = [
        faults.status("delete-instance", 409, "The instance is busy", times=2),
        faults.status("delete-instance", 503, times=2, skip=2),
        faults.status("delete-instance", 429, retry_after="5", skip=4),
        faults.cut("delete-security-group", committed=True),
        faults.html("delete-ssh-key"),
    ]
    me.well("down")
    assert [fault.struck for fault in planted] == [2, 2, 1, 1, 1]
    assert cloud.ours() == []


def test_row_67_one_delete_that_never_works_does_not_keep_the_others(me: Home, cloud: Account) -> None:
    cloud.lab.faults.status("delete-instance", 503, times=None, match=of_node(cloud, "node-1"))
    assert "node-1" in me.ends(60, "down").err
    assert me.nodes() == ["node-1"]
    me.goes_down()


@pytest.mark.parametrize("kind", ["instance", "everything"])
def test_row_68_what_was_deleted_by_console_is_done(kind: str, me: Home, cloud: Account) -> None:
    cloud.delete_by_console(everything=kind == "everything")
    me.goes_down()


def test_row_69_a_protected_machine_is_reported_and_the_others_go(me: Home, cloud: Account) -> None:
    cloud.vm("node-1").protected = True
    done = me.ends(60, "down")
    lifts = f"exo compute instance update {cloud.vm('node-1').id} --zone {cloud.lab.zone} --protection=false"
    assert "protected" in done.err
    assert lifts in " ".join(done.err.split())
    assert me.nodes() == ["node-1"]
    cloud.vm("node-1").protected = False
    me.goes_down()


@pytest.mark.parametrize("status", [409, 412])
def test_row_69_a_group_goes_once_its_machines_have_left_it(status: int, me: Home, cloud: Account) -> None:
    cloud.lab.faults.group_in_use_s, cloud.lab.faults.group_in_use_status = 180 / HASTE, status
    me.deadlines["operation_s"] = 600.0  # as in the product: longer than the group is in use
    me.goes_down()
    kinds = [each.operation for each in cloud.lab.log.changes if each.status == 200]
    assert kinds == ["delete-instance", "delete-instance", "delete-security-group", "delete-ssh-key"]
    assert any(each.status == status for each in cloud.lab.log.of("delete-security-group"))


# ---- 70 and 71: down is interrupted, or finds no state


def in_delete(cloud: Account, home: Home) -> Running:
    """A ``down`` with a delete in flight, which is answered when the lab's faults are cleared."""
    cloud.lab.faults.hang("delete-instance", committed=True)
    running = home.start("down")
    until(lambda: bool(cloud.lab.log.of("delete-instance")), "a delete is sent")
    return running


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_row_70_an_interrupted_down_is_resumed_by_the_next(
    number: int, status: int, me: Home, cloud: Account
) -> None:
    running = in_delete(cloud, me)
    running.signal(number)
    cloud.lab.faults.clear()
    done = running.wait()
    assert {each.operation for each in cloud.lab.log.changes} == {"delete-instance"}
    me.check(done, status)
    assert me.store.cluster(CLUSTER)
    me.goes_down()


def test_row_70_a_down_left_by_two_ctrl_c_is_resumed_by_the_next(me: Home, cloud: Account) -> None:
    running = in_delete(cloud, me)
    running.signal(signal.SIGINT)
    running.signal(signal.SIGINT)
    assert running.wait().status == 130
    cloud.lab.faults.clear()
    me.check_in_sight()
    me.goes_down()


def test_row_70_a_killed_down_is_resumed_by_the_next(me: Home, cloud: Account) -> None:
    running = in_delete(cloud, me)
    running.signal(signal.SIGKILL)
    assert running.wait().status == -signal.SIGKILL
    cloud.lab.faults.clear()
    me.check_in_sight()
    me.goes_down()


@pytest.mark.parametrize("lost", ["state file", "laptop"])
def test_row_71_without_the_state_gc_shows_it_first_and_deletes_what_is_named(
    lost: str, me: Home, cloud: Account
) -> None:
    me.well("up", "--nodes", "1", "-c", "another")
    cloud.seed_of_colleague(CLUSTER, expired=True)
    if lost == "laptop":
        here = cloud.home()
    else:
        here = me
        me.lose_state()
    there = cloud.lab.left()
    for words in (("gc",), ("gc", "-c", CLUSTER), ("gc", "--delete")):
        here.well(*words)
        assert cloud.lab.left() == there
    here.well("gc", "--delete", "-c", CLUSTER)
    left = cloud.ours()
    assert not cloud.touched()
    assert [each.labels["rain-deploy-cluster"] for each in left if each.kind == "instance"] == ["c-another"]
    assert sorted(each.kind for each in left) == ["instance", "security-group", "ssh-key"]
    here.well("gc", "--delete", "-c", "another")
    assert cloud.ours() == []


@pytest.mark.parametrize("answers", [True, False])
def test_row_71_without_the_state_down_names_what_is_left_and_deletes_nothing(
    me: Home, cloud: Account, answers: bool
) -> None:
    me.lose_state()
    there = cloud.lab.left()
    if not answers:
        cloud.lab.faults.status("list-instances", 503, times=None)
    done = me.run("down", api_s=2.0)
    assert done.status == 61, str(done)
    assert ("instance node-2" if answers else "unknown what the account has") in done.err
    command = f"gc --delete -c {CLUSTER}" if answers else f"gc -c {CLUSTER}"
    assert f"next: rain-deploy {command}" in done.err
    assert cloud.lab.left() == there
    cloud.lab.faults.clear()
    me.well("gc", "--delete", "-c", CLUSTER)
    assert "no resource of" in me.well("down").out


def test_row_71_without_the_state_what_has_expired_need_not_be_named(me: Home, cloud: Account) -> None:
    me.lose_state()
    for node in ("node-1", "node-2"):
        cloud.vm(node).labels["rain-deploy-expires"] = f"t{int(time.time()) - 60}"
    me.well("gc")
    assert me.nodes() == ["node-1", "node-2"]
    me.well("gc", "--delete")
    assert cloud.ours() == []
