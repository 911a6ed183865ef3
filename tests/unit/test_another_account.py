"""An account that does not have a cluster, or does not open, says nothing of its machines."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from rain_deploy.cluster.power import awake
from rain_deploy.core.cluster import Cluster
from rain_deploy.core.run import RunRecord, RunState
from rain_deploy.core.spec import ClusterSpec
from rain_deploy.errors import CredentialsError, InputError
from rain_deploy.runs.states import seen_runs
from rain_deploy.verbs.check import check
from rain_deploy.verbs.list import list_clusters
from rain_deploy.verbs.runs import runs
from rain_deploy.verbs.scale import extend
from rain_deploy.verbs.status import status
from tests.support.values import changed
from tests.unit.fake_cloud import ME, PROVIDER, World

HOUR_S = 3600.0
READY = {"services": {"keeper": 1}, "governor": {"ready": True}, "runs": []}
HERE = "created with API key EXOother, and this one is EXOkey"


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World.at(tmp_path)
    world.nodes.said |= {"status": READY, "runs": []}
    return world


def elsewhere(world: World) -> Cluster:
    """A cluster whose machines answer, and whose account is not the one that is asked."""
    limit_s = time.time() + HOUR_S
    cluster = world.cluster(account="EXOother", limit_s=limit_s, ttl_limit_s=limit_s)
    theirs = world.cloud.survey()
    world.cloud.survey = lambda: ()  # type: ignore[method-assign]
    assert theirs
    return cluster


def test_status_asks_the_nodes_and_does_not_call_their_machines_gone(world: World) -> None:
    elsewhere(world)
    result = status(world.ctx, "one")
    assert [line.state for line in result.nodes] == ["ready", "ready", "ready"]
    (sentence,) = result.drift
    assert HERE in sentence
    assert result.per_hour == 3.0


def test_list_says_unknown_and_why_once_for_each_cluster(world: World) -> None:
    here = world.cluster("two", nodes=1)
    mine = world.cloud.survey()
    elsewhere(world)
    world.cloud.survey = lambda: mine  # type: ignore[method-assign]
    lines = {line.name: line for line in list_clusters(world.ctx).clusters}
    assert (lines["two"].state, lines["two"].unknown) == ("1 running", "")
    assert lines["one"].state == "unknown"
    assert HERE in lines["one"].unknown
    assert world.told.count("it is unknown if the machines run") == 1
    assert here.name == "two"


def test_a_run_goes_on_and_its_node_is_asked(world: World) -> None:
    cluster = elsewhere(world)
    out = world.ctx.cwd / "results"
    world.store.save_run(
        RunRecord("r1", cluster.id, "one", 1, 7231, "s.py", (), "00", 2.5, out, RunState.RUNNING)
    )
    world.nodes.said["runs"] = [{"run": "r1", "state": "running"}]
    assert seen_runs(world.ctx, cluster)[1] == ""
    assert [line.state for line in runs(world.ctx, "one").runs] == ["running"]
    assert [line.active_run for line in list_clusters(world.ctx).clusters] == ["r1"]


def test_a_node_that_does_not_answer_is_not_called_gone(world: World) -> None:
    cluster = elsewhere(world)
    world.cloud.power_off("node-1")
    assert awake(world.ctx, cluster, (cluster.server,)) == cluster
    assert HERE in world.told


def test_extend_moves_nothing_that_it_cannot_move_everywhere(world: World) -> None:
    cluster = elsewhere(world)
    with pytest.raises(InputError, match="EXOother"):
        extend(world.ctx, "one", HOUR_S)
    now = world.store.cluster("one")
    assert now
    assert now.limit_s == cluster.limit_s
    assert ("set_expiry", "") not in world.cloud.calls


def test_a_new_key_of_the_same_account_sees_everything(world: World) -> None:
    world.cluster(account="EXOother")
    assert status(world.ctx, "one").drift == ()
    assert [line.state for line in list_clusters(world.ctx).clusters] == ["3 running"]


# ---- a key that the cloud refuses


def refused(world: World) -> None:
    def survey() -> tuple[()]:
        raise CredentialsError("Exoscale refused the API key (403)", next_step="exo config")

    world.cloud.survey = survey  # type: ignore[method-assign]


def test_check_ends_with_the_code_of_a_refused_key(world: World) -> None:
    world.cluster()
    refused(world)
    problem = check(world.ctx, ClusterSpec("one", PROVIDER, "test", owner=ME)).problem
    assert problem
    assert (problem.exit_code, problem.message) == (20, "Exoscale refused the API key (403)")
    assert problem.next_step == "exo config"


def test_no_view_says_of_a_refused_key_that_nobody_answered(world: World) -> None:
    cluster = changed(world.cluster(), limit_s=time.time() + HOUR_S)
    refused(world)
    (sentence,) = status(world.ctx, "one").drift
    list_clusters(world.ctx)
    world.nodes.strangers.clear()
    world.cloud.power_off("node-1")
    awake(replace(world.ctx), cluster, (cluster.server,))
    for said in (sentence, world.told):
        assert "Exoscale refused the API key (403)" in said
        assert "did not answer" not in said
