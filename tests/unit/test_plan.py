"""The planner is pure, and keeps its promises for every record, every account and every wish."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rain_deploy.cluster.plan import GcLine, Plan, groups, judge, plan_down, plan_up
from rain_deploy.cluster.seen import Account, Seen, completed, is_offered
from rain_deploy.core.cluster import Bill, Cluster, Node
from rain_deploy.core.machine import Host, Intent, Resource, node_name
from rain_deploy.core.spec import ClusterSpec
from rain_deploy.core.text import owner_tag
from rain_deploy.errors import ApiError, InputError
from tests.support.values import QUOTE
from tests.unit.fake_cloud import KEY, ME, FakeCloud

NAME, ID, NOW_S = "one", "0123456789", 1000.0
MINE, THEIRS = owner_tag(ME), owner_tag("colleague")
RECORDS = ("none", "partial", "whole", "left out")
"""``partial``: an ``up`` was killed, so there is no node, and one intent has no id."""
ACCOUNTS = ("nothing", "running", "stopped", "gone", "duplicate", "foreign", "silent")
"""Of its machines; ``foreign``: they run, and a colleague has given others the same id and names."""
WISHES = ("up", "grow", "shrink", "down", "gc")
PLACES = [*itertools.product(RECORDS, ACCOUNTS)]
CASES = tuple(itertools.product(RECORDS, ACCOUNTS, WISHES))
PROVIDER = FakeCloud()
"""Only its ``intents`` is called, which is pure too."""


@dataclass(frozen=True)
class Situation:
    """What is on record and what exists, before a command."""

    cluster: Cluster
    recorded: bool
    resources: tuple[Resource, ...]
    held: tuple[Resource, ...]
    silent: bool

    @property
    def seen_account(self) -> Account:
        return Account(silent=ApiError("no answer"), key="k") if self.silent else Account(self.held, key="k")

    @property
    def living(self) -> set[str]:
        """References of machines on whose disks something may have been computed."""
        names = {node.name for node in self.cluster.nodes} if self.cluster.up else set()
        return {resource.ref for resource in self.resources if resource.name in names and resource.ref}


def machine(index: int, ref: str = "", **fields: object) -> Resource:
    made = Resource(ID, "instance", node_name(index), ref or f"i{index}", MINE, NAME)
    return replace(made, state="running", address=f"10.0.0.{index}", **fields)  # type: ignore[arg-type]


def group(ref: str = "g", owner: str = MINE) -> Resource:
    return Resource(ID, "group", "group", ref, owner, NAME)


def node(index: int) -> Node:
    host = Host(node_name(index), f"10.0.0.{index}", 22, "me", (KEY,), machine=f"i{index}")
    return Node(host.name, host, cpus=1)


def situation(record: str, account: str, size: int) -> Situation:
    """``size``: machines of the cluster, where it has any."""
    cluster = Cluster(
        ID, NAME, "exoscale", 0.0, owner=ME, bill=Bill(QUOTE, account="k", ttl_limit_s=NOW_S * 2)
    )
    resources = (group(), *(machine(index) for index in range(1, size + 1)))
    nodes = tuple(node(index) for index in range(1, size + 1))
    if record == "none":
        cluster, resources = replace(cluster, bill=None), ()
    elif record == "partial":
        resources = (*resources[:-1], replace(resources[-1], ref=""))
    elif record == "whole":
        cluster = replace(cluster, nodes=nodes, up=True)
    else:
        cluster = replace(
            cluster, nodes=nodes[:-1] or nodes, left_out=nodes[-1:] if size > 1 else (), up=True
        )
    return Situation(cluster, record != "none", resources, exists(account, size), account == "silent")


def exists(account: str, size: int) -> tuple[Resource, ...]:
    """What the account has, also where it does not say."""
    machines = tuple(machine(index) for index in range(1, size + 1))
    if account == "nothing":
        return ()
    if account == "stopped":
        machines = tuple(replace(each, state="stopped") for each in machines)
    elif account == "gone":
        machines = (*machines[:-1], replace(machines[-1], state="destroying"))
    elif account == "duplicate":
        machines = (*machines, replace(machine(size, f"again{size}"), address="10.0.1.1"))
    elif account == "foreign":
        theirs = (replace(each, ref=f"their-{each.ref}", owner=THEIRS, address="") for each in machines)
        machines = (*machines, *theirs, machine(size + 1, "their-next", owner=THEIRS))
        return (group(), group("their-group", THEIRS), *machines)
    return (group(), *machines)


def seen_by(here: Situation, nodes: int | None, *, shrink: bool = False) -> Seen:
    """As ``look`` has it, without asking anybody.  Raises InputError where the wish is refused."""
    spec = ClusterSpec(NAME, "exoscale", "test", nodes=nodes, owner=ME)
    spec = completed(spec, here.cluster, here.resources, shrink=shrink)
    account = here.seen_account if here.resources else Account(key="k")
    seen = Seen(spec, here.cluster, here.recorded, here.resources, NOW_S, account)
    return replace(seen, quote=QUOTE if is_offered(seen) else None)


def plan_of(here: Situation, wish: str, size: int) -> Plan:
    """The plan of a wish of ``up`` or ``scale``."""
    if wish == "shrink":
        seen = seen_by(here, max(1, size - 1), shrink=True)
        return plan_up(PROVIDER, seen, shrink=True)
    return plan_up(PROVIDER, seen_by(here, size + 2 if wish == "grow" else None))


def down_of(here: Situation) -> tuple[Resource, ...]:
    listed = tuple(found for found in here.held if found.owner == MINE)
    return plan_down(here.cluster, here.resources, listed)


def verdicts(here: Situation, *, named: bool = False) -> Iterator[tuple[tuple[Resource, ...], GcLine]]:
    """What ``gc`` makes of everything that the account has."""
    for key, found in groups(here.held).items():
        recorded = here.cluster if here.recorded and key.id == ID else None
        yield found, judge(key, found, recorded, MINE, NOW_S, made=True, named=named)


def applied(here: Situation, plan: Plan) -> Situation:
    """What there is once the plan was carried out: a small model of the cloud and of the record."""
    going = {(each.kind, each.name, each.ref) for each in plan.delete}
    held = [each for each in here.held if (each.kind, each.name, each.ref) not in going]
    started = {each.ref for each in plan.start}
    held = [
        replace(each, state="running") if each.ref in started or _is_revived(here, plan, each) else each
        for each in held
    ]
    recorded = {(r.kind, r.name): r for r in here.resources if (r.kind, r.name, r.ref) not in going}
    for intent in plan.intents:
        key = (intent.kind, intent.name)
        mine = [each for each in held if (each.kind, each.name) == key and each.owner == MINE]
        there = [each for each in mine if each.state != "destroying"]
        known = recorded.get(key)
        kept = [each for each in there if known and each.ref == known.ref] or there
        if not kept:
            kept = [_made(intent, len(held))]
            held += kept
        recorded[key] = kept[0]
    nodes = [
        replace(node(each.index), host=replace(node(each.index).host, address=each.address, machine=each.ref))
        for each in recorded.values()
        if each.is_machine and each.index <= plan.seen.nodes
    ]
    cluster = replace(plan.cluster, nodes=tuple(nodes), left_out=(), up=True)
    return Situation(
        cluster=cluster, recorded=True, resources=tuple(recorded.values()), held=tuple(held), silent=False
    )


def _made(intent: Intent, number: int) -> Resource:
    address = f"10.2.0.{number}" if intent.kind == "instance" else ""
    ref = f"new-{intent.name}-{number}"
    return Resource(ID, intent.kind, intent.name, ref, MINE, NAME, state="running", address=address)


def _is_revived(here: Situation, plan: Plan, found: Resource) -> bool:
    """A create starts the machine that is on record, or adopts the one that is there."""
    intended = {(intent.kind, intent.name) for intent in plan.intents}
    return found.state == "stopped" and found.owner == MINE and (found.kind, found.name) in intended


def sizes() -> st.SearchStrategy[int]:
    return st.integers(min_value=1, max_value=12)


def changing(record: str, account: str, wish: str) -> bool:
    return wish in {"up", "grow", "shrink"} and not (wish == "shrink" and record in {"none", "partial"})


CHANGES = [case for case in CASES if changing(*case)]
"""``scale`` is refused before it plans where nothing lives."""


@pytest.mark.parametrize(("record", "account", "wish"), CHANGES)
@given(size=sizes())
@settings(max_examples=5, deadline=None)
def test_a_plan_of_up_or_scale_holds_every_promise(record: str, account: str, wish: str, size: int) -> None:
    here = situation(record, account, size)
    plan = plan_of(here, wish, size)
    check_names_are_unique(plan)
    check_nothing_foreign(here, (*plan.delete, *plan.start))
    check_creates_do_not_exist(here, plan)
    check_living_disks_stay(here, plan, wish)
    assert bool(plan.offer) == bool(plan.question) == (plan.seen.quote is not None)
    if any(intent.name.startswith("node-") for intent in plan.create):
        assert plan.offer, "no machine is made that was not offered"


def check_names_are_unique(plan: Plan) -> None:
    """Never two machines of one name."""
    for names in (
        [(intent.kind, intent.name) for intent in plan.create],
        [(intent.kind, intent.name) for intent in plan.intents],
        [each.name for each in plan.start],
    ):
        assert max(Counter(names).values(), default=1) == 1, names
    going = {each.name for each in plan.delete}
    assert not going & {intent.name for intent in plan.intents}, "it would be made and deleted"
    assert set(plan.create) <= {*plan.intents}


def check_nothing_foreign(here: Situation, touched: tuple[Resource, ...]) -> None:
    foreign = {each.ref for each in here.held if each.owner != MINE}
    assert not foreign & {each.ref for each in touched if each.ref}


def check_creates_do_not_exist(here: Situation, plan: Plan) -> None:
    """What is planned to be made does not exist, as far as the account says; and what does not is planned."""
    if here.silent:
        there = {(each.kind, each.name) for each in here.resources if each.ref}
    elif not here.resources:  # nobody is asked about what nobody ever began
        there = set()
    else:
        mine = (each for each in here.held if each.owner == MINE and each.state != "destroying")
        there = {(each.kind, each.name) for each in mine}
    wanted = {(intent.kind, intent.name) for intent in plan.intents}
    assert {(intent.kind, intent.name) for intent in plan.create} == wanted - there


def check_living_disks_stay(here: Situation, plan: Plan, wish: str) -> None:
    """``up`` never deletes one; ``scale`` those alone that are above the number asked for."""
    going = {each.ref for each in plan.delete}
    if wish == "shrink":
        assert all(each.index > plan.seen.nodes for each in plan.delete)
        above = {node.name for node in here.cluster.every_node if node.host.index > plan.seen.nodes}
        assert {node.name for node in plan.leave} == above
    else:
        assert not plan.leave
        assert not going & here.living


@pytest.mark.parametrize(("record", "account"), PLACES)
@pytest.mark.parametrize("wish", ["up", "grow", "shrink"])
@given(size=sizes())
@settings(max_examples=5, deadline=None)
def test_a_plan_that_was_carried_out_leaves_nothing_to_plan(
    record: str, account: str, wish: str, size: int
) -> None:
    if not changing(record, account, wish) or (record, account) == ("none", "duplicate"):
        return
    here = situation(record, account, size)
    plan = plan_of(here, wish, size)
    after = applied(here, plan)
    again = plan_up(PROVIDER, seen_by(after, plan.seen.nodes))
    assert (again.leave, again.delete, again.start, again.create) == ((), (), (), ())
    assert not again.offer
    mine = [each for each in after.held if each.owner == MINE and each.state != "destroying"]
    foreign = [each for each in after.held if each.owner != MINE]
    assert foreign == [each for each in here.held if each.owner != MINE]
    before = Counter((each.kind, each.name) for each in here.held if each.owner == MINE)
    for key, number in Counter((each.kind, each.name) for each in mine).items():
        assert number <= max(1, before[key]), f"{key} was made twice"


@pytest.mark.parametrize(("record", "account"), PLACES)
@given(size=sizes())
@settings(max_examples=5, deadline=None)
def test_down_names_all_that_is_on_record_or_there_and_nothing_else(
    record: str, account: str, size: int
) -> None:
    here = situation(record, account, size)
    other = replace(machine(1, "another"), cluster_id="9876543210")
    here = replace(here, held=(*here.held, other))
    going = down_of(here)
    check_nothing_foreign(here, going)
    assert other not in going
    named = {(each.kind, each.name, each.ref) for each in going}
    assert len(named) == len(going), "each once"
    recorded = {(each.kind, each.name, each.ref) for each in here.resources}
    unsettled = {(each.kind, each.name) for each in here.resources if not each.ref}
    mine = {(e.kind, e.name, e.ref) for e in here.held if e.owner == MINE and e.cluster_id == ID}
    assert named == recorded | {each for each in mine if each[:2] not in unsettled}
    kinds = [each.is_machine for each in going]
    assert kinds == sorted(kinds), "machines are last in the order of making, so they go first"


@pytest.mark.parametrize(("record", "account"), PLACES)
@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("expired", [False, True])
@given(size=sizes())
@settings(max_examples=3, deadline=None)
def test_gc_takes_nothing_foreign_and_nothing_that_lives_here(
    record: str, account: str, named: bool, expired: bool, size: int
) -> None:
    here = situation(record, account, size)
    if expired and here.cluster.bill:
        bill = replace(here.cluster.bill, limit_s=NOW_S - 1)
        here = replace(here, cluster=replace(here.cluster, bill=bill))
    if expired:
        here = replace(here, held=tuple(replace(each, expires_s=NOW_S - 1) for each in here.held))
    judged = list(verdicts(here, named=named))
    for found, verdict in judged:
        if verdict.action == "to delete":
            check_nothing_foreign(here, found)
            assert not here.recorded or expired, "it lives here and its time is not over"
        elif found[0].owner == MINE:
            assert here.recorded, "this home made it and has it no more"
    assert sorted(each.ref for found, _ in judged for each in found) == sorted(e.ref for e in here.held)


def test_gc_keeps_what_holds_results_that_are_not_here_unless_it_is_named() -> None:
    here = situation("whole", "running", 2)
    bill = replace(here.cluster.bill or Bill(QUOTE), limit_s=NOW_S - 1)
    held = (replace(each, expires_s=NOW_S - 1) for each in here.held)
    ((key, found),) = groups(held).items()
    known = replace(here.cluster, bill=bill)
    for named, action in ((False, "kept"), (True, "to delete")):
        line = judge(key, found, known, MINE, NOW_S, made=True, named=named, not_pulled=("r1",))
        assert line.action == action


@given(size=st.integers(min_value=2, max_value=12))
@settings(max_examples=10, deadline=None)
def test_up_refuses_fewer_nodes_than_live(size: int) -> None:
    here = situation("whole", "running", size)
    with pytest.raises(InputError, match="does not remove nodes"):
        seen_by(here, size - 1)


@given(size=sizes(), left=st.integers(min_value=1, max_value=12))
@settings(max_examples=15, deadline=None)
def test_machines_that_a_killed_command_left_above_the_number_go(size: int, left: int) -> None:
    here = situation("whole", "running", size)
    more = tuple(machine(size + extra) for extra in range(1, left + 1))
    here = replace(here, resources=(*here.resources, *more), held=(*here.held, *more))
    plan = plan_up(PROVIDER, seen_by(here, size))
    assert plan.delete == more
    assert not plan.create
    assert applied(here, plan).held == here.held[: -len(more)]


@given(size=sizes(), off=st.sets(st.integers(min_value=1, max_value=12)))
@settings(max_examples=15, deadline=None)
def test_nodes_that_are_powered_off_are_started_and_no_other(size: int, off: set[int]) -> None:
    here = situation("whole", "running", size)
    held = tuple(replace(each, state="stopped") if each.index in off else each for each in here.held)
    plan = plan_up(PROVIDER, seen_by(replace(here, held=held), None))
    assert {each.index for each in plan.start} == {index for index in off if index <= size}
    assert not plan.create
