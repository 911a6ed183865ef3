"""extend: the hour moves on the machines first, then in their labels, then on record."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path

import pytest

from rain_deploy.core.cluster import Bill, Cluster
from rain_deploy.errors import ApiError, HostKeyError, InputError, InstallFailed, UsageError
from rain_deploy.verbs.scale import extend
from tests.support.values import QUOTE, changed
from tests.unit.fake_cloud import World

HOUR_S = 3600.0


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World.at(tmp_path)


def labels(world: World) -> set[float | None]:
    return {f.expires_s for f in world.cloud.held.values() if f.kind == "instance"}


def on_nodes(world: World, cluster: Cluster) -> set[str]:
    return {world.nodes.limit(node.host.machine) for node in cluster.nodes}


def on_record(world: World) -> float | None:
    cluster = world.store.cluster("one")
    assert cluster is not None
    return cluster.limit_s


def limited(world: World, in_s: float, max_cost: float | None = None) -> Cluster:
    limit_s = time.time() + in_s
    return world.cluster(limit_s=limit_s, ttl_limit_s=limit_s, max_cost=max_cost)


def test_the_hour_moves_everywhere_and_is_told(world: World) -> None:
    cluster = limited(world, HOUR_S)
    result = extend(world.ctx, "one", 2 * HOUR_S)
    assert cluster.limit_s is not None
    expected = cluster.limit_s + 2 * HOUR_S
    assert result.limit_s == pytest.approx(expected)
    assert result.nodes == ("node-1", "node-2", "node-3")
    assert (result.per_hour, result.currency) == (3.0, "CHF")
    assert labels(world) == {result.limit_s}
    assert on_nodes(world, cluster) == {str(math.floor(expected))}
    assert on_record(world) == result.limit_s


def test_what_is_kept_here_of_a_cluster_is_for_its_user_alone(world: World) -> None:
    limited(world, HOUR_S)
    extend(world.ctx, "one", HOUR_S)
    clusters = world.ctx.home / "clusters"
    assert [path.stat().st_mode & 0o777 for path in (clusters, *clusters.iterdir())] == [0o700, 0o700]


def test_a_limit_that_has_passed_moves_from_now(world: World) -> None:
    limited(world, -5 * HOUR_S)
    result = extend(world.ctx, "one", HOUR_S)
    assert result.limit_s == pytest.approx(time.time() + HOUR_S, abs=30)


def test_the_amount_that_may_be_spent_wins_and_is_told(world: World) -> None:
    limited(world, HOUR_S, max_cost=6.0)  # three machines at 1.0 an hour
    result = extend(world.ctx, "one", 10 * HOUR_S)
    assert result.limit_s == pytest.approx(time.time() + 2 * HOUR_S, abs=30)
    assert "--max-cost 6.00 CHF is spent at" in world.told
    assert extend(world.ctx, "one", HOUR_S).limit_s == pytest.approx(result.limit_s, abs=30)


def test_an_amount_that_is_spent_moves_nothing(world: World) -> None:
    cluster = limited(world, HOUR_S, max_cost=6.0)
    long_ago = tuple(
        replace(meter, since_s=time.time() - 9 * HOUR_S) for meter in (cluster.bill or Bill(QUOTE)).meters
    )
    world.store.save_cluster(changed(cluster, meters=long_ago))
    with pytest.raises(InputError, match="--max-cost"):
        extend(world.ctx, "one", HOUR_S)
    assert on_record(world) == cluster.limit_s
    assert labels(world) == {cluster.limit_s}


def test_no_limit_at_all_must_be_confirmed(world: World) -> None:
    cluster = limited(world, HOUR_S)
    world.answers.append(False)
    with pytest.raises(UsageError):
        extend(world.ctx, "one", None)
    assert on_record(world) == cluster.limit_s
    assert extend(world.ctx, "one", None).limit_s is None
    assert labels(world) == {None}
    assert on_nodes(world, cluster) == {"none"}


def test_a_machine_that_is_off_has_its_label_moved_all_the_same(world: World) -> None:
    cluster = limited(world, HOUR_S)
    world.cloud.power_off("node-2")
    result = extend(world.ctx, "one", HOUR_S)
    assert result.nodes == ("node-1", "node-3")
    assert labels(world) == {result.limit_s}
    assert "node-2 does not answer" in world.told
    assert world.nodes.limit(cluster.nodes[1].host.machine) == "none", "as it was"


def test_an_address_that_a_powered_off_machine_has_lost_hinders_nothing(world: World) -> None:
    cluster = limited(world, HOUR_S)
    world.cloud.power_off("node-2")
    world.nodes.strangers.add(cluster.nodes[1].host.address)
    assert extend(world.ctx, "one", HOUR_S).nodes == ("node-1", "node-3")


def test_an_impostor_at_a_running_machines_address_ends_it_with_nothing_done(world: World) -> None:
    cluster = limited(world, HOUR_S)
    world.nodes.strangers.add(cluster.nodes[1].host.address)
    with pytest.raises(HostKeyError):
        extend(world.ctx, "one", HOUR_S)
    assert on_nodes(world, cluster) == {"none"}
    assert on_record(world) == cluster.limit_s


def test_the_machines_are_told_also_when_the_cloud_is_silent(world: World) -> None:
    cluster = limited(world, HOUR_S)
    world.cloud.silent = True
    with pytest.raises(ApiError, match="holds on node-1, node-2, node-3; the labels are old") as caught:
        extend(world.ctx, "one", HOUR_S)
    assert cluster.limit_s is not None
    assert on_nodes(world, cluster) == {str(math.floor(cluster.limit_s + HOUR_S))}
    assert caught.value.next_step == "the same command again"
    assert on_record(world) == cluster.limit_s


def test_a_machine_without_a_limit_of_ours_is_left_alone(world: World) -> None:
    cluster = limited(world, HOUR_S)
    (world.nodes.machine(cluster.nodes[0].host.machine) / "limit").unlink()
    with pytest.raises(InstallFailed):
        extend(world.ctx, "one", HOUR_S)
    assert labels(world) == {cluster.limit_s}
    assert not (world.nodes.machine(cluster.nodes[0].host.machine) / "limit").exists()


def test_nothing_is_ever_powered_off_where_nothing_is_priced(world: World) -> None:
    world.cluster(bill=None)
    with pytest.raises(InputError, match="never powered off"):
        extend(world.ctx, "one", HOUR_S)
