"""gc: nothing foreign is ever touched, nothing of mine that may be in use, and the rest goes."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from pathlib import Path

import pytest

from rain_deploy.core.machine import Resource
from rain_deploy.core.run import RunRecord, RunState
from rain_deploy.core.spec import ClusterSpec
from rain_deploy.core.text import owner_tag
from rain_deploy.errors import DownIncomplete, UsageError
from rain_deploy.state.store import Store
from rain_deploy.verbs.gc import GcResult, gc
from tests.support.values import changed
from tests.unit.fake_cloud import ME, World

PAST_S, FUTURE_S = time.time() - 100, time.time() + 1e6
COLLEAGUE = owner_tag("colleague")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World.at(tmp_path)


def place(
    world: World,
    cluster_id: str,
    *,
    cluster: str = "one",
    owner: str = owner_tag(ME),
    expires_s: float | None = None,
    nodes: int = 2,
) -> None:
    """A cluster in the account that no record here knows."""
    names = [("ssh-key", "ssh"), ("security-group", "group")]
    names += [("instance", f"node-{index}") for index in range(1, nodes + 1)]
    for kind, name in names:
        ref = f"{owner}/{cluster_id}/{kind}/{name}"
        limit_s = expires_s if kind == "instance" else None
        world.cloud.add(
            Resource(cluster_id, kind, name, ref, owner, cluster, state="running", expires_s=limit_s)
        )


def run_gc(world: World, cluster: str | None = None, *, delete: bool = True) -> GcResult:
    now = [0.0]

    def pause(seconds: float) -> None:
        now[0] += seconds

    spec = ClusterSpec("one", "cloud", "test", owner=ME)
    ctx = replace(world.ctx, clock=lambda: now[0], pause=pause)
    return gc(ctx, spec, cluster, delete=delete)


def actions(result: GcResult) -> dict[str, tuple[str, str]]:
    return {line.id: (line.state, line.action) for line in result.lines}


def lost_id(world: World) -> str:
    """Of a cluster that this home made and knows no more."""
    given = world.store.next_cluster_id("lost")
    world.store.forget_cluster(replace(world.cluster("tmp", 0), id=given))
    world.cloud.held.clear()
    return given


def another_home(world: World, tmp_path: Path) -> str:
    given = Store(tmp_path / "another").next_cluster_id("one")
    assert not world.store.made(given)
    return given


def test_a_dry_run_deletes_nothing_and_says_what_would_go(world: World) -> None:
    lost = lost_id(world)
    place(world, lost)
    result = run_gc(world, delete=False)
    assert actions(result) == {lost: ("left", "to delete")}
    assert len(world.cloud.held) == 4
    assert "delete" not in dict(world.cloud.calls)


def test_what_this_home_made_and_forgot_goes_machines_first(world: World) -> None:
    lost = lost_id(world)
    place(world, lost)
    result = run_gc(world)
    assert actions(result) == {lost: ("left", "deleted")}
    assert result.problem is None
    assert world.cloud.held == {}
    kinds = [ref.split("/")[2] for call, ref in world.cloud.calls if call == "delete"]
    assert sorted(kinds[:2]) == ["instance", "instance"]


def test_no_node_is_spoken_to(world: World) -> None:
    place(world, lost_id(world))
    run_gc(world)
    assert world.nodes.asked == []


def test_a_living_cluster_of_this_home_stays_also_when_it_is_named(world: World) -> None:
    cluster = world.cluster(limit_s=FUTURE_S)
    for name in (None, "one"):
        result = run_gc(world, name)
        assert actions(result) == {cluster.id: ("living", "kept")}
        assert result.lines[0].next_step == "rain-deploy down -c one"
    assert len(world.names()) == 3


def test_an_unexpired_cluster_of_another_home_goes_only_by_name(world: World, tmp_path: Path) -> None:
    other = another_home(world, tmp_path)
    place(world, other, expires_s=FUTURE_S)
    kept = run_gc(world)
    assert actions(kept) == {other: ("living", "kept")}
    assert kept.lines[0].next_step == "rain-deploy gc --delete -c one"
    assert actions(run_gc(world, "one")) == {other: ("left", "deleted")}
    assert world.cloud.held == {}


def test_an_expired_cluster_of_another_home_goes(world: World, tmp_path: Path) -> None:
    other = another_home(world, tmp_path)
    place(world, other, expires_s=PAST_S)
    assert actions(run_gc(world)) == {other: ("expired", "deleted")}


@pytest.mark.parametrize("limit_s", [None, FUTURE_S], ids=["no limit", "a later limit"])
def test_one_machine_that_has_not_expired_keeps_the_whole_cluster(
    world: World, tmp_path: Path, limit_s: float | None
) -> None:
    other = another_home(world, tmp_path)
    place(world, other, expires_s=PAST_S)
    world.cloud.add(
        Resource(
            other, "instance", "node-3", "later", owner_tag(ME), "one", state="running", expires_s=limit_s
        )
    )
    assert actions(run_gc(world)) == {other: ("living", "kept")}


def test_groups_without_a_machine_tell_no_limit_so_they_are_not_expired(world: World, tmp_path: Path) -> None:
    place(world, another_home(world, tmp_path), nodes=0)
    assert [line.action for line in run_gc(world).lines] == ["kept"]


def test_results_that_are_not_home_keep_an_expired_cluster_until_it_is_named(world: World) -> None:
    cluster = world.cluster(limit_s=PAST_S)
    run = RunRecord("r1", cluster.id, "one", 1, 7231, "s.py", (), "00", 2.5, Path("/out"))
    world.store.save_run(run)
    kept = run_gc(world)
    assert actions(kept) == {cluster.id: ("expired", "kept")}
    assert kept.lines[0].next_step == "rain-deploy down -c one"
    world.store.save_run(replace(run, pulled=True, state=RunState.FINISHED))
    assert actions(run_gc(world)) == {cluster.id: ("expired", "deleted")}
    assert world.store.cluster("one") is None
    assert world.nodes.asked == []


def test_an_expired_cluster_with_results_goes_when_it_is_named(world: World) -> None:
    cluster = world.cluster(limit_s=PAST_S)
    world.store.save_run(RunRecord("r1", cluster.id, "one", 1, 7231, "s.py", (), "00", 2.5, Path("/out")))
    assert actions(run_gc(world, "one")) == {cluster.id: ("expired", "deleted")}
    assert world.cloud.held == {}


def test_a_cluster_whose_record_was_extended_and_its_labels_not_stays(world: World) -> None:
    cluster = world.cluster(limit_s=PAST_S)
    world.store.save_cluster(changed(cluster, limit_s=FUTURE_S))
    assert actions(run_gc(world)) == {cluster.id: ("living", "kept")}


def test_a_cluster_that_another_command_changes_stays(world: World) -> None:
    cluster = world.cluster(limit_s=PAST_S)
    with world.store.lock("one", "up"):
        result = run_gc(world)
    assert actions(result) == {cluster.id: ("expired", "kept")}
    assert "`up`" in result.lines[0].reason
    assert len(world.names()) == 3


def test_nothing_goes_without_a_yes_and_what_would_go_is_named_before(world: World) -> None:
    lost = lost_id(world)
    place(world, lost)
    world.answers.append(False)
    with pytest.raises(UsageError, match="nothing was deleted"):
        run_gc(world)
    assert len(world.cloud.held) == 4
    assert f"({lost}), this machine created it and no longer has a record of it: " in world.told
    assert "instance node-1" in world.told
    world.answers.append(False)
    run_gc(world, "another")  # of what has nothing to delete, nobody is asked
    assert world.answers == [False]


def test_a_cluster_that_is_extended_before_the_answer_stays(world: World) -> None:
    cluster = world.cluster(limit_s=PAST_S)

    def extended_first(_question: str) -> bool:
        world.store.save_cluster(changed(cluster, limit_s=FUTURE_S))
        return True

    world.ctx = replace(world.ctx, confirm=extended_first)
    assert actions(run_gc(world)) == {cluster.id: ("expired", "kept")}
    assert len(world.names()) == 3


def test_a_cluster_that_is_made_while_the_account_is_looked_at_stays(world: World) -> None:
    def up() -> None:
        world.cloud.meanwhile = lambda: None
        world.cluster()

    world.cloud.meanwhile = up
    assert [(line.state, line.action) for line in run_gc(world).lines] == [("living", "kept")]
    assert len(world.names()) == 3


def test_what_could_not_be_deleted_is_reported_and_is_exit_60(world: World) -> None:
    lost = lost_id(world)
    place(world, lost)
    ref = f"{owner_tag(ME)}/{lost}/instance/node-2"
    world.cloud.refused["instance", ref] = DownIncomplete("node-2 is protected")
    result = run_gc(world)
    (line,) = result.lines
    assert (line.action, line.reason) == ("not deleted", "node-2 is protected")
    assert line.resources == ("ssh-key ssh", "security-group group", "instance node-2")
    assert isinstance(result.problem, DownIncomplete)
    assert "node-2 is protected" in result.problem.message


def test_a_list_that_lags_is_given_time(world: World) -> None:
    lost = lost_id(world)
    place(world, lost)
    world.cloud.lists_lag = True
    assert actions(run_gc(world)) == {lost: ("left", "deleted")}


def test_what_stays_listed_is_not_called_deleted(world: World) -> None:
    lost = lost_id(world)
    place(world, lost)
    world.cloud.deletes_nothing = True
    result = run_gc(world)
    assert actions(result) == {lost: ("left", "not deleted")}
    assert isinstance(result.problem, DownIncomplete)


def test_nothing_foreign_is_ever_touched(world: World) -> None:
    """10^4 foreign resources, with ids, names and limits like mine."""
    dice = random.Random(20_000)  # noqa: S311 - the same in every run
    living = world.cluster(limit_s=FUTURE_S)
    at_first = dict(world.cloud.held)
    owners = [COLLEAGUE, "", owner_tag(ME).upper(), f"{owner_tag(ME)}x", owner_tag("m e")]
    for _ in range(50):
        world.cloud.held = dict(at_first)
        lost = world.store.next_cluster_id(f"name-{dice.random()}")
        ids = [living.id, lost, f"{dice.getrandbits(40):010x}", ""]
        for _ in range(dice.choice([60, 70])):
            owner, name = dice.choice([*owners, owner_tag(ME)]), dice.choice(["one", "two", ""])
            limit_s = dice.choice([None, PAST_S, FUTURE_S])
            place(world, dice.choice(ids), cluster=name, owner=owner, expires_s=limit_s, nodes=2)
        before = {key: found for key, found in world.cloud.held.items() if found.owner != owner_tag(ME)}
        run_gc(world, dice.choice([None, "one", "two"]))
        assert {key: world.cloud.held.get(key) for key in before} == before
        assert set(at_first) <= set(world.cloud.held)
