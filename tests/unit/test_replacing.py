"""``run --replace-lost``: which nodes are brought back and when, and what is said if that fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import pytest

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.plan import Plan
from rain_deploy.core.events import Notice
from rain_deploy.core.machine import Host, Intent, Resource
from rain_deploy.core.spec import ClusterSpec, EnvironmentSpec
from rain_deploy.core.step import Stage
from rain_deploy.errors import InputError, Unreachable
from rain_deploy.node.wire import StateLine
from rain_deploy.providers.base import Provider
from rain_deploy.runs.replacing import Replacing
from rain_deploy.state.store import Record
from tests.support.values import changed
from tests.unit.test_flow_run import CLUSTER, World, world_at

SPEC = ClusterSpec(
    "one", "hosts", "", max_cost=5.0, ttl_s=60.0, environment=EnvironmentSpec(packages=("numpy",))
)
SHIP = Stage("ship", ())


@dataclass
class Up:
    """Stands for what ``up`` does once it holds the cluster; notes what was planned."""

    specs: list[ClusterSpec] = field(default_factory=list)
    then: Callable[[Context], None] = lambda _: None

    def __call__(self, ctx: Context, record: Record, plan: Plan, started_s: float) -> None:
        holder = ctx.store.holder(record.cluster.name)
        assert holder, "another command can come between"
        assert holder.verb == "up", "status would not show it"
        assert started_s <= time.monotonic()
        assert ctx.confirm("Create 1 machine?")
        ctx.emit(Notice("price of all 2: much"))
        self.specs.append(plan.seen.spec)
        self.then(ctx)


@dataclass
class Machines:
    """Stands for the provider of machines; notes what it deletes."""

    deleted: list[str] = field(default_factory=list)
    cloud: None = None

    def preflight(self, _: ClusterSpec) -> tuple[str, ...]:
        return ()

    def intents(self, *_: object) -> tuple[Intent, ...]:
        return ()

    def delete(self, resource: Resource) -> None:
        self.deleted.append(resource.name)


@pytest.fixture
def machines() -> Machines:
    return Machines()


@pytest.fixture
def world(tmp_path: Path, machines: Machines) -> World:
    """A cluster whose node-2 does not answer."""
    world = world_at(tmp_path)
    world.ctx = replace(world.ctx, provider_for=lambda _: cast("Provider", machines))
    for name in ("node-1", "node-2"):
        world.store.save_intent(Intent(CLUSTER.id, "one", "machine", name))
        world.store.save_resource(Resource(CLUSTER.id, "machine", name, name))

    def connect(host: Host) -> None:
        if host.name == "node-2":
            raise Unreachable("lost", node=host.name)

    world.node.connect = connect  # type: ignore[method-assign]
    return world


def line(attempt: int, *missing: str) -> StateLine:
    return StateLine(attempt=attempt, missing=missing)


def said(world: World) -> list[str]:
    return [event.text for event in world.seen if isinstance(event, Notice)]


def ended(world: World, count: int = 1) -> None:
    """Wait until so many replacements have ended, well or not."""
    deadline = time.monotonic() + 10
    while sum("is replaced;" in text or "could not be" in text for text in said(world)) < count:
        assert time.monotonic() < deadline, said(world)
        time.sleep(0.01)


def test_each_attempt_replaces_the_nodes_that_it_lacks_once(world: World) -> None:
    up = Up()
    with Replacing(world.ctx, CLUSTER, SHIP, up, SPEC) as replacing:
        for one in (line(1), line(2, "node-2"), line(2, "node-2"), line(3), line(4, "node-2")):
            replacing.take(one)
        ended(world, 2)
    wanted = replace(SPEC, nodes=2, environment=EnvironmentSpec(), max_cost=None, ttl_s=None)
    assert up.specs == [replace(wanted, owner=up.specs[0].owner, machines=up.specs[0].machines)] * 2
    begun = "replacing node-2 at the same price; the run goes on meanwhile"
    assert said(world) == [begun, "node-2 is replaced; it gets its first task when a running one ends"] * 2


def test_without_the_option_nothing_is_replaced(world: World) -> None:
    up = Up()
    with Replacing(world.ctx, CLUSTER, SHIP, up, None) as replacing:
        replacing.take(line(2, "node-2"))
    assert (up.specs, world.seen) == ([], [])


def test_what_cannot_be_replaced_is_a_warning_and_the_run_goes_on(world: World) -> None:
    def refuse(ctx: Context) -> None:
        ctx.emit(Notice("the account answers slowly", warning=True))
        raise InputError("--max-cost 1.00 CHF: 2 machines would spend that", next_step="give more")

    with Replacing(world.ctx, CLUSTER, SHIP, Up(then=refuse), SPEC) as replacing:
        replacing.take(line(2, "node-2"))
        ended(world)
    why = "--max-cost 1.00 CHF: 2 machines would spend that; next: give more"
    warned = ["the account answers slowly"]
    warned += [f"node-2 could not be replaced: {why}; the run goes on without it"]
    assert said(world)[1:] == warned
    assert all(event.warning for event in world.seen[1:] if isinstance(event, Notice))


def test_nothing_is_created_after_the_time_limit(world: World) -> None:
    up, past = Up(), changed(CLUSTER, limit_s=time.time() - 1)
    world.store.save_cluster(past)
    with Replacing(world.ctx, past, SHIP, up, SPEC) as replacing:
        replacing.take(line(2, "node-2"))
        ended(world)
    assert up.specs == []
    assert said(world)[1].startswith("node-2 could not be replaced: the time limit of one has passed")


def test_the_end_of_the_run_waits_for_what_has_begun(world: World) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slowly(_: Context) -> None:
        begun.set()
        go_on.wait(10)

    with Replacing(world.ctx, CLUSTER, SHIP, Up(then=slowly), SPEC) as replacing:
        replacing.take(line(2, "node-2"))
        begun.wait(10)
        threading.Timer(0.3, go_on.set).start()
    waits, ends = said(world)[1:]
    completes = "`rain-deploy up -c one` completes it, and `down` deletes it"
    assert waits == f"waiting until node-2 is replaced; if you press Ctrl-C, {completes}"
    assert ends == "node-2 is replaced; it gets its first task when a running one ends"


def test_the_end_of_the_run_does_not_wait_without_a_limit(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rain_deploy.runs.replacing.LAST_WAIT_S", 0.2)
    begun, go_on = threading.Event(), threading.Event()

    def slowly(_: Context) -> None:
        begun.set()
        go_on.wait(10)

    with Replacing(world.ctx, CLUSTER, SHIP, Up(then=slowly), SPEC) as replacing:
        replacing.take(line(2, "node-2"))
        begun.wait(10)
    completes = "`rain-deploy up -c one` completes it, and `down` deletes it"
    assert said(world)[-1] == f"node-2 is still not replaced 0 s after the end of the run: {completes}"
    go_on.set()
    ended(world)


def test_a_fault_of_ours_does_not_end_the_run_either(world: World) -> None:
    def fault(_: Context) -> None:
        raise KeyError("node-2")

    up = Up(then=fault)
    with Replacing(world.ctx, CLUSTER, SHIP, up, SPEC) as replacing:
        replacing.take(line(2, "node-2"))
        replacing.take(line(3, "node-2"))
        ended(world, 2)
    said_twice = [text for text in said(world) if text.startswith("node-2 could not be replaced: KeyError")]
    assert (len(up.specs), len(said_twice)) == (2, 2)


def test_nothing_is_deleted_where_up_would_refuse(world: World, machines: Machines) -> None:
    world.store.save_cluster(replace(CLUSTER, machines=replace(CLUSTER.machines, zone="there")))
    here, up = replace(SPEC, machines=replace(SPEC.machines, zone="here")), Up()
    with Replacing(world.ctx, CLUSTER, SHIP, up, here) as replacing:
        replacing.take(line(2, "node-2"))
        ended(world)
    assert (up.specs, machines.deleted) == ([], [])
    assert said(world)[1].startswith(
        "node-2 could not be replaced: the machines of cluster one have zone there"
    )


def test_the_cluster_may_have_grown_since_the_run_began(world: World, machines: Machines) -> None:
    third = replace(CLUSTER.nodes[1], name="node-3", host=replace(CLUSTER.nodes[1].host, name="node-3"))
    world.store.save_cluster(replace(CLUSTER, nodes=(*CLUSTER.nodes, third)))
    up = Up()
    with Replacing(world.ctx, CLUSTER, SHIP, up, SPEC) as replacing:
        replacing.take(line(2, "node-2"))
        ended(world)
    assert ([spec.nodes for spec in up.specs], machines.deleted) == ([3], ["node-2"])


@pytest.mark.parametrize("another", [False, True])
def test_no_cluster_is_made_where_this_one_was_deleted(
    world: World, machines: Machines, *, another: bool
) -> None:
    world.store.forget_cluster(CLUSTER)
    if another:
        world.store.save_cluster(replace(CLUSTER, id="abcd9999"))
    up = Up()
    with Replacing(world.ctx, CLUSTER, SHIP, up, SPEC) as replacing:
        replacing.take(line(2, "node-2"))
        ended(world)
    assert (up.specs, machines.deleted) == ([], [])
    assert said(world)[1].startswith("node-2 could not be replaced: cluster one was deleted meanwhile")


def test_what_is_lost_before_the_run_ends_is_not_replaced_after_it(world: World, machines: Machines) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slowly(_: Context) -> None:
        begun.set()
        go_on.wait(10)

    up = Up(then=slowly)
    with Replacing(world.ctx, CLUSTER, SHIP, up, SPEC) as replacing:
        replacing.take(line(2, "node-2"))
        begun.wait(10)
        replacing.take(line(3, "node-2"))
        threading.Timer(0.3, go_on.set).start()
    assert (len(up.specs), machines.deleted) == (1, ["node-2"])


def test_a_command_that_holds_the_cluster_is_waited_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{Replacing.__module__}.LOCKED_PAUSE_S", 0.05)
    up = Up()
    with Replacing(world.ctx, CLUSTER, SHIP, up, SPEC) as replacing:
        with world.store.lock("one", "cancel"):
            replacing.take(line(2, "node-2"))
            time.sleep(0.2)
            assert up.specs == []
        ended(world)
    assert len(up.specs) == 1
    assert said(world)[-1] == "node-2 is replaced; it gets its first task when a running one ends"


def test_the_end_of_the_run_does_not_wait_for_another_command(world: World) -> None:
    with (
        world.store.lock("one", "scale"),
        Replacing(world.ctx, CLUSTER, SHIP, Up(), SPEC) as replacing,
    ):
        replacing.take(line(2, "node-2"))
        time.sleep(0.2)  # it waits
    assert said(world)[-1].startswith("node-2 could not be replaced: cluster one is being changed by")
