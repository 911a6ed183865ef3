"""status and list of machines that cost money: the record beside what the cloud tells."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from rain_deploy.core.machine import Resource
from rain_deploy.core.run import RunRecord, RunState
from rain_deploy.core.text import owner_tag
from rain_deploy.errors import CredentialsError, Drift, HostKeyError
from rain_deploy.providers.base import Provider
from rain_deploy.verbs.list import list_clusters
from rain_deploy.verbs.status import status
from tests.support.values import changed
from tests.unit.fake_cloud import ME, World

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
        "node-9: a machine of this cluster that is not on record (zone/stray)",
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


def test_a_machine_with_another_address_is_told(world: World) -> None:
    world.cluster()
    world.cloud.power_off("node-3", address="10.9.9.9")
    world.cloud.start(Resource("", "instance", "node-3", "id-4"))
    assert status(world.ctx, "one").drift == ("node-3: its machine has another address now (10.9.9.9)",)


def test_a_cloud_that_does_not_answer_is_told_beside_what_the_nodes_say(world: World) -> None:
    world.cluster()
    world.cloud.silent = True
    result = status(world.ctx, "one")
    assert result.drift == (
        "the cloud did not answer, so the state of the machines is unknown: the API does not answer",
    )
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
    assert result.drift[0] == "its last `up` did not end"
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
