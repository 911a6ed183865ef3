"""extend: the hour is recorded, moves on the machines and in their labels, or is taken back."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rain_deploy.cluster.power import move_limit
from rain_deploy.core.cluster import Bill, Cluster
from rain_deploy.core.machine import Host
from rain_deploy.core.spec import ClusterSpec
from rain_deploy.core.step import Command, CommandResult
from rain_deploy.errors import (
    ApiError,
    CredentialsError,
    HostKeyError,
    InputError,
    InstallFailed,
    RainDeployError,
    Unreachable,
    UsageError,
)
from rain_deploy.verbs.scale import extend
from rain_deploy.verbs.status import status
from rain_deploy.verbs.up import up
from tests.support.values import QUOTE, changed
from tests.unit.fake_cloud import ME, PROVIDER, World

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


def test_the_hour_moves_everywhere_and_is_reported(world: World) -> None:
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


def test_the_amount_that_may_be_spent_wins_and_is_reported(world: World) -> None:
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


FAILURES = {
    "silent": ApiError("the API does not answer"),
    "the key": CredentialsError("the API key may not do update-instance (403)"),
    "refused": InputError("Exoscale refused update-instance (400)"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_where_the_labels_cannot_be_written_the_record_says_what_the_machines_obey(
    world: World, failure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = limited(world, HOUR_S)

    def refuse(*_arguments: object) -> None:
        raise FAILURES[failure]

    monkeypatch.setattr(world.cloud, "set_expiry", refuse)
    with pytest.raises(
        type(FAILURES[failure]), match="is set on node-1, node-2, node-3 and recorded"
    ) as caught:
        extend(world.ctx, "one", HOUR_S)
    monkeypatch.undo()
    assert cluster.limit_s is not None
    expected_s = cluster.limit_s + HOUR_S
    assert on_nodes(world, cluster) == {str(math.floor(expected_s))}
    assert on_record(world) == expected_s
    assert caught.value.next_step == "to write the labels: rain-deploy up -c one"
    drift = status(world.ctx, "one").drift
    assert sum("its label shows another time limit" in sentence for sentence in drift) == 3
    as_up_ends(world)
    assert labels(world) == {expected_s}
    assert status(world.ctx, "one").limit_s == expected_s


def test_a_limit_that_one_node_refuses_is_taken_back_everywhere(world: World) -> None:
    cluster = limited(world, HOUR_S)
    assert cluster.limit_s is not None
    for node in cluster.nodes[1:]:
        (world.nodes.machine(node.host.machine) / "limit").write_text(f"{math.floor(cluster.limit_s)}\n")
    (world.nodes.machine(cluster.nodes[0].host.machine) / "limit").unlink()
    with pytest.raises(InstallFailed, match="the time limit did not change"):
        extend(world.ctx, "one", HOUR_S)
    assert labels(world) == {cluster.limit_s}
    assert not (world.nodes.machine(cluster.nodes[0].host.machine) / "limit").exists()
    assert {world.nodes.limit(node.host.machine) for node in cluster.nodes[1:]} == {
        str(math.floor(cluster.limit_s))
    }
    assert on_record(world) == cluster.limit_s


def test_an_extend_that_is_killed_half_way_is_shown_and_completed_by_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = limited(world, HOUR_S)

    def kill(*_arguments: object, **_more: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(world.nodes, "run", kill)
        with pytest.raises(KeyboardInterrupt):
            extend(world.ctx, "one", HOUR_S)
    assert any("a command was changing the time limit and did not finish" in each for each in drift_of(world))
    assert cluster.limit_s is not None
    as_up_ends(world)
    assert on_nodes(world, cluster) == {str(math.floor(cluster.limit_s + HOUR_S))}
    assert labels(world) == {cluster.limit_s + HOUR_S}
    assert not [each for each in drift_of(world) if "limit" in each]


def as_up_ends(world: World) -> None:
    """Bring the recorded limit to machines and labels, as the end of ``up`` does."""
    with world.ctx.change("one", "up") as record:
        assert record.cluster.bill
        move_limit(world.ctx, record, record.cluster.bill)


def drift_of(world: World) -> tuple[str, ...]:
    return status(world.ctx, "one").drift


def test_nothing_is_ever_powered_off_where_nothing_is_priced(world: World) -> None:
    world.cluster(bill=None)
    with pytest.raises(InputError, match="never powered off"):
        extend(world.ctx, "one", HOUR_S)


def losing(world: World, name: str, monkeypatch: pytest.MonkeyPatch, *, times: int) -> None:
    """The connection to a node is lost after it did what it was sent, so many times."""
    run, left = world.nodes.run, [times]

    def lose(host: Host, command: Command, **more: Any) -> CommandResult:
        result = run(host, command, **more)
        if host.name == name and left[0] > 0:
            left[0] -= 1
            raise Unreachable("the connection was lost", node=name)
        return result

    monkeypatch.setattr(world.nodes, "run", lose)


@pytest.mark.parametrize("name", ["node-1", "node-3"])
def test_a_node_that_took_the_new_limit_before_its_connection_was_lost_gets_the_old_one_back(
    world: World, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = limited(world, HOUR_S)
    losing(world, name, monkeypatch, times=1)
    with pytest.raises(Unreachable, match=r"the time limit did not change\)"):
        extend(world.ctx, "one", HOUR_S)
    assert cluster.limit_s is not None
    assert on_nodes(world, cluster) == {str(math.floor(cluster.limit_s))}
    assert on_record(world) == cluster.limit_s
    assert not [each for each in drift_of(world) if "limit" in each]


def test_a_node_that_did_not_confirm_the_old_limit_is_shown(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = limited(world, HOUR_S)
    losing(world, "node-2", monkeypatch, times=2)
    with pytest.raises(Unreachable, match="but node-2 may have the new one"):
        extend(world.ctx, "one", HOUR_S)
    assert on_record(world) == cluster.limit_s
    assert any("machines may have another" in each for each in drift_of(world))


# ---- an up that fails after it has started what was off


@pytest.mark.parametrize("off", [("node-1", "node-2", "node-3"), ("node-2",)])
def test_an_up_that_fails_after_a_start_leaves_the_hour_on_record_that_the_machines_have(
    world: World, off: tuple[str, ...]
) -> None:
    cluster = limited(world, -8 * HOUR_S)
    for name in off:
        world.cloud.power_off(name)
    with pytest.raises(RainDeployError):
        up(world.ctx, ClusterSpec("one", PROVIDER, "test", owner=ME))  # nothing can be installed on them
    started = [node for node in cluster.nodes if node.name in off]
    now = world.store.cluster("one")
    assert now
    assert now.limit_s is not None
    assert now.limit_s > time.time() + 11 * HOUR_S
    assert {world.nodes.limit(node.host.machine) for node in started} == {str(math.floor(now.limit_s))}
    assert f"{', '.join(off)} of one was started and stays on until" in world.told
    assert any("machines may have another" in each for each in drift_of(world))


def test_an_up_that_fails_before_any_start_leaves_the_hour_as_it_was(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = limited(world, -8 * HOUR_S)

    def refuse(*_arguments: object, **_more: object) -> None:
        raise ApiError("nothing is made")

    monkeypatch.setattr(world.cloud, "create", refuse)
    with pytest.raises(ApiError):
        up(world.ctx, ClusterSpec("one", PROVIDER, "test", owner=ME))
    assert on_record(world) == cluster.limit_s
    assert "was started" not in world.told
