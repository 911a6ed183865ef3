"""``down``: nothing is lost, forgotten or certified in the wrong account, with a record or without one."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rain_deploy.cluster.apply import delete_surplus
from rain_deploy.cluster.destroy import delete
from rain_deploy.cluster.hosts import pinned
from rain_deploy.cluster.lookup import add_way_out
from rain_deploy.cluster.plan import plan_up
from rain_deploy.cluster.seen import look
from rain_deploy.core.cluster import Bill, Cluster, Node
from rain_deploy.core.machine import Intent, Resource
from rain_deploy.core.run import RunRecord
from rain_deploy.core.spec import ClusterSpec
from rain_deploy.core.text import owner_tag
from rain_deploy.errors import (
    ApiError,
    CredentialsError,
    DownIncomplete,
    HostKeyError,
    InputError,
    KeyRefused,
    NotVerified,
    PullFailed,
    UsageError,
)
from rain_deploy.parts.facts import DEBIAN_12
from rain_deploy.providers.base import Provider
from rain_deploy.state.store import Record
from rain_deploy.verbs.check import check
from rain_deploy.verbs.down import down
from rain_deploy.verbs.gc import gc
from rain_deploy.verbs.scale import scale
from rain_deploy.verbs.sweep import torn_down
from tests.support.values import QUOTE, changed
from tests.unit.fake_cloud import ME, PROVIDER, World

HOUR_S = 3600.0


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World.at(tmp_path)
    world.nodes.said["runs"] = []
    return world


def spec_of(world: World, name: str = "one", **fields: object) -> ClusterSpec:
    del world
    return replace(ClusterSpec(name, PROVIDER, "test", owner=ME), **fields)  # type: ignore[arg-type]


def has_a_run(world: World, cluster: Cluster, state: str = "finished") -> None:
    """Its results are not pulled."""
    out = world.ctx.cwd / "results" / "r1"
    world.store.save_run(RunRecord("r1", cluster.id, cluster.name, 1, 7230, "s.py", (), "", 0.0, out))
    world.nodes.said["runs"] = [{"run": "r1", "state": state, "outcome": "done"}]


def with_one_left_out(cluster: Cluster) -> Cluster:
    return replace(cluster, nodes=cluster.nodes[:-1], left_out=cluster.nodes[-1:])


def meters(cluster: Cluster) -> list[tuple[str, bool]]:
    """Each meter's node, and whether it still runs."""
    return [(meter.name, meter.until_s is None) for meter in (cluster.bill or Bill(QUOTE)).meters]


def as_before(world: World, before: Cluster) -> Cluster:
    """The cluster on record; that its machines were seen is no change."""
    now = world.store.cluster("one")
    assert now
    assert now.bill
    return changed(now, seen_s=before.bill.seen_s if before.bill else 0.0)


# ---- a cluster on record


def test_a_down_that_is_declined_leaves_the_record_as_it_was(world: World) -> None:
    before = with_one_left_out(world.cluster())
    world.store.save_cluster(before)
    has_a_run(world, before, "running")
    world.answers.append(False)
    with pytest.raises(UsageError, match="did not change"):
        down(world.ctx, "one")
    assert as_before(world, before) == before
    assert len(world.names()) == 3


def test_a_down_that_cannot_pull_leaves_the_record_as_it_was(world: World) -> None:
    before = with_one_left_out(world.cluster())
    world.store.save_cluster(before)
    has_a_run(world, before)
    with pytest.raises(PullFailed):
        down(world.ctx, "one")
    assert as_before(world, before) == before


def test_the_nodes_that_are_left_out_go_too(world: World) -> None:
    before = with_one_left_out(world.cluster())
    world.store.save_cluster(before)
    down(world.ctx, "one")
    assert world.names() == []
    assert world.store.cluster("one") is None


def test_a_server_that_was_off_and_fails_at_its_start_is_kept_with_its_results(
    world: World,
) -> None:
    """Whatever keeps results from coming, `sweep` keeps the machine that holds them, and no other."""
    cluster = world.cluster()
    has_a_run(world, cluster)
    world.cloud.power_off("node-1")
    world.nodes.failing.add("interrupted")
    with pytest.raises(PullFailed, match="nothing was deleted"):
        torn_down(world.ctx, "one")
    assert world.names() == ["node-1"]


def test_each_machine_costs_nothing_from_its_delete_on_also_where_the_command_is_killed(world: World) -> None:
    cluster = world.cluster()
    (third,) = (r for r in world.store.resources(cluster.id) if r.name == "node-3")
    record = Record(world.store, "one")
    record.forget(third)
    now = world.store.cluster("one")
    assert now is not None
    assert meters(now) == [("node-1", True), ("node-2", True), ("node-3", False)]
    assert third not in record.resources


def test_a_second_machine_of_a_name_is_deleted_and_the_first_stays_on_record(world: World) -> None:
    cluster = world.cluster()
    second = world.cloud.create(Intent(cluster.id, "one", "instance", "node-2"))
    record = Record(world.store, "one")
    gone, failed = delete(world.ctx, record, (second,))
    assert (gone, failed) == ((second,), {})
    assert "node-2" in {resource.name for resource in record.resources}
    now = world.store.cluster("one")
    assert now is not None
    assert ("node-2", True) in meters(now), "it still costs"


def test_a_machine_that_was_made_and_has_no_meter_yet_is_in_the_cost(world: World) -> None:
    """The command that made it was killed right after."""
    cluster = world.cluster(nodes=2)
    world.store.save_cluster(changed(cluster, meters=()))
    for resource in world.store.resources(cluster.id):
        made_s = time.time() - HOUR_S
        world.store.save_intent(Intent(cluster.id, "one", resource.kind, resource.name, recorded_s=made_s))
    assert down(world.ctx, "one").cost == pytest.approx(2.0, abs=0.1)


def ten_hours_after_two(world: World) -> Cluster:
    """Three machines that were made 12 h ago, with a limit that passed 10 h ago."""
    now_s = time.time()
    cluster = world.cluster(limit_s=now_s - 10 * HOUR_S)
    assert cluster.bill
    metered = tuple(replace(meter, since_s=now_s - 12 * HOUR_S) for meter in cluster.bill.meters)
    cluster = changed(cluster, meters=metered)
    world.store.save_cluster(cluster)
    return cluster


def test_what_was_off_is_in_the_final_cost_with_its_disk_alone(world: World) -> None:
    ten_hours_after_two(world)
    for name in ("node-1", "node-2", "node-3"):
        world.cloud.power_off(name)
    off = 10 * QUOTE.stopped_per_hour
    assert down(world.ctx, "one").cost == pytest.approx(3 * (2.0 + off), abs=0.01)


def test_what_runs_on_after_its_limit_is_in_the_final_cost_in_full(world: World) -> None:
    ten_hours_after_two(world)
    world.cloud.power_off("node-2")
    off = 10 * QUOTE.stopped_per_hour
    assert down(world.ctx, "one").cost == pytest.approx(2 * 12.0 + 2.0 + off, abs=0.01)


def test_without_the_account_the_limit_says_what_was_off(world: World) -> None:
    in_another_account(world, ten_hours_after_two(world))
    off = 10 * QUOTE.stopped_per_hour
    assert down(world.ctx, "one", forget=("all",)).cost == pytest.approx(3 * (2.0 + off), abs=0.01)


# ---- in which account


def in_another_account(world: World, cluster: Cluster) -> Cluster:
    """It was made with another key, and nothing of it is in the account that is asked."""
    world.cloud.held.clear()
    there = changed(cluster, account="EXOother")
    world.store.save_cluster(there)
    return there


def test_another_account_is_no_proof_that_nothing_is_left(world: World) -> None:
    in_another_account(world, world.cluster())
    with pytest.raises(InputError, match="EXOother"):
        down(world.ctx, "one")
    assert world.store.cluster("one") is not None


def test_nor_is_it_where_only_an_intent_is_on_record(world: World) -> None:
    cluster = in_another_account(world, world.cluster(nodes=1))
    for resource in world.store.resources(cluster.id):
        world.store.forget_resource(resource)
    world.store.save_intent(Intent(cluster.id, "one", "instance", "node-1", ME))
    with pytest.raises(InputError, match="EXOother"):
        down(world.ctx, "one")
    with pytest.raises(InputError, match="EXOother"):
        look(world.ctx, spec_of(world))
    assert world.store.resources(cluster.id)


def test_nor_is_one_that_does_not_say(world: World) -> None:
    """It answers again a moment later: nothing is in it, and nothing is proved."""
    in_another_account(world, world.cluster())
    world.cloud.silent = True
    world.cloud.meanwhile = lambda: setattr(world.cloud, "silent", False)
    with pytest.raises(ApiError, match="EXOother"):
        down(world.ctx, "one")
    assert world.store.cluster("one") is not None


def test_what_another_owner_gave_the_id_of_ours_is_not_touched(world: World) -> None:
    cluster = world.cluster(nodes=2)
    theirs = replace(
        Resource(cluster.id, "instance", "node-1", "theirs", cluster="one"),
        owner=owner_tag("colleague"),
        state="stopped",
        address="10.9.9.9",
    )
    world.cloud.add(theirs)
    plan = plan_up(world.cloud, look(world.ctx, spec_of(world)))
    assert (plan.leave, plan.delete, plan.start, plan.create) == ((), (), (), ())
    down(world.ctx, "one")
    assert list(world.cloud.held.values()) == [theirs]
    assert ("start", "theirs") not in world.cloud.calls


# ---- a node that comes back, a scale that makes nothing


def test_a_node_that_comes_back_is_known_by_the_key_that_it_was_given(world: World) -> None:
    cluster = with_one_left_out(world.cluster())
    given = replace(cluster.left_out[0], host=replace(cluster.left_out[0].host, host_keys=("new key",)))
    cluster = replace(cluster, left_out=(given,))
    (host,) = pinned(cluster, (replace(given.host, host_keys=("first key",)),))
    assert host.host_keys == ("new key",)


def test_a_scale_that_makes_no_machine_asks_for_no_price(world: World) -> None:
    """So what was to be spent is spent, or the limit has passed: machines that go cost less."""
    world.cluster(nodes=3, max_cost=0.001, limit_s=time.time() - HOUR_S)
    scale(world.ctx, ClusterSpec("one", PROVIDER, "test"), 2)
    assert world.names() == ["node-1", "node-2"]
    assert "quote" not in dict(world.cloud.calls)


def test_a_machine_that_is_being_deleted_is_paid_for_anew(world: World) -> None:
    cluster = world.cluster(nodes=2)
    key = ("instance", cluster.nodes[1].host.machine)
    world.cloud.held[key] = replace(world.cloud.held[key], state="destroying")
    plan = plan_up(world.cloud, look(world.ctx, spec_of(world)))
    assert [intent.name for intent in plan.create] == ["node-2"]
    assert plan.offer


def test_check_does_not_say_that_credentials_are_accepted_where_nobody_answered(world: World) -> None:
    world.cluster()
    world.cloud.silent = True
    result = check(world.ctx, spec_of(world))
    assert [(line.subject, line.state) for line in result.findings[:1]] == [("credentials", "refused")]
    assert "does not answer" in str(result.problem)


def test_surplus_that_stays_is_still_on_record(world: World) -> None:
    cluster = world.cluster(nodes=3)
    world.store.save_cluster(replace(cluster, nodes=cluster.nodes[:2]))
    world.cloud.refused["instance", cluster.nodes[2].host.machine] = DownIncomplete("it is protected")
    plan = plan_up(world.cloud, look(world.ctx, spec_of(world, nodes=2)))
    with pytest.raises(DownIncomplete):
        delete_surplus(world.ctx, Record(world.store, "one"), plan)
    assert "node-3" in {resource.name for resource in world.store.resources(cluster.id)}


# ---- a cluster that is not on record


def forgotten(world: World) -> None:
    """The machines are there and the state file is lost."""
    world.store.forget_cluster(world.cluster())


def test_without_a_record_what_the_account_has_is_named_with_what_deletes_it(world: World) -> None:
    forgotten(world)
    with pytest.raises(NotVerified, match="instance node-2") as caught:
        down(world.ctx, "one", account=spec_of(world))
    assert caught.value.next_step == "rain-deploy gc --delete -c one"
    assert len(world.names()) == 3, "it deletes nothing"


def test_without_a_record_and_with_nothing_in_the_account_it_is_well(world: World) -> None:
    world.cluster("another")
    result = down(world.ctx, "one", account=spec_of(world))
    assert (result.nothing, len(result.certificate)) == (True, 1)


def test_what_another_owner_has_under_the_name_is_not_meant(world: World) -> None:
    theirs = Resource("id", "instance", "node-1", "x", owner=owner_tag("colleague"), cluster="one")
    world.cloud.add(theirs)
    assert down(world.ctx, "one", account=spec_of(world)).nothing


def test_what_is_being_deleted_is_not_left(world: World) -> None:
    world.cloud.add(
        Resource("id", "instance", "node-1", "x", owner=owner_tag(ME), cluster="one", state="destroying")
    )
    assert down(world.ctx, "one", account=spec_of(world)).nothing


def test_an_account_that_does_not_answer_proves_nothing(world: World) -> None:
    world.cloud.silent = True
    with pytest.raises(NotVerified, match="does not answer") as caught:
        down(world.ctx, "one", account=spec_of(world))
    assert caught.value.next_step == "rain-deploy gc -c one"


def test_credentials_that_are_refused_prove_nothing(world: World) -> None:
    def refused(_: str) -> Provider:
        raise CredentialsError("the key was revoked")

    ctx = replace(world.ctx, provider_for=refused)
    with pytest.raises(NotVerified, match="the key was revoked"):
        down(ctx, "one", account=spec_of(world))


def test_nobody_is_asked_where_no_credentials_are_found(world: World) -> None:
    forgotten(world)
    result = down(world.ctx, "one")
    assert (result.nothing, result.certificate, world.cloud.calls) == (True, (), [])


# ---- forgotten: nobody can reach it any more


def asked(world: World) -> list[str]:
    """The questions from now on; the answers are in ``world.answers``."""
    questions: list[str] = []
    answer = world.ctx.confirm

    def confirm(question: str) -> bool:
        questions.append(question)
        return answer(question)

    world.ctx = replace(world.ctx, confirm=confirm)
    return questions


def without_a_key(world: World) -> None:
    """The key was deleted at the cloud."""

    def refused(_: str) -> Provider:
        raise KeyRefused("Exoscale does not accept the API key")

    world.ctx = replace(world.ctx, provider_for=refused)


def empty_account(world: World) -> None:
    world.cloud.held.clear()


@pytest.mark.parametrize("lost", [empty_account, without_a_key])
def test_a_cluster_whose_key_is_gone_is_forgotten_after_a_question_that_tells_all(
    world: World, lost: Callable[[World], None]
) -> None:
    cluster = changed(world.cluster(nodes=2), account="EXOother")
    world.store.save_cluster(cluster)
    lost(world)
    questions = asked(world)
    result = down(world.ctx, "one", forget=("all",))
    assert len(questions) == 1
    assert world.store.clusters() == ()
    told = "\n".join(result.forgotten)
    for machine in cluster.nodes:
        assert f"id {machine.host.machine}" in told
        assert machine.host.address in told
        assert machine.host.machine in world.told, "it is said before the question"
    for what in ("CHF per hour", "EXOother", owner_tag(ME), "rain-deploy gc --delete -c one"):
        assert what in told
    assert result.certificate == ()


@pytest.mark.parametrize(
    "error",
    [
        CredentialsError("no Exoscale credentials found", next_step="exo config"),
        CredentialsError("the clock of this machine is wrong", next_step="set the clock"),
        CredentialsError("the API key may not do list-instances (403)"),
    ],
)
def test_a_key_that_was_not_refused_forgets_nothing(world: World, error: CredentialsError) -> None:
    """What is wrong is here, and can be mended."""
    world.store.save_cluster(changed(world.cluster(), account="EXOother"))

    def fails(_: str) -> Provider:
        raise error

    world.ctx = replace(world.ctx, provider_for=fails)
    with pytest.raises(CredentialsError, match="nothing was forgotten") as caught:
        down(world.ctx, "one", forget=("all",))
    assert "with key EXOother or any that you have now" in str(caught.value.next_step)
    assert world.store.cluster("one")


@pytest.mark.parametrize("account", ["EXOkey", "EXOother"])
def test_a_run_goes_on_where_forgetting_is_refused(world: World, account: str) -> None:
    cluster = world.cluster(account=account)
    has_a_run(world, cluster, "running")
    with pytest.raises(InputError):
        down(world.ctx, "one", forget=("all",))
    assert world.nodes.asked == [], "no node is asked to cancel anything"


def test_no_private_key_of_a_forgotten_cluster_is_kept(world: World) -> None:
    cluster = in_another_account(world, world.cluster())
    keys = world.ctx.home / "clusters" / cluster.id
    (keys / "host_keys").mkdir(parents=True)
    (keys / "host_keys" / "node-1").write_text("a private key")
    down(world.ctx, "one", forget=("all",))
    assert not keys.exists()


@pytest.mark.parametrize("name", ["all", "node-1"])
def test_a_cluster_without_a_node_on_record_has_nothing_to_forget(world: World, name: str) -> None:
    cluster = of_ones_own(world)
    world.store.save_cluster(replace(cluster, nodes=()))
    with pytest.raises(InputError, match="no node on record") as caught:
        down(world.ctx, "one", forget=(name,))
    assert caught.value.next_step == "rain-deploy down -c one"


def left_of(world: World, **facts: Any) -> str:
    """What is said of the first of two hosts of such facts."""
    cluster = of_ones_own(world, nodes=2)
    nodes = [replace(node, facts=replace(DEBIAN_12, **facts)) for node in cluster.nodes]
    world.store.save_cluster(replace(cluster, nodes=tuple(nodes)))
    gone(world, nodes[0])
    return down(world.ctx, "one", forget=("node-1",)).forgotten[0]


def test_what_removes_the_rest_of_a_host_works_for_the_user_who_logs_in(world: World) -> None:
    as_root = left_of(world, uid=0)
    assert "sudo" not in as_root
    assert "nft delete table" in as_root
    with_sudo = left_of(world, uid=1000, sudo=True)
    command = shlex.split(with_sudo.partition("to remove them: ")[2])[-1]
    sudo, shell, flag, script = shlex.split(command)
    assert (sudo, shell, flag) == ("sudo", "sh", "-c")
    for what in ("kill -9", "rm -rf", "nft delete table"):
        assert what in script
    for without in ({"uid": 1000}, {"uid": 1000, "sudo": False}):
        plain = left_of(world, **without)
        assert "sudo" not in plain
        assert "filter" not in plain
        assert "nft" not in plain


def test_a_no_forgets_nothing(world: World) -> None:
    in_another_account(world, world.cluster())
    world.answers.append(False)
    with pytest.raises(UsageError, match="nothing was forgotten"):
        down(world.ctx, "one", forget=("all",))
    assert world.store.cluster("one")
    assert world.store.resources(world.store.clusters()[0].id)


@pytest.mark.parametrize("names", [("all",), ("node-2",), ("node-1", "node-2", "node-3")])
def test_a_rented_machine_that_the_account_shows_is_never_forgotten(
    world: World, names: tuple[str, ...]
) -> None:
    """Neither one by one, nor with the key that made it, nor with a new key of the same account."""
    for account in ("EXOkey", "EXOother"):
        world.cluster(account=account)
        with pytest.raises(InputError) as caught:
            down(world.ctx, "one", forget=names)
        assert "rain-deploy down -c one" in str(caught.value.next_step)
        assert len(world.names()) == 3
        assert world.store.cluster("one")
        down(world.ctx, "one")


def test_an_account_that_is_silent_for_a_moment_is_not_lost(world: World) -> None:
    in_another_account(world, world.cluster())
    world.cloud.silent = True
    with pytest.raises(ApiError, match="nothing was forgotten"):
        down(world.ctx, "one", forget=("all",))
    assert world.store.cluster("one")


def test_every_command_that_refuses_for_another_account_names_the_way_out(world: World) -> None:
    in_another_account(world, world.cluster())
    for verb in (lambda: down(world.ctx, "one"), lambda: look(world.ctx, spec_of(world))):
        with pytest.raises(InputError) as caught:
            verb()
        assert "rain-deploy down -c one --forget all" in str(caught.value.next_step)
    for cluster in ("one", None):
        world.events.clear()
        gc(world.ctx, spec_of(world), cluster, delete=True)
        assert "rain-deploy down -c one --forget all" in world.told
    gc(world.ctx, spec_of(world), "another", delete=True)
    assert world.told.count("--forget all") == 1


def test_results_on_a_machine_without_an_account_are_pulled_or_given_up_first(world: World) -> None:
    has_a_run(world, in_another_account(world, world.cluster()))
    with pytest.raises(PullFailed, match="results could not be pulled"):
        down(world.ctx, "one", forget=("all",))
    without_a_key(world)
    with pytest.raises(PullFailed, match="results could not be pulled"):
        down(world.ctx, "one", forget=("all",))
    assert down(world.ctx, "one", forget=("all",), discard_results=True).forgotten
    assert [run.state for run in world.store.runs("one")] == ["finished"]


def of_ones_own(world: World, nodes: int = 3) -> Cluster:
    """A cluster on machines of the user, which nobody rents."""
    cluster = replace(world.cluster(nodes=nodes), bill=None)
    world.store.save_cluster(cluster)
    world.cloud.priced = False
    world.cloud.traits = replace(world.cloud.traits, owned=False, needs_wall=True)
    return cluster


def gone(world: World, node: Node) -> None:
    """It was thrown away: nobody answers."""
    key = ("instance", node.host.machine)
    world.cloud.held[key] = replace(world.cloud.held[key], address="")


def installed_anew(world: World, node: Node) -> None:
    """It has another host key."""
    world.nodes.strangers.add(node.host.address)


def test_results_that_went_with_their_machine_keep_nothing(world: World) -> None:
    cluster = world.cluster()
    has_a_run(world, cluster)
    del world.cloud.held["instance", cluster.server.host.machine]
    result = down(world.ctx, "one")
    assert result.pulled == ()
    assert "not pulled: r1: node-1: its machine is gone from the account" in world.told
    assert world.names() == []
    assert world.store.cluster("one") is None


@pytest.mark.parametrize("lost", [gone, installed_anew])
@pytest.mark.parametrize("index", [0, 2])
def test_a_host_that_is_gone_for_good_is_forgotten_and_all_others_are_ended(
    world: World, lost: Callable[[World, Node], None], index: int
) -> None:
    cluster = of_ones_own(world)
    node = cluster.nodes[index]
    lost(world, node)
    with pytest.raises((NotVerified, HostKeyError)) as caught:
        down(world.ctx, "one")
    add_way_out(world.ctx, "one", caught.value)
    assert f"rain-deploy down -c one --forget {node.name}" in str(caught.value.next_step)
    world.nodes.asked.clear()
    questions = asked(world)
    (told,) = down(world.ctx, "one", forget=(node.name,)).forgotten
    assert len(questions) == 1
    others = {each.host.machine for each in cluster.nodes if each is not node}
    assert {machine for machine, verb in world.nodes.asked if verb == "sh"} == others
    for what in (node.host.address, cluster.layout.cluster, f"rain_deploy_{cluster.id}", "kill -9"):
        assert what in told
    assert world.store.cluster("one") is None


def test_all_hosts_may_be_gone_for_good(world: World) -> None:
    cluster = of_ones_own(world, nodes=2)
    for node in cluster.nodes:
        gone(world, node)
    result = down(world.ctx, "one", forget=("all",))
    assert len(result.forgotten) == 2
    assert world.store.cluster("one") is None


def test_results_on_a_host_that_is_forgotten_are_given_up_only_by_name(world: World) -> None:
    cluster = of_ones_own(world)
    has_a_run(world, cluster)
    gone(world, cluster.server)
    with pytest.raises(PullFailed) as caught:
        down(world.ctx, "one")
    add_way_out(world.ctx, "one", caught.value)
    assert "rain-deploy down -c one --forget node-1" in str(caught.value.next_step)
    with pytest.raises(PullFailed, match="r1") as caught:
        down(world.ctx, "one", forget=("node-1",))
    assert "--forget node-1 --discard-results" in str(caught.value.next_step)
    assert world.store.cluster("one") == cluster
    down(world.ctx, "one", forget=("node-1",), discard_results=True)
    assert world.store.cluster("one") is None


def test_a_wrong_name_or_a_no_forgets_no_host(world: World) -> None:
    cluster = of_ones_own(world)
    with pytest.raises(InputError, match="no node-9; it has node-1, node-2, node-3"):
        down(world.ctx, "one", forget=("node-9",))
    world.answers.append(False)
    with pytest.raises(UsageError):
        down(world.ctx, "one", forget=("node-3",))
    assert world.store.cluster("one") == cluster


def test_a_forgotten_host_stays_forgotten_if_the_rest_cannot_go_yet(world: World) -> None:
    cluster = of_ones_own(world)
    gone(world, cluster.nodes[1])
    gone(world, cluster.nodes[2])
    with pytest.raises(NotVerified):
        down(world.ctx, "one", forget=("node-3",))
    left = world.store.cluster("one")
    assert left
    assert [node.name for node in left.nodes] == ["node-1", "node-2"]
    down(world.ctx, "one", forget=("node-2",))
    assert world.store.cluster("one") is None
