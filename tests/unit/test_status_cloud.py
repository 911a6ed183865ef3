"""status and list of machines that cost money: the record beside what the cloud tells."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from rain_deploy.core.model import Found, ResourceRef
from rain_deploy.core.owner import owner_tag
from rain_deploy.errors import CredentialsError, Drift, HostKeyError
from rain_deploy.flows.status import list_clusters, status
from rain_deploy.providers.base import Provider
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
    stray = ResourceRef(cluster.id, "instance", "node-9", "zone/stray")
    world.cloud.add(Found(stray, owner_tag(ME), "one", state="running"))
    other = ResourceRef("another", "instance", "node-1", "zone/other")
    world.cloud.add(Found(other, owner_tag(ME), "one", state="error"))
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
    world.cloud.start(ResourceRef("", "instance", "node-3", "id-4"))
    assert status(world.ctx, "one").drift == ("node-3: its machine has another address now (10.9.9.9)",)


def test_a_cloud_that_does_not_answer_is_told_beside_what_the_nodes_say(world: World) -> None:
    world.cluster()
    world.cloud.silent = True
    result = status(world.ctx, "one")
    assert result.drift == ("the cloud did not tell how the machines are: the API does not answer",)
    assert [line.state for line in result.nodes] == ["ready", "ready", "ready"]


def test_without_credentials_the_record_and_the_nodes_still_speak(world: World) -> None:
    def no_key(_name: str) -> Provider:
        raise CredentialsError("no key is found")

    world.cluster()
    ctx = world.ctx
    without = type(ctx)(ctx.home, ctx.store, ctx.transport, ctx.here, no_key, ctx.emit, ctx.confirm, ctx.cwd)
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
