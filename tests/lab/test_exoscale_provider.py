"""The provider on the lab's account: what it makes, adopts, refuses and deletes.

Machines have no SSH here (tests/contract has the suite of all providers).  Row numbers are those of the fault
matrix.
"""

from __future__ import annotations

import base64
import dataclasses
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from rain_deploy.core.cluster import Cluster
from rain_deploy.core.machine import Intent, Reach, Resource
from rain_deploy.core.spec import ClusterSpec
from rain_deploy.core.text import owner_tag
from rain_deploy.errors import (
    ApiError,
    CredentialsError,
    DownIncomplete,
    InputError,
    PartlyUp,
    QuotaError,
    RainDeployError,
)
from rain_deploy.providers.exoscale.account import Account
from rain_deploy.providers.exoscale.api import Api
from rain_deploy.providers.exoscale.labels import labels, shared_name
from rain_deploy.providers.exoscale.patience import Patience
from rain_deploy.providers.exoscale.provider import ExoscaleProvider
from tests.lab.faults import Fault, reply
from tests.lab.lab import Lab
from tests.lab.machines import NoMachines
from tests.lab.store import Group
from tests.support.values import billed, cluster_spec

OWNER = "ada"
CLUSTER = billed(Cluster("ab12cd34ef", "demo", "exoscale", 0.0, owner=OWNER), limit_s=1_900_000_000.0)
ALLOWED = cluster_spec(allow_ip=("203.0.113.7",))
OPERATOR = "198.51.100.9"


def user_data(
    *, host_key_private: str, host_key_public: str, limit_s: float | None, idle_s: float | None
) -> bytes:
    return f"{host_key_private}|{host_key_public}|{limit_s}|{idle_s}".encode()


@dataclass
class Time:
    """A clock that pauses move: an hour passes at once; operations of the lab take a little real time."""

    now_s: float = 1000.0
    paused_s: float = field(default=0.0)

    def pause(self, seconds: float) -> None:
        self.now_s += max(seconds, 0.001)  # no pause is shorter, whatever rounding left of it
        self.paused_s += seconds
        time.sleep(0.004)


@dataclass
class World:
    """A lab and commands of one person's home on it."""

    lab: Lab
    home: Path
    owner: str = OWNER
    time: Time = field(default_factory=Time)
    told: list[str] = field(default_factory=list)

    def provider(self, **patience: Any) -> ExoscaleProvider:
        """As a new process has it."""
        account = Account(self.lab.key, self.lab.secret, self.lab.zone, self.lab.url, "the test")
        clock = {"clock": lambda: self.time.now_s, "pause": self.time.pause}
        api = Api(account, patience=Patience(**(clock | patience)), notice=self.told.append)
        return ExoscaleProvider(self.home, api, user_data, owner=self.owner)

    def up(
        self, nodes: int, wanted: ClusterSpec = ALLOWED, provider: ExoscaleProvider | None = None
    ) -> tuple[Resource, ...]:
        """As the flow does it: kind by kind, those of one kind at the same time, then settled."""
        provider = provider or self.provider()
        made: list[Resource] = []
        intents = provider.intents(spec(wanted), CLUSTER, nodes)
        with ThreadPoolExecutor(8) as pool:
            for kind in dict.fromkeys(intent.kind for intent in intents):
                made += pool.map(provider.create, [intent for intent in intents if intent.kind == kind])
        assert provider.settle(CLUSTER, tuple(made)) == {}
        return tuple(made)

    def prepared(self, provider: ExoscaleProvider) -> Intent:
        """All is made but the one node; its intent."""
        *shared, node = provider.intents(spec(), CLUSTER, 1)
        for intent in shared:
            provider.create(intent)
        return node

    @property
    def group(self) -> Group:
        (group,) = (each for each in self.lab.store.groups.values() if each.name != "default")
        return group

    def opened(self) -> set[tuple[int, int, str]]:
        """(first port, last port, who) of the cluster's group."""
        rules = self.group.rules
        assert all((rule["protocol"], rule["flow-direction"]) == ("tcp", "ingress") for rule in rules)
        assert len({rule["description"] for rule in rules}) == len(rules)
        who = (rule.get("network") or rule["security-group"]["id"] for rule in rules)
        return {(rule["start-port"], rule["end-port"], each) for rule, each in zip(rules, who, strict=True)}

    def expected(self, *networks: str, port: int = 22) -> set[tuple[int, int, str]]:
        """What must be open, and nothing else."""
        rain = {(first, last, self.group.id) for first, last in ((7210, 7210), (7230, 7299), (7301, 8300))}
        return rain | {(port, port, network) for network in networks}

    def writes(self) -> list[str]:
        return [request.operation for request in self.lab.log if request.method != "GET"]


def spec(wanted: ClusterSpec = ALLOWED, **fields: Any) -> ClusterSpec:
    return dataclasses.replace(wanted, **fields)


def machines(wanted: ClusterSpec, **fields: Any) -> ClusterSpec:
    return dataclasses.replace(wanted, machines=dataclasses.replace(wanted.machines, **fields))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with Lab(NoMachines("127.4"), host="127.4.1.1", latency_s=0.01, source_ip=OPERATOR) as lab:
        yield World(lab, tmp_path)


# ---- made


def test_what_is_made_is_listed_and_all_of_it_goes(world: World) -> None:
    provider = world.provider()
    made = world.up(3, machines(ALLOWED, anti_affinity=True), provider)
    assert {ref.owner for ref in made} == {owner_tag(OWNER)}
    assert [ref.kind for ref in made] == ["ssh-key", "security-group", "anti-affinity-group"] + [
        "instance"
    ] * 3
    assert world.provider().list(OWNER) == made  # another process, from the cloud alone
    assert provider.list("somebody else") == ()
    for ref in reversed(made):
        provider.delete(ref)
    assert provider.cloud.survey() == ()
    assert world.lab.left() == ()
    assert all(request.documented and request.signed for request in world.lab.log)


def test_an_instance_is_asked_for_with_all_that_makes_it_ours(world: World) -> None:
    key, group, node = world.up(1, machines(ALLOWED, idle_s=3600.0))
    (create,) = world.lab.log.of("create-instance")
    body = create.json
    assert body["name"] == "rd-demo-ab12cd34ef-1"
    assert body["labels"] == {
        "rain-deploy": "v1",
        "rain-deploy-owner": owner_tag(OWNER),
        "rain-deploy-cluster": "c-demo",
        "rain-deploy-id": "i-ab12cd34ef",
        "rain-deploy-node": "node-1",
        "rain-deploy-expires": "t1900000000",
    }
    assert body["security-groups"] == [{"id": group.ref}]
    assert body["ssh-keys"] == [{"name": key.ref}]
    assert (body["disk-size"], body["public-ip-assignment"]) == (20, "inet4")
    private, public, limit, idle = base64.b64decode(body["user-data"]).decode().split("|")
    assert (float(limit), float(idle)) == (1_900_000_000.0, 3600.0)
    host_key = world.home / "clusters" / CLUSTER.id / "host_keys" / "node-1"
    assert host_key.read_text(encoding="ascii") == private
    assert host_key.stat().st_mode & 0o777 == 0o600
    (host,) = world.provider().hosts(CLUSTER, (node,))
    assert host.host_keys == (public,)
    assert host.machine == node.ref.partition("/")[2]
    assert host.user == "debian"


def test_nodes_spread_over_groups_of_eight(world: World) -> None:
    world.up(10, cluster_spec(allow_ip=ALLOWED.allow_ip, anti_affinity=True, instance_type="tiny"))
    sizes = sorted(
        len([vm for vm in world.lab.instances() if each in vm.spreads]) for each in world.lab.store.spreads
    )
    assert sizes == [2, 8]


def test_eight_creates_are_in_flight_at_once_and_what_they_share_is_looked_up_once(world: World) -> None:
    provider = world.provider()
    provider.cloud.quote(spec(), CLUSTER, 8)
    world.lab.faults.barrier("create-instance", 8)
    world.up(8, provider=provider)
    assert world.lab.log.peak("create-instance") == 8
    for once in ("list-zones", "list-templates", "list-quotas", "register-ssh-key", "create-security-group"):
        assert len(world.lab.log.of(once)) == 1, once


def test_calls_per_node_are_constant_apart_from_polling(world: World) -> None:
    def calls(nodes: int) -> int:
        before = len(world.lab.log)
        world.up(nodes)
        polling = {"get-operation", "list-instances"}
        return sum(request.operation not in polling for request in list(world.lab.log)[before:])

    first = calls(1)
    assert calls(3) - first <= 2 * 3  # a look at each that exists, a create of each that does not
    assert len(world.lab.log.of("create-instance")) == 3


def test_a_machine_that_is_made_again_has_another_host_key(world: World) -> None:
    provider = world.provider()
    *_, node = world.up(1, provider=provider)
    (before,) = provider.hosts(CLUSTER, (node,))
    provider.delete(node)
    *_, again = world.up(1, provider=provider)
    (after,) = provider.hosts(CLUSTER, (again,))
    assert before.host_keys != after.host_keys


def test_a_preview_asks_nobody(world: World) -> None:
    provider = world.provider()
    hosts = provider.preview(provider.intents(machines(ALLOWED, ssh_port=2222), CLUSTER, 2))
    assert [(host.name, host.label, host.port) for host in hosts] == [
        ("node-1", "rd-demo-ab12cd34ef-1", 2222),
        ("node-2", "rd-demo-ab12cd34ef-2", 2222),
    ]
    assert list(world.lab.log) == []


# ---- lost answers, killed commands

LOST: dict[str, Callable[[Lab, str], Fault]] = {
    "cut": lambda lab, operation: lab.faults.cut(operation),
    "500": lambda lab, operation: lab.faults.status(operation, 500, committed=True),
    "html 502": lambda lab, operation: lab.faults.html(operation, committed=True),
    "html 200": lambda lab, operation: lab.faults.html(operation, 200, committed=True),
    "truncated": lambda lab, operation: lab.faults.truncate(operation),
}
CREATES = (
    "register-ssh-key",
    "create-security-group",
    "add-rule-to-security-group",
    "create-anti-affinity-group",
)


@pytest.mark.parametrize("how", LOST)
def test_row_1_a_machine_whose_answer_was_lost_is_adopted(world: World, how: str) -> None:
    LOST[how](world.lab, "create-instance")
    *_, node = world.up(1)
    assert len(world.lab.log.of("create-instance")) == 1
    (vm,) = world.lab.instances()
    assert node.ref == f"ch-dk-2/{vm.id}"


@pytest.mark.parametrize("operation", CREATES)
@pytest.mark.parametrize("how", LOST)
def test_what_machines_share_is_made_once_though_its_answer_was_lost(
    world: World, how: str, operation: str
) -> None:
    LOST[how](world.lab, operation)
    world.up(1, machines(ALLOWED, anti_affinity=True))
    assert world.opened() == world.expected("203.0.113.7/32")
    assert [len(world.lab.store.keys), len(world.lab.store.spreads)] == [1, 1]


def test_row_3_lists_that_lag_hide_no_machine(world: World) -> None:
    world.lab.faults.list_lag_s["list-instances"] = 1.0
    world.lab.faults.cut("create-instance")
    real = world.provider(clock=time.monotonic, pause=time.sleep, settle_s=6.0)
    *_, node = world.up(1, provider=real)
    assert [f"ch-dk-2/{vm.id}" for vm in world.lab.instances()] == [node.ref]
    assert len(world.lab.log.of("create-instance")) == 1


def test_a_group_that_no_list_shows_yet_is_found_when_its_name_is_taken(world: World) -> None:
    world.lab.faults.list_lag_s["list-security-groups"] = 1.0
    world.lab.faults.cut("create-security-group")
    world.up(1, provider=world.provider(clock=time.monotonic, pause=time.sleep, settle_s=6.0))
    assert world.opened() == world.expected("203.0.113.7/32")


def test_what_was_never_done_is_done_once_more_and_only_after_lists_have_settled(world: World) -> None:
    world.lab.faults.cut("create-instance", committed=False)
    world.up(1)
    assert world.time.paused_s >= 120
    assert [len(world.lab.log.of("create-instance")), len(world.lab.instances())] == [2, 1]


def test_row_5_a_create_without_any_outcome_ends_in_time(world: World) -> None:
    provider = world.provider()
    node = world.prepared(provider)
    world.lab.faults.status("create-instance", 503, times=None)
    with pytest.raises(ApiError, match="node-1") as error:
        provider.create(node)
    assert error.value.exit_code == 22
    assert len(world.lab.log.of("create-instance")) <= 3
    assert world.time.paused_s < 400


def test_a_refusal_after_a_lost_answer_does_not_say_that_there_is_nothing(world: World) -> None:
    provider = world.provider()
    node = world.prepared(provider)
    world.lab.faults.cut("create-instance", committed=False)
    world.lab.faults.status("create-instance", 409, "Quota exceeded for instance")
    with pytest.raises(ApiError):
        provider.create(node)


@pytest.mark.parametrize("done", [True, False])
def test_row_2_an_intent_without_outcome_is_looked_for_by_the_next_command(world: World, done: bool) -> None:
    killed = world.provider()
    node = world.prepared(killed)
    began_s = time.time()
    if done:
        killed.create(node)
    provider = world.provider(settle_s=60.0)
    world.prepared(provider)
    writes = len(world.lab.log.of("create-instance"))
    provider.create(node, unsettled_s=began_s)
    assert len(world.lab.log.of("create-instance")) == writes + (not done)
    assert len(world.lab.instances()) == 1
    assert (world.time.paused_s >= 55) is not done


def test_an_intent_of_long_ago_needs_no_waiting(world: World) -> None:
    provider = world.provider()
    node = world.prepared(provider)
    paused_s = world.time.paused_s
    provider.create(node, unsettled_s=time.time() - 3600)
    assert world.time.paused_s - paused_s < 1


def test_row_21_a_key_of_our_name_that_is_not_ours_stays_and_ours_gets_another(world: World) -> None:
    provider = world.provider()
    name = shared_name(provider.intents(spec(), CLUSTER, 1)[0])
    world.lab.seed_key(name)
    key, *_ = world.up(1, provider=provider)
    assert key.ref == f"{name}_2"
    assert world.up(1)[0] == key  # also for the next process
    assert [vm.keys for vm in world.lab.instances()] == [[f"{name}_2"]]
    assert {found.name for found in provider.cloud.survey()} >= {"ssh", "ssh-2"}


def test_nobody_else_s_machine_is_adopted(world: World) -> None:
    provider = world.provider()
    node = world.prepared(provider)
    for other in (
        dataclasses.replace(node, owner="bob"),
        dataclasses.replace(node, cluster_id="0000000000"),
        dataclasses.replace(node, name="node-2"),
    ):
        world.lab.seed_instance(labels=labels(other), state="stopped")
    made = world.provider()
    world.prepared(made)
    theirs = {vm.id for vm in world.lab.instances()}
    assert made.create(node, unsettled_s=time.time() - 3600).ref.partition("/")[2] not in theirs
    assert {vm.state for vm in world.lab.instances() if vm.seeded} == {"stopped"}


def test_a_machine_that_somebody_deleted_is_made_again(world: World) -> None:
    *_, node = world.up(1)
    provider = world.provider()
    intent = world.prepared(provider)
    provider.delete(node)
    again = world.provider()
    world.prepared(again)
    assert again.create(intent, node.ref).ref != node.ref


def test_one_that_is_stopped_is_started_and_one_that_runs_is_left_alone(world: World) -> None:
    *_, node = world.up(1)
    (vm,) = world.lab.instances()
    vm.state = "stopped"
    world.provider().start(node)
    assert vm.state == "running"
    vm.state = "stopped"
    world.up(1)
    assert vm.state == "running"
    world.provider().start(node)
    assert len(world.lab.log.of("start-instance")) == 2
    assert len(world.lab.log.of("create-instance")) == 1


# ---- settled


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        ({"state": "failure", "reason": "unknown"}, 23),
        ({"state": "failure"}, 23),
        ({"state": "failure", "message": "Quota exceeded for cpu"}, 21),
        ({"state": "failure", "reason": "unavailable", "message": "not enough capacity"}, 21),
        ({"state": "failure", "reason": "busy"}, 22),
        ({"state": "timeout", "effect": "none"}, 23),
        ({"state": "success", "effect": "error"}, 23),
        ({"state": "pending"}, 22),
    ],
)
def test_rows_6_to_9_why_one_of_three_does_not_run(world: World, ending: dict[str, Any], code: int) -> None:
    provider = world.provider()
    node = world.prepared(provider)
    world.lab.faults.outcome("create-instance", **ending, skip=1)
    intents = [dataclasses.replace(node, name=f"node-{index}") for index in (1, 2, 3)]
    refs = tuple(map(provider.create, intents))
    ((name, error),) = provider.settle(CLUSTER, refs).items()
    assert (name, error.exit_code, error.node) == ("node-2", code, "node-2")


def test_another_zone_is_offered_when_one_has_no_room(world: World) -> None:
    provider = world.provider()
    quoted = billed(CLUSTER, quote=provider.cloud.quote(spec(), CLUSTER, 1))
    node = world.prepared(provider)
    world.lab.faults.status("create-instance", 409, "not enough capacity in the zone")
    with pytest.raises(QuotaError) as refused:
        provider.create(node)
    world.lab.faults.outcome("create-instance", "failure", message="not enough capacity")
    (error,) = provider.settle(quoted, (provider.create(node),)).values()
    for told in (refused.value, error):
        assert told.next_step is not None
        assert told.next_step.startswith("--zone at-vie-1")


def test_addresses_that_come_late_are_waited_for(world: World) -> None:
    world.lab.faults.late_address_s = 0.2
    made = world.up(2)
    assert all(host.address.startswith("127.4.") for host in world.provider().hosts(CLUSTER, made))
    world.lab.instances()[0].address = ""
    with pytest.raises(PartlyUp, match="no address"):
        world.provider(settle_s=1.0).hosts(CLUSTER, made)


def test_hosts_are_found_though_the_list_does_not_show_them_yet(world: World) -> None:
    made = world.up(2)
    world.lab.faults.list_lag_s["list-instances"] = 3600.0
    assert [host.name for host in world.provider().hosts(CLUSTER, made)] == ["node-1", "node-2"]


def test_one_that_is_gone_is_named(world: World) -> None:
    made = world.up(2)
    provider = world.provider()
    provider.delete(made[-1])
    for ask in (lambda: provider.hosts(CLUSTER, made), lambda: provider.start(made[-1])):
        with pytest.raises(PartlyUp, match="node-2"):
            ask()


# ---- who reaches it


def test_ssh_opens_to_the_address_that_the_cloud_sees_and_rain_to_the_group(world: World) -> None:
    world.up(1, cluster_spec())
    assert world.opened() == world.expected(f"{OPERATOR}/32")


def test_rules_are_for_the_ssh_port_of_the_cluster(world: World) -> None:
    provider = world.provider()
    _, group, _ = provider.intents(machines(ALLOWED, ssh_port=2222), CLUSTER, 1)
    provider.settle(CLUSTER, (provider.create(group),))
    assert world.opened() == world.expected("203.0.113.7/32", port=2222)


def test_an_event_that_comes_late_is_waited_for(world: World) -> None:
    world.lab.faults.list_lag_s["list-events"] = 0.5
    world.up(1, cluster_spec(), world.provider(clock=time.monotonic, pause=time.sleep))
    assert world.opened() == world.expected(f"{OPERATOR}/32")


RULE_ID = "5c9b6a10-0000-4000-8000-000000000001"
UNTOLD: dict[str, Callable[[Lab], object]] = {
    "403": lambda lab: lab.faults.status("list-events", 403, "Forbidden by role policy", times=None),
    "404": lambda lab: lab.faults.status("list-events", 404, "Not found", times=None),
    "501": lambda lab: lab.faults.status("list-events", 501, "Not implemented", times=None),
    "html": lambda lab: lab.faults.html("list-events", 200, times=None),
    "another form": lambda lab: lab.faults.answer("list-events", reply(200, {"total": 0}), times=None),
    "no address": lambda lab: lab.faults.answer("list-events", reply(200, [{"uri": "/v2/x"}]), times=None),
}


@pytest.mark.parametrize("how", UNTOLD)
def test_where_events_do_not_tell_the_address_it_is_asked_for_before_anything_is_made(
    world: World, how: str
) -> None:
    UNTOLD[how](world.lab)
    reach = world.provider().cloud.reach(CLUSTER, ())
    assert "from which address it sees this machine" in reach.refused
    assert "--allow-ip" in reach.next_step
    assert (world.writes(), world.time.paused_s) == ([], 0.0)
    assert world.provider().cloud.reach(CLUSTER, (), ("203.0.113.7",)).refused == ""


@pytest.mark.parametrize("source", ["2001:db8::7", ""])
def test_an_address_that_cannot_help_ends_it_before_a_machine_is_made(world: World, source: str) -> None:
    event = {"request-id": "r", "status": 200, "source-ip": source, "uri": "/v2/security-group"}

    def tell(_request: object) -> None:
        name = {"message": world.group.name}
        told = [{**event, **name}, {**event, "request-id": "s", "source-ip": "192.0.2.1"}]
        world.lab.faults.answer("list-events", reply(200, told), times=None)

    world.lab.faults.call("create-security-group", tell, stage="committed")
    provider = world.provider()
    _, group, _ = provider.intents(spec(cluster_spec()), CLUSTER, 1)
    with pytest.raises(InputError) as caught:
        provider.create(group)
    assert "--allow-ip" in (caught.value.next_step or "")
    assert world.lab.left() == ()


def test_where_the_event_of_this_change_does_not_come_the_wait_ends(world: World) -> None:
    world.lab.faults.list_lag_s["list-events"] = 3600.0
    provider = world.provider()
    _, group, _ = provider.intents(spec(cluster_spec()), CLUSTER, 1)
    made = provider.create(group)
    with pytest.raises(InputError) as error:
        provider.settle(CLUSTER, (made,))
    assert "--allow-ip" in (error.value.next_step or "")
    assert world.time.paused_s < 30
    assert any("the event that names this machine's address" in sentence for sentence in world.told)


# ---- the rules of the group while machines boot


def test_rules_are_added_while_machines_boot_and_until_then_the_group_lets_nobody_in(world: World) -> None:
    rules_at: list[int] = []
    world.lab.faults.call("create-instance", lambda _: rules_at.append(len(world.group.rules)), times=None)
    world.up(3, cluster_spec())
    assert rules_at == [0, 0, 0]
    creates = world.lab.log.of("create-instance")
    added = world.lab.log.of("add-rule-to-security-group")
    assert max(each.ended_s or 0.0 for each in creates) <= min(each.began_s for each in added)
    assert world.opened() == world.expected(f"{OPERATOR}/32")


def test_machines_are_not_settled_before_the_group_is_open(world: World) -> None:
    world.lab.faults.hang("add-rule-to-security-group", 1.0)
    world.up(1)
    assert world.opened() == world.expected("203.0.113.7/32")


def test_a_command_that_was_killed_before_the_rules_is_completed_by_the_next(world: World) -> None:
    killed, (key, group, node) = world.provider(), world.provider().intents(spec(), CLUSTER, 1)
    for intent in (key, group, node):
        killed.create(intent)
    assert world.group.rules == []
    world.up(1)
    assert world.opened() == world.expected("203.0.113.7/32")
    assert len(world.lab.instances()) == 1


def test_a_rule_that_is_refused_ends_the_wait_for_machines_at_once(world: World) -> None:
    world.lab.faults.status("add-rule-to-security-group", 403, "Forbidden by role policy", times=None)
    world.lab.faults.outcome("create-instance", "pending", times=None)
    provider = world.provider()
    made = [provider.create(intent) for intent in provider.intents(spec(), CLUSTER, 1)]
    with pytest.raises(CredentialsError, match="may not do add-rule"):
        provider.settle(CLUSTER, tuple(made))
    assert world.time.paused_s < 30


# ---- the difference between the rules and what they should be


def reach(world: World, *allow_ip: str) -> Reach:
    provider = world.provider()
    return provider.cloud.reach(CLUSTER, provider.cloud.survey(), allow_ip)


def add_rule(world: World, protocol: str, *ports: int, network: str = "0.0.0.0/0") -> None:
    """A rule as a person adds it."""
    rule: dict[str, Any] = {"id": RULE_ID, "flow-direction": "ingress", "protocol": protocol}
    rule |= {"start-port": ports[0], "end-port": ports[-1]} if ports else {"icmp": {"type": 8, "code": 0}}
    world.group.rules.append({**rule, "network": network})


def test_a_group_as_it_should_be_needs_no_repair(world: World) -> None:
    world.up(1)
    now = reach(world)
    assert (now.repairs, now.warnings, now.refused) == ((), (), "")
    assert now.opens == (
        "SSH (tcp 22) is open to 203.0.113.7/32",
        "Rain's ports are open to the machines of this cluster",
    )
    assert reach(world, "203.0.113.7") == now


@pytest.mark.parametrize("missing", range(4))
def test_a_missing_rule_is_seen_repaired_and_said(world: World, missing: int) -> None:
    world.up(1, cluster_spec())
    gone = world.group.rules.pop(missing)
    (repair,) = reach(world).repairs
    is_ssh = "network" in gone
    assert ("SSH (tcp 22) is open to nobody" if is_ssh else f"tcp {gone['start-port']}") in repair
    world.up(1, cluster_spec())
    assert world.opened() == world.expected(f"{OPERATOR}/32")
    assert reach(world).repairs == ()
    said = " ".join(world.told)
    assert ("SSH (tcp 22) opens to" if is_ssh else "repaired the security group: tcp") in said


@pytest.mark.parametrize(
    ("protocol", "ports"),
    [("icmp", ()), ("icmpv6", ()), ("udp", (7000, 8000)), ("udp", (22, 22)), ("gre", ())],
)
def test_a_rule_of_another_protocol_does_not_reach_rain(
    world: World, protocol: str, ports: tuple[int, ...]
) -> None:
    world.up(1)
    add_rule(world, protocol, *ports)
    world.up(1)
    now = reach(world)
    assert (now.refused, now.repairs) == ("", ())
    assert any(sentence.startswith(protocol) for sentence in now.opens)
    assert any(rule["protocol"] == protocol for rule in world.group.rules)


@pytest.mark.parametrize("network", ["0.0.0.0/0", "198.51.100.0/24"])
@pytest.mark.parametrize(
    ("protocol", "ports"), [("tcp", (7000, 7300)), ("tcp", (1, 65535)), ("all", (1, 65535))]
)
def test_a_rule_that_opens_rain_to_others_is_refused_with_the_command_that_removes_it(
    world: World, protocol: str, ports: tuple[int, ...], network: str
) -> None:
    world.up(1)
    add_rule(world, protocol, *ports, network=network)
    now = reach(world)
    assert "opens Rain's ports" in now.refused
    assert network in now.refused
    assert now.next_step == f"exo compute security-group rule delete {world.group.id} {RULE_ID}"
    with pytest.raises(InputError, match="opens Rain's ports"):
        world.up(1)


def test_ssh_that_is_open_to_everybody_is_a_warning_and_other_networks_are_closed_when_asked(
    world: World,
) -> None:
    world.up(1)
    add_rule(world, "tcp", 22)
    now = reach(world)
    assert now.warnings == ("tcp 22 is open to EVERY ADDRESS OF THE INTERNET: 0.0.0.0/0",)
    (repair,) = reach(world, "203.0.113.7").repairs
    assert "EVERY ADDRESS OF THE INTERNET: 0.0.0.0/0, which --allow-ip does not name" in repair
    world.up(1)
    assert world.opened() == world.expected("203.0.113.7/32")


def test_a_rule_stays_until_another_is_named_which_replaces_it(world: World) -> None:
    world.up(1, cluster_spec())
    asked = len(world.lab.log.of("list-events"))
    next(rule for rule in world.group.rules if "network" in rule)["network"] = (
        "192.0.2.50/32"  # made elsewhere
    )
    world.up(1, cluster_spec())
    assert world.opened() == world.expected("192.0.2.50/32")
    assert len(world.lab.log.of("list-events")) == asked, "nobody asks for one who is let in already"
    assert world.told == []
    world.up(1, cluster_spec(allow_ip=("203.0.113.0/24", "2001:db8::1")))
    assert world.opened() == world.expected("203.0.113.0/24", "2001:db8::1/128")
    assert world.told == [
        "SSH (tcp 22) opens to 203.0.113.0/24, 2001:db8::1/128 and is no longer open to 192.0.2.50/32"
    ]
    world.up(1, cluster_spec(allow_ip=("203.0.113.0/24", "2001:db8::1")))
    assert (len(world.told), len(world.lab.log.of("list-events"))) == (1, asked)


@pytest.mark.parametrize("old", [False, True])
def test_a_group_of_a_killed_command_is_opened_to_where_this_command_runs(world: World, old: bool) -> None:
    world.up(1, cluster_spec())
    group = world.group
    group.rules[:] = [rule for rule in group.rules if "network" not in rule]
    for event in world.lab.store.events:  # that command ran elsewhere
        event["source-ip"] = "192.0.2.200"
        event["timestamp"] = "2026-01-01T00:00:00.000Z" if old else event["timestamp"]
    world.up(1, cluster_spec())
    assert world.opened() == world.expected(f"{OPERATOR}/32")


def test_rules_that_are_missing_come_back(world: World) -> None:
    world.up(1)
    world.group.rules.pop(0)
    world.up(1)
    assert world.opened() == world.expected("203.0.113.7/32")


def test_a_rule_of_somebody_that_opens_rain_s_ports_is_refused(world: World) -> None:
    world.up(1)
    rule = {"id": "r", "flow-direction": "ingress", "protocol": "tcp", "network": "0.0.0.0/0"}
    world.group.rules.append({**rule, "start-port": 9000, "end-port": 9000})
    world.up(1)
    opens = reach(world).opens
    assert "tcp 9000 is open to EVERY ADDRESS OF THE INTERNET: 0.0.0.0/0" in opens
    world.group.rules.append({**rule, "start-port": 7000, "end-port": 7300})
    with pytest.raises(InputError, match=r"opens Rain's ports \(tcp 7000-7300 to EVERY"):
        world.up(1)


def test_the_world_is_let_in_only_when_it_is_named_and_then_it_is_reported(world: World) -> None:
    told = reach(world, "0.0.0.0/0").opens
    assert any("EVERY ADDRESS OF THE INTERNET" in sentence for sentence in told)
    told = reach(world).opens
    assert not any("EVERY" in sentence for sentence in told)


def test_an_address_that_is_none_is_refused_before_anything_is_asked(world: World) -> None:
    with pytest.raises(InputError, match="--allow-ip"):
        world.provider().preflight(spec(cluster_spec(allow_ip=("203.0.113.7/24",))))
    assert list(world.lab.log) == []


# ---- refused before anything is made


def test_a_quote_tells_the_machine_its_price_and_what_is_left(world: World) -> None:
    quote = world.provider().cloud.quote(spec(cluster_spec(instance_type="LARGE")), CLUSTER, 3)
    assert (quote.zone, quote.instance_type, quote.cpus, quote.gpus) == ("ch-dk-2", "standard.large", 4, 0)
    assert quote.memory_bytes == 8 << 30
    assert quote.quota_left == 20
    assert quote.per_hour == pytest.approx(0.09333 + 20 * 0.00014)
    assert quote.stopped_per_hour == pytest.approx(20 * 0.00014)
    assert world.writes() == []


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        (cluster_spec(zone="ch-zrh-1"), "ch-gva-2"),
        (cluster_spec(instance_type="standard.big"), "standard.medium"),
        (cluster_spec(instance_type="gpu3.small", template="Linux Ubuntu 24.04 LTS 64-bit"), "cpu.huge"),
        (cluster_spec(template="Linux Debian 9"), "Linux Ubuntu 24.04 LTS 64-bit"),
        (cluster_spec(template="Big"), "80 GiB"),
        (cluster_spec(instance_type="storage.jumbo"), "price"),
    ],
)
def test_row_22_what_is_not_offered_is_refused_with_what_is(
    world: World, wanted: ClusterSpec, told: str
) -> None:
    world.lab.seed_template("Big", size=80 << 30)
    with pytest.raises(InputError) as error:
        world.provider().cloud.quote(spec(wanted), CLUSTER, 1)
    assert told in f"{error.value.message} {error.value.next_step}"
    assert world.writes() == []


def test_the_newest_template_of_a_name_is_taken_and_an_id_is_taken_as_it_is(world: World) -> None:
    old = world.lab.seed_template("Mine", visibility="private", created_at="2026-03-01T00:00:00Z")
    new = world.lab.seed_template("Mine", visibility="private", created_at="2026-03-02T00:00:00Z")
    for name, taken in (("Mine", new.id), (old.id, old.id)):
        *_, node = world.up(1, machines(ALLOWED, template=name))
        assert [vm.template_id for vm in world.lab.instances()] == [taken]
        world.provider().delete(node)


def test_gpus_need_a_template_that_has_a_driver_and_their_own_quota(tmp_path: Path) -> None:
    with Lab(NoMachines("127.4"), host="127.4.1.1", authorized=frozenset({"gpu3"})) as lab:
        world = World(lab, tmp_path)
        gpu = cluster_spec(instance_type="gpu3.small", prices=(("gpu3.small", 1.0),), disk_size_gib=100)
        with pytest.raises(InputError, match="GPU") as error:
            world.provider().cloud.quote(spec(gpu), CLUSTER, 1)
        assert "--template" in (error.value.next_step or "")
        chosen = machines(gpu, template="Linux Ubuntu 24.04 LTS 64-bit")
        with pytest.raises(QuotaError, match="allows 0 more"):
            world.provider().cloud.quote(spec(chosen), CLUSTER, 1)
        lab.store.limits["gpu3"] = 4
        assert world.provider().cloud.quote(spec(chosen), CLUSTER, 1).gpus >= 1
        assert world.writes() == []


def test_a_quota_without_room_names_what_is_left_and_what_is_asked(world: World) -> None:
    world.lab.store.limits["instance"] = 2
    with pytest.raises(QuotaError, match="allows 2 more instances in all zones, but 3 are needed"):
        world.provider().cloud.quote(spec(), CLUSTER, 3)
    world.lab.store.limits["instance"] = -1
    assert world.provider().cloud.quote(spec(), CLUSTER, 300).quota_left is None
    assert world.writes() == []


@pytest.mark.parametrize(
    ("words", "elsewhere"),
    [
        ("Quota exceeded for instance", False),
        ("instance limit reached", False),
        ("Insufficient capacity in zone", True),
        ("No more hosts available", True),
    ],
)
@pytest.mark.parametrize("late", [False, True])
def test_another_zone_is_offered_where_a_zone_is_full_and_not_for_a_quota(
    world: World, words: str, elsewhere: bool, late: bool
) -> None:
    if late:
        world.lab.faults.outcome("create-instance", "failure", reason="unavailable", message=words)
    else:
        world.lab.faults.status("create-instance", 409, words)
    provider = world.provider()
    try:
        made = provider.create(world.prepared(provider))
        (error,) = provider.settle(CLUSTER, (made,)).values()
    except QuotaError as refused:
        error = refused
    assert isinstance(error, QuotaError)
    assert ("--zone" in (error.next_step or "")) == elsewhere


def test_a_quota_that_is_known_before_offers_no_other_zone(world: World) -> None:
    world.lab.store.limits["instance"] = 0
    with pytest.raises(QuotaError) as caught:
        world.provider().cloud.quote(spec(), CLUSTER, 1)
    assert "zone" not in (caught.value.next_step or "")


def test_row_19_a_name_of_another_owner_is_refused(world: World) -> None:
    world.up(1)
    with pytest.raises(InputError, match=owner_tag(OWNER)):
        World(world.lab, world.home, "bob").provider().cloud.quote(
            spec(), dataclasses.replace(CLUSTER, id="0000000000", owner="bob"), 1
        )


def test_a_cluster_of_mine_that_this_home_does_not_know_is_refused_by_way_of_gc(world: World) -> None:
    world.up(1)
    provider = world.provider()
    with pytest.raises(InputError) as error:
        provider.cloud.quote(spec(), dataclasses.replace(CLUSTER, id="0000000000"), 1)
    assert "rain-deploy gc -c demo" in (error.value.next_step or "")
    assert provider.cloud.quote(spec(), CLUSTER, 1).quota_left == 19  # its own cluster is no obstacle


# ---- looked at


def test_a_survey_sees_every_zone_and_every_owner_of_this_tool_and_nothing_else(world: World) -> None:
    world.up(1)
    bob = Intent("0000000000", "their", "instance", "node-1", "bob", expires_s=12.0)
    world.lab.seed_instance(zone="de-fra-1", labels=labels(bob), state="stopped")
    world.lab.seed_instance(zone="de-fra-1", labels={"team": "x"})
    world.lab.seed_group("rain-deploy")
    world.lab.seed_key()
    found = {(each.owner, each.cluster, each.zone, each.kind) for each in world.provider().cloud.survey()}
    mine, his = owner_tag(OWNER), owner_tag("bob")
    assert found == {
        (mine, "demo", "", "ssh-key"),
        (mine, "demo", "", "security-group"),
        (mine, "demo", "ch-dk-2", "instance"),
        (his, "their", "de-fra-1", "instance"),
    }
    (stopped,) = (each for each in world.provider().cloud.survey() if each.owner == his)
    assert (stopped.state, stopped.expires_s, stopped.instance_type) == ("stopped", 12.0, "standard.medium")


def test_a_zone_that_cannot_be_seen_is_an_error_and_no_empty_list(world: World) -> None:
    world.up(1)
    world.lab.faults.status(
        "list-instances", 503, times=None, match=lambda request: request.path.startswith("/hr-zag-1")
    )
    with pytest.raises(ApiError, match="hr-zag-1"):
        world.provider().cloud.survey()
    with pytest.raises(ApiError, match="hr-zag-1"):
        world.provider().list(OWNER)


def test_types_come_with_their_price_the_cheapest_first(world: World) -> None:
    types = world.provider().cloud.types("ch-dk-2", spec())
    assert types[0].name == "standard.micro"
    known = [each.per_hour for each in types if each.per_hour is not None]
    assert known == sorted(known)
    assert {each.name: each.available for each in types}["gpu3.small"] is False
    with pytest.raises(InputError, match="hr-zag-1"):
        world.provider().cloud.types("nowhere", spec())
    assert "de-muc-1" in world.provider().cloud.zones()


def test_a_new_limit_changes_that_label_alone(world: World) -> None:
    made = world.up(2)
    first, second = world.lab.instances()
    first.labels["team"] = "vision"
    world.lab.faults.cut("update-instance")
    world.provider().cloud.set_expiry(made, None)
    assert first.labels["team"] == "vision"
    assert {vm.labels["rain-deploy-expires"] for vm in (first, second)} == {"never"}
    assert {vm.labels["rain-deploy-node"] for vm in (first, second)} == {"node-1", "node-2"}


# ---- deleted


def test_row_68_what_is_deleted_already_is_success(world: World) -> None:
    made = world.up(1, machines(ALLOWED, anti_affinity=True))
    for _ in range(2):
        for ref in reversed(made):
            world.provider().delete(ref)
    assert world.lab.left() == ()


def test_row_66_a_delete_that_was_accepted_and_not_done_is_not_done(world: World) -> None:
    *_, node = world.up(1)
    world.lab.faults.outcome("delete-instance", "success", effect="none")
    with pytest.raises(DownIncomplete, match="still there"):
        world.provider().delete(node)
    world.provider().delete(node)
    assert world.lab.instances() == ()


def test_a_delete_that_never_ends_is_not_done(world: World) -> None:
    *_, node = world.up(1)
    world.lab.faults.outcome("delete-instance", "pending", times=None)
    with pytest.raises(DownIncomplete, match="600 s"):
        world.provider().delete(node)
    assert world.time.paused_s < 1300


def test_a_delete_whose_answer_has_an_unknown_form_is_not_sent_again(world: World) -> None:
    *_, node = world.up(1)
    world.lab.faults.html("delete-instance", 200, times=None)
    paused_s = world.time.paused_s
    with pytest.raises(DownIncomplete, match="Bad Gateway"):
        world.provider().delete(node)
    assert world.writes().count("delete-instance") == 1
    assert world.time.paused_s == paused_s


@pytest.mark.parametrize("how", [*(how for how in LOST if how != "html 200"), "409", "failure", "503 before"])
def test_row_67_a_delete_is_tried_again(world: World, how: str) -> None:
    *_, node = world.up(1)
    more: dict[str, Callable[[], Fault]] = {
        "409": lambda: world.lab.faults.status("delete-instance", 409, "busy", times=2),
        "failure": lambda: world.lab.faults.outcome("delete-instance", "failure", reason="busy"),
        "503 before": lambda: world.lab.faults.status("delete-instance", 503, times=3),
    }
    more[how]() if how in more else LOST[how](world.lab, "delete-instance")
    world.provider().delete(node)
    assert world.lab.instances() == ()


def test_row_69_a_protected_machine_stays_and_that_is_said(world: World) -> None:
    *_, node = world.up(1)
    (vm,) = world.lab.instances()
    vm.protected = True
    with pytest.raises(DownIncomplete, match="protected") as error:
        world.provider().delete(node)
    assert error.value.exit_code == 60
    assert world.lab.instances() == (vm,)
    assert len(world.lab.log.of("delete-instance")) == 1


@pytest.mark.parametrize("status", [409, 412])
def test_row_69_a_group_that_is_still_in_use_is_tried_again(world: World, status: int) -> None:
    key, group, node = world.up(1)
    world.lab.faults.group_in_use_s, world.lab.faults.group_in_use_status = 0.3, status
    provider = world.provider()
    for ref in (node, group, key):
        provider.delete(ref)
    assert world.lab.left() == ()
    assert len(world.lab.log.of("delete-security-group")) > 1


def test_row_71_what_has_no_recorded_id_is_found_by_its_label_in_every_zone(world: World) -> None:
    made = world.up(2, machines(ALLOWED, zone="de-fra-1", anti_affinity=True))
    bob = Intent(CLUSTER.id, "demo", "instance", "node-1", "bob")  # with a copy of this home
    other = world.lab.seed_instance(labels=labels(bob))
    provider = world.provider()
    for ref in reversed(made):
        provider.delete(dataclasses.replace(ref, ref=""))
    assert [left.id for left in world.lab.left()] == [other.id]


def test_an_intent_without_outcome_is_waited_for_before_it_counts_as_nothing(world: World) -> None:
    world.lab.faults.list_lag_s["list-instances"] = 0.5
    *_, node = world.up(1)
    real = world.provider(clock=time.monotonic, pause=time.sleep, settle_s=4.0)
    real.delete(dataclasses.replace(node, ref="", recorded_s=time.time()))
    assert world.lab.instances() == ()


def test_two_machines_of_one_name_both_go(world: World) -> None:
    *_, node = world.up(1)
    (vm,) = world.lab.instances()
    world.lab.seed_instance(labels=dict(vm.labels), zone="ch-gva-2")
    world.provider().delete(dataclasses.replace(node, ref=""))
    assert world.lab.instances() == ()


def test_errors_are_of_our_own_kind(world: World) -> None:
    *_, node = world.up(1)
    world.lab.revoke(world.lab.key)
    provider = world.provider()
    for ask in (
        provider.cloud.survey,
        lambda: provider.delete(node),
        lambda: provider.start(node),
        lambda: provider.hosts(CLUSTER, (node,)),
        lambda: provider.cloud.quote(spec(), CLUSTER, 1),
    ):
        with pytest.raises(RainDeployError) as error:
            ask()
        assert error.value.exit_code == 20
    (settled,) = provider.settle(CLUSTER, (node,)).values()
    assert settled.exit_code == 20
