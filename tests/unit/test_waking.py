"""Machines that their limit stopped are started for what is on their disks, and only then."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from rain_deploy.cluster.hosts import BOOT_S, look_at_hosts
from rain_deploy.cluster.power import awake
from rain_deploy.cluster.seen import Seen
from rain_deploy.core.cluster import Bill, Cluster
from rain_deploy.core.events import PointSeen
from rain_deploy.core.machine import Machines
from rain_deploy.core.run import RunRecord
from rain_deploy.core.spec import ClusterSpec
from rain_deploy.errors import HostKeyError, InputError, Unreachable
from rain_deploy.fleet.fanout import MAX_AT_ONCE
from rain_deploy.results.pull import pull
from rain_deploy.verbs.logs import script_log, task_log
from rain_deploy.verbs.results.explain import explain
from rain_deploy.verbs.results.points import points
from tests.support.values import QUOTE
from tests.unit.fake_cloud import World
from tests.unit.test_results_pull import FILES, Node, tar_of


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def pause(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World.at(tmp_path)


def wake(world: World, cluster: Cluster, clock: Clock | None = None, *, everyone: bool = False) -> Cluster:
    clock = clock or Clock()
    nodes = cluster.nodes if everyone else (cluster.server,)
    return awake(replace(world.ctx, clock=clock, pause=clock.pause), cluster, nodes)


def test_nobody_asks_the_cloud_while_the_node_answers(world: World) -> None:
    cluster = world.cluster()
    assert wake(world, cluster) == cluster
    assert world.cloud.calls == []


def test_a_machine_that_is_off_is_started_told_its_limit_and_its_runs_are_over(world: World) -> None:
    cluster = world.cluster(limit_s=time.time() + 3600)
    world.cloud.power_off("node-1")
    wake(world, cluster)
    assert [call for call, _ in world.cloud.calls] == ["survey", "start"]
    assert world.nodes.limit(cluster.server.host.machine) == str(int(cluster.limit_s or 0))
    assert [verb for _, verb in world.nodes.asked][-1] == "interrupted"
    assert (
        "starting node-1 of one, which was powered off; it stays on for 30 min; runs are not resumed"
        in world.told
    )


def test_a_machine_that_may_idle_less_than_half_an_hour_says_so(world: World) -> None:
    cluster = world.cluster(machines=Machines(idle_s=600.0))
    world.cloud.power_off("node-1")
    wake(world, cluster)
    assert "it stays on for 10 min; runs" in world.told
    assert "has passed" not in world.told


def test_only_what_is_wanted_is_started(world: World) -> None:
    cluster = world.cluster()
    for node in cluster.nodes:
        world.cloud.power_off(node.name)
    wake(world, cluster)
    assert [f.state for f in world.cloud.held.values() if f.state].count("running") == 2  # with the group
    wake(world, cluster, everyone=True)
    assert {f.state for f in world.cloud.held.values()} == {"running"}


def test_a_boot_is_waited_for(world: World) -> None:
    cluster, clock = world.cluster(), Clock()
    world.cloud.power_off("node-1")
    world.nodes.boots[cluster.server.host.machine] = 20
    wake(world, cluster, clock)
    assert clock.now_s == pytest.approx(20)


def test_a_boot_that_never_ends_is_not_waited_for_for_ever(world: World) -> None:
    cluster, clock = world.cluster(), Clock()
    world.cloud.power_off("node-1")
    world.nodes.boots[cluster.server.host.machine] = 10_000
    with pytest.raises(Unreachable):
        wake(world, cluster, clock)
    assert clock.now_s == pytest.approx(BOOT_S, abs=5)


def test_more_machines_than_are_asked_at_once_are_waited_for_as_long_as_one(world: World) -> None:
    cluster, clock = world.cluster(nodes=MAX_AT_ONCE + 6), Clock()
    for node in cluster.nodes:
        world.cloud.power_off(node.name)
        world.nodes.boots[node.host.machine] = 10_000
    with pytest.raises(Unreachable):
        wake(world, cluster, clock, everyone=True)
    assert clock.now_s < BOOT_S + len(cluster.nodes)
    fresh, clock, spec = replace(cluster, up=False), Clock(), ClusterSpec("one", "exoscale", "test")
    resources = world.store.resources(cluster.id)
    seen = Seen(spec, fresh, recorded=True, resources=resources, now_s=0.0)
    with pytest.raises(Unreachable):
        look_at_hosts(replace(world.ctx, clock=clock, pause=clock.pause), seen, fresh, resources)
    assert clock.now_s < BOOT_S + len(cluster.nodes)


def test_another_address_is_recorded_with_the_pinned_key_and_nothing_else(world: World) -> None:
    cluster = world.cluster()
    own_key = replace(cluster.server.host, host_keys=("ssh-ed25519 made-by-the-machine",))
    cluster = replace(cluster, nodes=(replace(cluster.server, host=own_key), *cluster.nodes[1:]))
    world.store.save_cluster(cluster)
    world.cloud.power_off("node-1", address="10.7.7.7")
    world.nodes.strangers.add(cluster.server.host.address)
    woken = wake(world, replace(cluster, base="/of the caller"))
    assert woken.base == "/of the caller"
    recorded = world.store.cluster("one")
    assert recorded is not None
    for one in (woken, recorded):
        assert (one.server.host.address, one.server.cluster_address) == ("10.7.7.7", "10.7.7.7")
        assert one.server.host.host_keys == own_key.host_keys
        assert one.nodes[1:] == cluster.nodes[1:]
    assert recorded.base == cluster.base


def test_an_impostor_at_a_running_machines_address_is_left_to_the_refusal(world: World) -> None:
    cluster = world.cluster()
    world.nodes.strangers.add(cluster.server.host.address)
    assert wake(world, cluster) == cluster
    assert [call for call, _ in world.cloud.calls] == ["survey"]
    with pytest.raises(HostKeyError):
        world.nodes.connect(cluster.server.host)


def test_a_machine_that_is_gone_is_reported_as_that(world: World) -> None:
    cluster = world.cluster()
    world.cloud.held.pop(("instance", cluster.server.host.machine))
    with pytest.raises(Unreachable, match="gone from the account"):
        wake(world, cluster)


def test_a_cloud_that_does_not_answer_leaves_the_cluster_as_it_is(world: World) -> None:
    cluster = world.cluster()
    world.cloud.power_off("node-1")
    world.cloud.silent = True
    assert wake(world, cluster) == cluster
    assert "it is unknown if node-1 is powered off" in world.told


def test_where_nothing_is_priced_nothing_is_ever_started(world: World) -> None:
    cluster = world.cluster(bill=None)
    world.cloud.power_off("node-1")
    assert wake(world, cluster) == cluster
    assert world.cloud.calls == []


def pulled(world: World, cluster: Cluster, out: Path) -> RunRecord:
    """A run whose results are all here."""
    run = RunRecord("r1", cluster.id, "one", 1, 7231, "s.py", (), "00", 2.5, out, pulled=True)
    pull(Node(tar_of(FILES)), run)
    world.store.save_run(run)
    return run


def become_another(world: World, cluster: Cluster) -> None:
    world.nodes.strangers.add(cluster.server.host.address)


def power_off(world: World, _cluster: Cluster) -> None:
    world.cloud.power_off("node-1")


def made_again(_world: World, _cluster: Cluster) -> None:
    """It answers, and has no such run."""


@pytest.mark.parametrize("becomes", [become_another, power_off, made_again])
@pytest.mark.parametrize("bill", [Bill(QUOTE), None], ids=["rented", "the user's"])
def test_what_is_here_is_read_here_whatever_has_become_of_its_machine(
    world: World, tmp_path: Path, becomes: Callable[[World, Cluster], None], bill: Bill | None
) -> None:
    cluster = world.cluster(bill=bill)
    pulled(world, cluster, tmp_path / "results")
    becomes(world, cluster)
    for follow in (False, True):
        assert script_log(world.ctx, "one", follow=follow).stdout == b"hello\n"
        assert [row.value for row in points(world.ctx, "one", follow=follow).rows] == [0.5]
    assert [event.row.value for event in world.events if isinstance(event, PointSeen)] == [0.5]
    assert task_log(world.ctx, "one", "lr=1").task == "lr=1"
    assert explain(world.ctx, "one", "lr=1").row.value == 0.5
    assert (world.nodes.asked, world.cloud.calls) == ([], [])


def test_what_is_not_here_is_asked_for(world: World, tmp_path: Path) -> None:
    cluster = world.cluster(bill=None)
    run = pulled(world, cluster, tmp_path / "results")
    become_another(world, cluster)
    for other in (replace(run, pulled=False), replace(run, id="r0")):  # the results there are not of r0
        world.store.save_run(other)
        with pytest.raises(HostKeyError):
            script_log(world.ctx, "one", other.id)


def test_of_a_file_that_is_gone_it_is_said_where_it_is(world: World, tmp_path: Path) -> None:
    cluster = world.cluster(bill=None)
    run = pulled(world, cluster, tmp_path / "results")
    (run.out / "stdout.log").unlink()
    cannot = f"{run.out / 'stdout.log'} cannot be read: No such file or directory"
    with pytest.raises(InputError) as caught:
        script_log(world.ctx, "one")
    assert (caught.value.message, caught.value.next_step) == (cannot, "rain-deploy pull r1 -c one")
    world.store.forget_cluster(cluster)
    with pytest.raises(InputError) as caught:
        script_log(world.ctx, "one")
    assert caught.value.message == f"the cluster of run r1 is gone, and {cannot}"
    assert caught.value.next_step == "rain-deploy runs -c one"
