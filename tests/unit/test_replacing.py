"""``run --replace-lost``: which nodes are brought back and when, and what is said if that fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from rain_deploy.cluster.context import Context
from rain_deploy.core.events import Notice
from rain_deploy.core.spec import ClusterSpec, EnvironmentSpec
from rain_deploy.core.step import Stage
from rain_deploy.errors import InputError
from rain_deploy.node.wire import StateLine
from rain_deploy.runs.replacing import Replacing
from tests.support.values import changed
from tests.unit.test_flow_run import CLUSTER, World, world_at

SPEC = ClusterSpec(
    "one", "hosts", "", max_cost=5.0, ttl_s=60.0, environment=EnvironmentSpec(packages=("numpy",))
)
SHIP = Stage("ship", ())


@dataclass
class Up:
    """Stands for the verb; notes how it was called."""

    specs: list[ClusterSpec] = field(default_factory=list)
    then: Callable[[Context], None] = lambda _: None

    def __call__(self, ctx: Context, spec: ClusterSpec) -> None:
        assert ctx.confirm("Create 1 machine?")
        ctx.emit(Notice("price of all 2: much"))
        self.specs.append(spec)
        self.then(ctx)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return world_at(tmp_path)


def line(attempt: int, *missing: str) -> StateLine:
    return StateLine(attempt=attempt, missing=missing)


def said(world: World) -> list[str]:
    return [event.text for event in world.seen if isinstance(event, Notice)]


def test_each_attempt_replaces_the_nodes_that_it_lacks_once(world: World) -> None:
    up = Up()
    with Replacing(world.ctx, CLUSTER, SHIP, up, SPEC) as replacing:
        for one in (line(1), line(2, "node-2"), line(2, "node-2"), line(3), line(4, "node-2")):
            replacing.take(one)
            time.sleep(0.1)
    assert up.specs == [replace(SPEC, nodes=2, environment=EnvironmentSpec(), max_cost=None, ttl_s=None)] * 2
    begun = "replacing node-2 at the same price; the run goes on meanwhile"
    assert said(world) == [begun, "node-2 is replaced, and takes tasks of this run"] * 2


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
    assert ends == "node-2 is replaced, and takes tasks of this run"


def test_a_fault_of_ours_does_not_end_the_run_either(world: World) -> None:
    def fault(_: Context) -> None:
        raise KeyError("node-2")

    up = Up(then=fault)
    with Replacing(world.ctx, CLUSTER, SHIP, up, SPEC) as replacing:
        replacing.take(line(2, "node-2"))
        replacing.take(line(3, "node-2"))
    said_twice = [text for text in said(world) if text.startswith("node-2 could not be replaced: KeyError")]
    assert (len(up.specs), len(said_twice)) == (2, 2)
