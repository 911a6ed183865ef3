"""Who reaches the machines: check, status, up and scale see the same difference."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from rain_deploy.cluster.plan import plan_up
from rain_deploy.cluster.seen import look
from rain_deploy.core.events import Notice
from rain_deploy.core.machine import Reach
from rain_deploy.core.spec import ClusterSpec
from rain_deploy.errors import ApiError, Drift, InputError
from rain_deploy.verbs.check import check
from rain_deploy.verbs.scale import scale
from rain_deploy.verbs.status import status
from rain_deploy.verbs.up import plan, up
from tests.unit.fake_cloud import ME, PROVIDER, World

SPEC = ClusterSpec("one", PROVIDER, "test", owner=ME)
OPENS = ("SSH (tcp 22) is open to 203.0.113.7/32",)
MISSING = "tcp 7210 is not open to the machines of this cluster"
DANGER = "security group g opens Rain's ports (tcp 1-9000 to 0.0.0.0/0)"


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World.at(tmp_path)
    world.nodes.said["status"] = {"services": {"keeper": 1}, "governor": {"ready": True}, "runs": []}
    world.cluster(limit_s=time.time() + 7200)
    world.cloud.reached = Reach(OPENS)
    return world


def test_what_is_as_it_should_be_is_ok_everywhere(world: World) -> None:
    result = check(world.ctx, SPEC)
    assert result.problem is None
    assert [(line.state, line.text) for line in result.findings if line.subject == "security group"] == [
        ("ok", OPENS[0])
    ]
    assert status(world.ctx, "one", check=True).problem is None


def test_a_missing_rule_is_a_change_for_check_drift_for_status_and_told_by_up(world: World) -> None:
    world.cloud.reached = Reach(OPENS, repairs=(MISSING,))
    result = check(world.ctx, SPEC)
    assert [line.text for line in result.findings if line.state == "change"] == [MISSING]
    shown = status(world.ctx, "one", check=True)
    assert shown.drift == (f"security group: {MISSING}",)
    assert isinstance(shown.problem, Drift)
    assert f"security group, to be repaired: {MISSING}" in plan(world.ctx, SPEC).offer
    assert plan_up(world.cloud, look(world.ctx, SPEC)).repairs == (MISSING,)


@pytest.mark.parametrize("nodes", [2, 4])
def test_ports_that_are_open_to_strangers_are_refused_by_all_in_the_same_words(
    world: World, nodes: int
) -> None:
    world.cloud.reached = Reach(OPENS, refused=DANGER, next_step="exo compute security-group rule delete g r")
    held = dict(world.cloud.held)
    problem = check(world.ctx, SPEC).problem
    assert problem
    assert (problem.exit_code, problem.message) == (10, DANGER)
    with pytest.raises(InputError) as by_up:
        up(world.ctx, SPEC)
    with pytest.raises(InputError) as by_scale:
        scale(world.ctx, SPEC, nodes)
    for caught in (by_up.value, by_scale.value):
        assert (caught.message, caught.next_step) == (DANGER, world.cloud.reached.next_step)
    assert status(world.ctx, "one", check=True).drift == (
        f"{DANGER}; next: exo compute security-group rule delete g r",
    )
    assert world.cloud.held == held


def test_what_everybody_reaches_because_somebody_wants_it_is_a_warning(world: World) -> None:
    sentence = "tcp 22 is open to EVERY ADDRESS OF THE INTERNET: 0.0.0.0/0"
    world.cloud.reached = Reach((f"SSH: {sentence}",), warnings=(sentence,))
    assert status(world.ctx, "one", check=True).problem is None
    assert Notice(sentence, warning=True) in world.events
    assert check(world.ctx, SPEC).problem is None


def test_rules_that_cannot_be_read_do_not_stop_status(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(*_arguments: object) -> Reach:
        raise ApiError("the API does not answer")

    monkeypatch.setattr(world.cloud, "reach", silent)
    assert status(world.ctx, "one").drift == (
        "the rules of the security group are unknown: the API does not answer",
    )


def test_a_new_cluster_offers_what_it_will_open(world: World) -> None:
    world.cloud.reached = Reach(("SSH (tcp 22) opens to you",), repairs=("it is closed",))
    seen = look(world.ctx, replace(SPEC, name="two"))
    wanted = plan_up(world.cloud, seen)
    assert "SSH (tcp 22) opens to you" in wanted.offer
    assert wanted.repairs == ()
