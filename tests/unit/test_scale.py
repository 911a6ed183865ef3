"""scale: the highest nodes go, those that stay are not touched by a failure."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from rain_deploy.core.cluster import Bill
from rain_deploy.core.spec import ClusterSpec
from rain_deploy.errors import DownIncomplete, InputError, Locked
from rain_deploy.verbs.scale import ScaleResult, scale
from tests.support.values import QUOTE
from tests.unit.fake_cloud import World

HOUR_S = 3600.0


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World.at(tmp_path)
    world.nodes.said["runs"] = []
    return world


def to(world: World, n: int) -> ScaleResult:
    return scale(world.ctx, ClusterSpec("one", "exoscale", "test"), n)


def recorded(world: World) -> list[str]:
    cluster = world.store.cluster("one")
    assert cluster is not None
    assert cluster.left_out == ()
    return [node.name for node in cluster.nodes]


def test_the_highest_nodes_go_and_cost_nothing_from_then_on(world: World) -> None:
    before = world.cluster(nodes=4)
    result = to(world, 2)
    assert (result.before, result.after, result.removed, result.added) == (4, 2, ("node-3", "node-4"), ())
    assert world.names() == ["node-1", "node-2"]
    assert recorded(world) == ["node-1", "node-2"]
    assert [r.name for r in world.store.resources(before.id)] == ["group", "node-1", "node-2"]
    cluster = world.store.cluster("one")
    assert cluster is not None
    assert [meter.until_s is None for meter in (cluster.bill or Bill(QUOTE)).meters] == [
        True,
        True,
        False,
        False,
    ]
    assert (result.per_hour, result.currency, result.limit_s) == (2.0, "CHF", cluster.limit_s)


def test_the_same_size_changes_nothing(world: World) -> None:
    world.cluster(nodes=2)
    result = to(world, 2)
    assert (result.added, result.removed, result.after) == ((), (), 2)
    assert world.cloud.calls == [("survey", "")], "it looks"
    assert world.nodes.asked == []


@pytest.mark.parametrize("state", ["running", "queued", "starting"])
def test_no_node_goes_while_a_run_would_lose_it(world: World, state: str) -> None:
    world.cluster(nodes=3)
    world.nodes.said["runs"] = [{"run": "r1", "state": state}, {"run": "r0", "state": "finished"}]
    with pytest.raises(InputError, match="r1 is not finished") as caught:
        to(world, 2)
    assert caught.value.next_step == "rain-deploy cancel r1 -c one"
    assert len(world.names()) == len(recorded(world)) == 3


def test_a_node_that_cannot_be_deleted_is_reported_and_the_next_scale_ends_it(world: World) -> None:
    before = world.cluster(nodes=3)
    stuck = before.nodes[2].host.machine
    world.cloud.refused["instance", stuck] = DownIncomplete("it is protected")
    with pytest.raises(DownIncomplete, match="it is protected") as caught:
        to(world, 1)
    assert (caught.value.still_running, caught.value.next_step) == ("node-3", "rain-deploy scale 1 -c one")
    cluster = world.store.cluster("one")
    assert cluster is not None
    assert [node.name for node in cluster.nodes] == ["node-1"]
    assert [node.name for node in cluster.left_out] == ["node-3"]
    assert [m.name for m in (cluster.bill or Bill(QUOTE)).meters if m.until_s is None] == [
        "node-1",
        "node-3",
    ], "it costs"
    world.cloud.refused.clear()
    to(world, 1)
    assert world.names() == recorded(world) == ["node-1"]


def test_a_machine_that_is_off_or_gone_hinders_nothing(world: World) -> None:
    before = world.cluster(nodes=4)
    world.cloud.power_off("node-3")
    world.cloud.held.pop(("instance", before.nodes[3].host.machine))
    to(world, 2)
    assert world.names() == recorded(world) == ["node-1", "node-2"]


def test_a_machine_that_no_node_stands_for_goes_too(world: World) -> None:
    """An `up` that was killed between the create and the installation has left it."""
    before = world.cluster(nodes=3)
    world.store.save_cluster(replace(before, nodes=before.nodes[:2]))
    to(world, 2)
    assert world.names() == recorded(world) == ["node-1", "node-2"]


def test_what_is_left_to_spend_lasts_longer_with_fewer_machines(world: World) -> None:
    now_s = time.time()
    before = world.cluster(nodes=4, max_cost=8.0, limit_s=now_s + 2 * HOUR_S)
    to(world, 2)
    cluster = world.store.cluster("one")
    assert cluster is not None
    assert cluster.limit_s == pytest.approx(now_s + 4 * HOUR_S, abs=60)
    assert world.nodes.limit(before.nodes[0].host.machine) == str(int(cluster.limit_s or 0))
    labels = {found.expires_s for found in world.cloud.held.values() if found.kind == "instance"}
    assert labels == {cluster.limit_s}


def test_the_time_that_was_asked_for_still_wins_where_it_is_earlier(world: World) -> None:
    limit_s = time.time() + HOUR_S
    world.cluster(nodes=4, max_cost=8.0, limit_s=limit_s, ttl_limit_s=limit_s)
    to(world, 2)
    cluster = world.store.cluster("one")
    assert cluster is not None
    assert cluster.limit_s == pytest.approx(limit_s)


def test_another_command_is_not_disturbed(world: World) -> None:
    world.cluster(nodes=3)
    with world.store.lock("one", "up"), pytest.raises(Locked):
        to(world, 2)
    assert len(world.names()) == 3
