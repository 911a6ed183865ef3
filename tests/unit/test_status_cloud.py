"""status and list of machines that cost money: the record beside what the cloud tells."""

from __future__ import annotations

import contextlib
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest

from rain_deploy.cluster.lookup import add_existing
from rain_deploy.cluster.plan import plan_up
from rain_deploy.cluster.power import awake
from rain_deploy.cluster.seen import VIEW_S, look
from rain_deploy.core.cluster import Cluster
from rain_deploy.core.machine import Resource
from rain_deploy.core.run import RunRecord, RunState
from rain_deploy.core.spec import ClusterSpec
from rain_deploy.core.text import hour, owner_tag
from rain_deploy.errors import CredentialsError, Drift, HostKeyError, RainDeployError, StateError, UsageError
from rain_deploy.providers.base import Provider
from rain_deploy.state.store import Store
from rain_deploy.verbs.check import check
from rain_deploy.verbs.gc import gc
from rain_deploy.verbs.list import list_clusters, types, zones
from rain_deploy.verbs.scale import extend, scale
from rain_deploy.verbs.status import status
from rain_deploy.verbs.up import plan, up
from tests.support.values import changed
from tests.unit.fake_cloud import ME, PROVIDER, World

CLOUD_SPEC = ClusterSpec("one", PROVIDER, "test", owner=ME)
READY = {"services": {"keeper": 1}, "governor": {"ready": True}, "runs": []}


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World.at(tmp_path)
    world.nodes.said["status"] = READY
    return world


def test_a_cluster_as_recorded_has_no_drift_and_tells_its_hour_and_its_cost(world: World) -> None:
    limit_s = time.time() + 3600
    world.cluster(limit_s=limit_s)
    result = status(world.ctx, "one", check=True)
    assert (result.drift, result.problem) == ((), None)
    assert (result.limit_s, result.per_hour, result.currency) == (limit_s, 3.0, "CHF")
    assert result.cost == pytest.approx(0.0, abs=0.1)


def test_what_the_cloud_tells_otherwise_is_drift(world: World) -> None:
    cluster = world.cluster(nodes=4)
    world.cloud.power_off("node-2")
    world.cloud.held.pop(("instance", cluster.nodes[2].host.machine))
    world.cloud.add(
        Resource(cluster.id, "instance", "node-9", "zone/stray", owner_tag(ME), "one", state="running")
    )
    world.cloud.add(
        Resource("another", "instance", "node-1", "zone/other", owner_tag(ME), "one", state="error")
    )
    result = status(world.ctx, "one", check=True)
    assert result.drift == (
        "node-3: its machine is gone",
        "node-2: its machine is stopped",
        "node-9: a machine of this cluster that is not recorded (zone/stray)",
    )
    assert isinstance(result.problem, Drift)
    assert [line.state for line in result.nodes] == ["ready", "stopped", "gone", "ready"]


def test_a_machine_that_is_off_is_not_asked_at_an_address_that_is_anothers_by_now(world: World) -> None:
    cluster = world.cluster()
    world.cloud.power_off("node-2")
    world.nodes.strangers.add(cluster.nodes[1].host.address)
    assert [line.state for line in status(world.ctx, "one").nodes] == ["ready", "stopped", "ready"]
    world.nodes.strangers = {cluster.nodes[2].host.address}
    with pytest.raises(HostKeyError):
        status(world.ctx, "one")


def test_a_machine_with_another_address_is_reported(world: World) -> None:
    world.cluster()
    world.cloud.power_off("node-3", address="10.9.9.9")
    world.cloud.start(Resource("", "instance", "node-3", "id-4"))
    assert status(world.ctx, "one").drift == ("node-3: its machine has another address now (10.9.9.9)",)


def test_a_cloud_that_does_not_answer_is_reported_beside_what_the_nodes_say(world: World) -> None:
    world.cluster()
    world.cloud.silent = True
    result = status(world.ctx, "one")
    assert result.drift == ("it is unknown if the machines run: the API does not answer",)
    assert [line.state for line in result.nodes] == ["ready", "ready", "ready"]


def test_without_credentials_the_record_and_the_nodes_still_speak(world: World) -> None:
    def no_key(_name: str) -> Provider:
        raise CredentialsError("no key is found")

    world.cluster()
    without = replace(world.ctx, provider_for=no_key)
    assert "no key is found" in status(without, "one").drift[0]
    assert [line.state for line in list_clusters(without).clusters] == ["unknown"]


def test_the_list_tells_machines_hours_and_cost_with_one_question_to_the_cloud(world: World) -> None:
    limit_s = time.time() + 3600
    for name in ("one", "two"):
        world.cluster(name, limit_s=limit_s)
    world.cloud.power_off("node-1")
    world.cloud.calls.clear()
    lines = list_clusters(world.ctx).clusters
    assert [line.state for line in lines] == ["2 running, 1 stopped"] * 2
    assert [(line.limit_s, line.currency) for line in lines] == [(limit_s, "CHF")] * 2
    assert world.cloud.calls == [("survey", "")]


def test_a_machine_that_is_off_costs_its_disk_alone(world: World) -> None:
    world.cluster()
    world.cloud.power_off("node-2")
    assert status(world.ctx, "one").per_hour == pytest.approx(1.0 + 0.1 + 1.0)


def test_what_a_node_told_of_a_run_is_known_when_it_is_off(world: World) -> None:
    cluster = world.cluster()
    run = RunRecord("r1", cluster.id, "one", 1, 7231, "s.py", (), "00", 2.5, Path("/out"), RunState.QUEUED)
    world.store.save_run(run)
    done = {"run": "r1", "state": "finished", "outcome": "done", "exit_code": 0}
    world.nodes.said["status"] = {**READY, "runs": [done]}
    status(world.ctx, "one")
    assert "disk" not in world.told
    world.cloud.power_off("node-1")
    shown = status(world.ctx, "one").run
    assert shown is not None
    assert (shown.state, shown.outcome, shown.exit_code) == ("finished", "done", 0)
    assert [line.active_run for line in list_clusters(world.ctx).clusters] == [""]
    assert (
        "results of r1 are on the disk of node-1, which is powered off; `rain-deploy pull -c one`"
        in world.told
    )
    world.events.clear()
    world.store.save_run(replace(world.store.runs("one")[0], pulled=True))
    status(world.ctx, "one")
    assert world.events == []


def test_a_run_that_was_brought_home_meanwhile_is_not_recorded_as_one_that_runs(world: World) -> None:
    cluster = world.cluster()
    run = RunRecord("r1", cluster.id, "one", 1, 7231, "s.py", (), "00", 2.5, Path("/out"), RunState.FINISHED)
    world.store.save_run(replace(run, outcome="done", pulled=True))
    world.nodes.said["status"] = {**READY, "runs": [{"run": "r1", "state": "running"}]}
    status(world.ctx, "one")
    assert world.store.runs("one") == (replace(run, outcome="done", pulled=True),)


def test_machines_of_an_up_that_was_killed_are_shown_as_the_cloud_tells_them(world: World) -> None:
    cluster = world.cluster(nodes=2)
    world.store.save_cluster(changed(cluster, nodes=(), meters=(), up=False))
    world.cloud.power_off("node-2")
    result = status(world.ctx, "one")
    assert [(line.name, line.role, line.state, line.address) for line in result.nodes] == [
        ("node-1", "server", "running", "10.0.0.2"),
        ("node-2", "governor", "stopped", "10.0.0.3"),
    ]
    assert result.governors == 0
    assert result.per_hour == pytest.approx(1.1)
    assert result.drift[0] == 'the last "up" did not finish'
    assert [line for line in result.drift if "node-1" in line] == [
        "node-1: its machine runs and is not a node yet (id-2)"
    ]


def test_a_machine_that_runs_without_our_services_is_not_called_stopped(world: World) -> None:
    world.cluster(nodes=1)
    world.nodes.said["status"] = {"services": {"keeper": None}}
    result = status(world.ctx, "one")
    assert [line.state for line in result.nodes] == ["no services"]
    assert result.drift == ("node-1: its services do not run",)
    assert [line.state for line in list_clusters(world.ctx).clusters] == ["1 running"]


# ---- an account that does not answer


def test_status_and_list_ask_an_account_as_commands_that_only_look(world: World) -> None:
    world.cluster()
    status(world.ctx, "one")
    list_clusters(world.ctx)
    zones(world.ctx, CLOUD_SPEC)
    types(world.ctx, CLOUD_SPEC)
    gc(world.ctx, CLOUD_SPEC, None, delete=False)
    check(world.ctx, replace(CLOUD_SPEC, name="two"))
    plan(world.ctx, replace(CLOUD_SPEC, name="two"))
    assert world.cloud.views == [VIEW_S] * 8, "status asks for the rules too"


def test_commands_that_change_something_are_patient(world: World) -> None:
    world.cluster(nodes=2)
    world.nodes.said["runs"] = []
    gc(world.ctx, CLOUD_SPEC, None, delete=True)
    with contextlib.suppress(RainDeployError):
        scale(world.ctx, CLOUD_SPEC, 1)
    with contextlib.suppress(RainDeployError):
        up(world.ctx, replace(CLOUD_SPEC, name="two", nodes=1))
    assert ("quote", "") in world.cloud.calls
    assert world.cloud.views == []


def test_what_is_shown_without_the_account_says_how_old_it_is(world: World) -> None:
    world.cluster()
    seen_s = time.time()
    status(world.ctx, "one")
    world.cloud.silent = True
    (sentence,) = status(world.ctx, "one").drift
    assert sentence.startswith(
        "it is unknown if the machines run: the API does not answer; "
        f"showing what was recorded at {hour(seen_s, time.time())[:5]}"
    )
    (line,) = list_clusters(world.ctx).clusters
    assert (line.state, line.unknown) == ("unknown", "the API does not answer")
    assert sentence in world.told


def test_a_record_that_cannot_be_written_does_not_stop_a_command_that_looks(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object) -> None:
        raise StateError("the disk is full")

    world.cluster()
    world.cloud.power_off("node-2")
    monkeypatch.setattr(Store, "update_cluster", full)
    assert status(world.ctx, "one").per_hour == pytest.approx(2.1)
    assert [line.state for line in list_clusters(world.ctx).clusters] == ["2 running, 1 stopped"]


# ---- what is off or gone costs less, everywhere


def hours_ago(world: World, hours: float, limit_hours_ago: float | None = None) -> Cluster:
    """Three machines that were made so long ago."""
    cluster, now_s = world.cluster(), time.time()
    assert cluster.bill is not None
    meters = tuple(replace(meter, since_s=now_s - hours * 3600) for meter in cluster.bill.meters)
    limit_s = None if limit_hours_ago is None else now_s - limit_hours_ago * 3600
    cluster = changed(cluster, meters=meters, limit_s=limit_s)
    world.store.save_cluster(cluster)
    return cluster


def prices(world: World) -> tuple[float | None, float | None, float]:
    """The cost by status and by list, and the price that an error names."""
    error = RainDeployError("it failed")
    shown, (line,) = status(world.ctx, "one"), list_clusters(world.ctx).clusters
    add_existing(world.ctx, "one", error)
    named = re.search(r"\(([0-9.]+) CHF per hour", error.still_running or "")
    assert named
    assert shown.per_hour == pytest.approx(float(named[1]))
    return shown.cost, line.cost, float(named[1])


def test_what_is_powered_off_costs_its_disk_from_the_moment_it_was_seen(world: World) -> None:
    cluster = hours_ago(world, 10.0)
    for node in cluster.nodes:
        world.cloud.power_off(node.name)
    assert prices(world) == pytest.approx((30.0, 30.0, 0.3), abs=0.01)
    recorded = world.store.cluster("one")
    assert recorded
    assert recorded.cost(time.time() + 10 * 3600) == pytest.approx(33.0, abs=0.01)
    world.cloud.silent = True
    assert prices(world) == pytest.approx((30.0, 30.0, 0.3), abs=0.01)


@pytest.mark.parametrize("silent", [False, True])
def test_what_its_limit_has_powered_off_costs_its_disk_since_then(world: World, silent: bool) -> None:
    cluster = hours_ago(world, 10.0, limit_hours_ago=5.0)
    for node in cluster.nodes:
        world.cloud.power_off(node.name)
    world.cloud.silent = silent
    assert prices(world) == pytest.approx((15.0 + 1.5, 15.0 + 1.5, 0.3), abs=0.01)


def test_a_machine_that_runs_on_after_its_limit_is_paid_in_full(world: World) -> None:
    hours_ago(world, 10.0, limit_hours_ago=5.0)
    shown = status(world.ctx, "one")
    assert (shown.cost, shown.per_hour) == pytest.approx((30.0, 3.0), abs=0.01)


def test_a_machine_that_is_gone_costs_nothing_more(world: World) -> None:
    cluster = hours_ago(world, 10.0)
    world.cloud.held.pop(("instance", cluster.nodes[1].host.machine))
    assert prices(world) == pytest.approx((30.0, 30.0, 2.0), abs=0.01)
    recorded = world.store.cluster("one")
    assert recorded
    assert recorded.cost(time.time() + 3600) == pytest.approx(32.0, abs=0.01)


def test_a_machine_that_no_list_shows_yet_is_not_gone(world: World) -> None:
    cluster = world.cluster()
    world.cloud.held.pop(("instance", cluster.nodes[1].host.machine))
    assert status(world.ctx, "one").per_hour == 3.0


def test_in_another_account_nothing_is_taken_for_gone(world: World) -> None:
    cluster = changed(hours_ago(world, 10.0), account="EXOother")
    world.store.save_cluster(cluster)
    world.cloud.held.clear()
    assert prices(world)[2] == 3.0


def test_a_machine_that_is_started_costs_its_full_price_again(world: World) -> None:
    cluster = hours_ago(world, 1.0)
    world.cloud.power_off("node-2")
    status(world.ctx, "one")
    awake(world.ctx, cluster, cluster.nodes)
    assert status(world.ctx, "one").per_hour == 3.0
    recorded = world.store.cluster("one")
    assert recorded
    assert recorded.cost(time.time() + 3600) == pytest.approx(6.0, abs=0.01)


def test_extend_names_the_price_of_now(world: World) -> None:
    hours_ago(world, 1.0)
    world.cloud.power_off("node-2")
    assert extend(world.ctx, "one", 3600.0).per_hour == pytest.approx(2.1)


def test_max_cost_counts_with_machines_that_run(world: World) -> None:
    cluster = hours_ago(world, 1.0)
    for node in cluster.nodes:
        world.cloud.power_off(node.name)
    status(world.ctx, "one")
    recorded = world.store.cluster("one")
    assert recorded
    assert recorded.bill
    assert (recorded.bill.per_hour, recorded.bill.per_hour_running) == pytest.approx((0.3, 3.0))
    limit_s = replace(recorded.bill, max_cost=6.0).limit_at(time.time())
    assert limit_s == pytest.approx(time.time() + 3600, abs=5)


# ---- up on what is powered off asks


@pytest.mark.parametrize("off", [("node-1",), ("node-2", "node-3"), ("node-1", "node-2", "node-3")])
def test_up_asks_before_it_starts_what_is_powered_off(world: World, off: tuple[str, ...]) -> None:
    world.cluster(limit_s=time.time() + 7200)
    for name in off:
        world.cloud.power_off(name)
    seen = look(world.ctx, replace(CLOUD_SPEC, nodes=None))
    wanted = plan_up(world.cloud, seen)
    machines = "machine" if len(off) == 1 else "machines"
    assert wanted.question.startswith(f"Start {len(off)} {machines}, 3.00 CHF/hour")
    assert len(wanted.question) <= 80 - len(" [y/N]:")
    assert any(", ".join(off) in sentence for sentence in wanted.offer)
    world.answers.append(False)
    with pytest.raises(UsageError):
        up(world.ctx, replace(CLOUD_SPEC, nodes=None))
    assert [found.state for found in world.cloud.held.values()].count("stopped") == len(off)


def test_up_on_machines_that_run_asks_nothing(world: World) -> None:
    world.cluster(limit_s=time.time() + 7200)
    assert plan_up(world.cloud, look(world.ctx, replace(CLOUD_SPEC, nodes=None))).question == ""


# ---- where the machines are


def test_the_zone_is_in_status_list_and_gc(world: World) -> None:
    cluster = world.cluster()
    world.store.save_cluster(replace(cluster, machines=replace(cluster.machines, zone="de-fra-1")))
    for key, found in world.cloud.held.items():
        world.cloud.held[key] = replace(found, zone="de-fra-1" if found.is_machine else "")
    assert status(world.ctx, "one").zone == "de-fra-1"
    assert [line.zone for line in list_clusters(world.ctx).clusters] == ["de-fra-1"]
    assert [line.zones for line in gc(world.ctx, CLOUD_SPEC, None, delete=False).lines] == [("de-fra-1",)]


@pytest.mark.parametrize(("state", "active"), [(RunState.SHIPPED, ""), (RunState.QUEUED, "r1")])
def test_a_run_that_never_came_into_line_is_not_active(world: World, state: RunState, active: str) -> None:
    cluster = world.cluster()
    run = RunRecord("r1", cluster.id, "one", 1, 7231, "s.py", (), "00", 2.5, Path("/out"), state)
    world.store.save_run(run)
    assert [line.active_run for line in list_clusters(world.ctx).clusters] == [active]
