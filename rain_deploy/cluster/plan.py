"""Plan: from what is seen and what is wished, what to delete, start and create, and what it costs.  Pure."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

from rain_deploy.cluster.seen import Seen, is_lost
from rain_deploy.core.cluster import DEFAULT_TTL_S, SHORTEST_LIMIT_S, Bill, Cluster, Node
from rain_deploy.core.machine import Intent, Resource
from rain_deploy.core.text import DAY_S, HOUR_S, MINUTE_S, clock, count, hour, money
from rain_deploy.errors import InputError
from rain_deploy.providers.base import Provider


@dataclass(frozen=True, slots=True)
class Plan:
    """The changes that a command makes to the machines of a cluster, in this order."""

    seen: Seen
    cluster: Cluster
    """The cluster to record after the user agrees: with its bill and what its machines have in common."""
    leave: tuple[Node, ...] = ()  # nodes that end their work and go; ``up`` never has one
    delete: tuple[Resource, ...] = ()  # the last of them goes first
    start: tuple[Resource, ...] = ()  # machines of nodes that are powered off, or have another address now
    create: tuple[Intent, ...] = ()  # what does not exist yet
    intents: tuple[Intent, ...] = ()
    """All that shall exist; an intent whose outcome is unknown may be among them."""
    offer: tuple[str, ...] = ()
    """Sentences for the user before money is spent: what is created, opened and paid, and when it ends."""
    repairs: tuple[str, ...] = ()  # what is not as it should be in the cloud's own wall
    question: str = ""  # what the user must agree to before anything is done


def plan_up(provider: Provider, seen: Seen, *, shrink: bool = False) -> Plan:
    """Return the plan that leads to the nodes wished for.

    ``shrink``: nodes above that number leave; without it no living node is ever touched.
    Raises InputError where --max-cost would be spent at once, and where strangers reach Rain.
    """
    if seen.reach and seen.reach.refused:
        raise InputError(seen.reach.refused, next_step=seen.reach.next_step)
    was, cluster, account = seen.cluster, _agreed(seen), seen.account
    intents = provider.intents(seen.spec, cluster, seen.nodes)
    # Recorded machines above the number leave, or a command that was killed made them.
    living = {node.name for node in was.nodes} if was.up and not shrink else set()
    above = (r for r in seen.resources if r.index > seen.nodes and r.name not in living)
    # A machine that does not run and is no node yet is started by its create.
    shown = account.machines(was) if was.up and account else {}
    pairs = ((node, shown.get(node.name)) for node in was.nodes if node.host.index <= seen.nodes)
    offer, question = _offer(seen, cluster) if seen.quote else ((), "")
    return Plan(
        seen=seen,
        cluster=cluster,
        leave=tuple(n for n in was.every_node if n.host.index > seen.nodes) if shrink else (),
        delete=tuple(above) if provider.cloud or shrink else (),
        start=tuple(found for node, found in pairs if found and is_lost(node, found)),
        create=tuple(intent for intent in intents if (intent.kind, intent.name) not in seen.existing),
        intents=intents,
        offer=offer,
        repairs=seen.reach.repairs if seen.reach and seen.recorded else (),
        question=question,
    )


def plan_down(
    cluster: Cluster, resources: tuple[Resource, ...], listed: tuple[Resource, ...]
) -> tuple[Resource, ...]:
    """Return everything of the cluster, in order of making: as recorded, and what is listed beside it.

    A record without an id stands for everything of its name: ``delete`` looks for it.
    """
    refs = {(resource.kind, resource.name): resource.ref for resource in resources}

    def is_another(found: Resource) -> bool:
        ref = refs.get((found.kind, found.name))
        return ref is None if not ref else found.ref not in {"", ref}

    mine = (found for found in listed if found.cluster_id == cluster.id)
    return in_order_of_making((*resources, *filter(is_another, mine)))


def in_order_of_making(resources: tuple[Resource, ...]) -> tuple[Resource, ...]:
    """Return machines, by number, behind all else: they are made last and go first."""
    return tuple(sorted(resources, key=lambda resource: resource.index))


def _agreed(seen: Seen) -> Cluster:
    """Return the cluster with the bill that the user is asked to agree to; as it is where nothing is priced.

    A time limit that has not passed stays; a new one is as asked, else 12 h.
    """
    quote, cluster, now_s = seen.quote, seen.cluster, seen.now_s
    if quote is None:
        return cluster
    had = cluster.bill or Bill(quote, seen_s=now_s)
    ttl_limit_s = had.ttl_limit_s
    passed = ttl_limit_s is not None and ttl_limit_s <= now_s
    if passed or (ttl_limit_s is None and not cluster.up):
        ttl_s = DEFAULT_TTL_S if seen.spec.ttl_s is None else seen.spec.ttl_s
        ttl_limit_s = None if math.isinf(ttl_s) else now_s + ttl_s
    account = seen.account.key if seen.account else ""
    bill = replace(had, quote=quote, account=account, ttl_limit_s=ttl_limit_s)
    bill = replace(bill, max_cost=seen.spec.max_cost or had.max_cost)
    limit_s = bill.limit_at(now_s, per_hour=quote.per_hour * seen.nodes)
    if bill.cap and limit_s is not None and limit_s - now_s < SHORTEST_LIMIT_S:
        raise InputError(
            f"{bill.cap}: {count(seen.nodes, 'machine')} would spend that within "
            f"{SHORTEST_LIMIT_S / MINUTE_S:.0f} minutes, "
            f"at {money(quote.per_hour * seen.nodes, quote.currency)} per hour",
            next_step="give a higher --max-cost, or fewer --nodes",
        )
    return replace(cluster, bill=replace(bill, limit_s=limit_s), machines=quote.settings(cluster.machines))


def _offer(seen: Seen, cluster: Cluster) -> tuple[tuple[str, ...], str]:
    """Return what is offered (what is made, what it costs and opens, when it ends), and the question."""
    assert seen.quote is not None
    quote, nodes, more = seen.quote, seen.nodes, seen.missing
    hourly, paid = quote.per_hour * nodes, quote.currency
    per_hour = money(hourly, paid)
    per_day, off = money(hourly * DAY_S / HOUR_S, paid), money(quote.stopped_per_hour * nodes, paid)
    left = "no limit" if quote.quota_left is None else count(quote.quota_left, "instance")
    end_s, total = cluster.limit_s, "WITHOUT a time limit"
    if end_s is not None:
        most = money(hourly * max(0.0, end_s - seen.now_s) / HOUR_S, paid)
        total = f"at most {most} until {clock(end_s, seen.now_s)}"
    made = more if more > 0 else f"as before, {nodes}"
    what, off_now = (
        f"Create {count(more, 'machine')}" if more > 0 else "Continue",
        seen.asleep,
    )
    if off_now:
        alone = f"Start {count(len(off_now), 'machine')}"
        what = f"{what} and start {len(off_now)}" if more > 0 else alone
    builds = "engine: not cached; node-1 builds it first (3 to 5 minutes)"
    sentences = (
        f"{made} x {quote.instance_type} ({quote.size}) in {quote.zone}, {quote.template}",
        f"price of all {nodes}: {per_hour} per hour, {per_day} per day; powered off {off} per hour",
        f"prices: {quote.source}",
        *((f"powered off now, and started: {', '.join(off_now)}",) if off_now else ()),
        f"quota left: {left}",
        *quote.opens,
        limit_sentence(cluster, seen.now_s),
        *(() if seen.engine_cached or cluster.up else (builds,)),
    )
    return sentences, f"{what}, {per_hour}/hour in all: {total}?"


def unknown_sentences(plan: Plan) -> tuple[str, ...]:
    """Return what cannot be known because the account shows nothing, and why."""
    account = plan.seen.account
    if not (account and account.silent):
        return ()
    return (f"it is unknown what there is of {plan.cluster.name}: {account.silent}",)


def limit_sentence(cluster: Cluster, now_s: float) -> str:
    """Return when the machines end by themselves, and what they cost then."""
    if cluster.limit_s is None:
        return "time limit: none; the machines cost until `down`"
    return f"time limit: each machine powers itself off at {hour(cluster.limit_s, now_s)}"


class Key(NamedTuple):
    """The identity of a cluster in an account: whoever can label a machine can give it another's id."""

    id: str
    cluster: str
    owner: str


@dataclass(frozen=True, slots=True)
class GcLine:
    """All that the account has of one cluster of one owner."""

    cluster: str
    id: str
    owner: str
    state: str  # ``living``, ``left``, ``expired`` or ``foreign``
    resources: tuple[str, ...]
    action: str  # ``kept``, ``to delete``, ``deleted`` or ``not deleted``
    reason: str
    next_step: str = ""
    zones: tuple[str, ...] = ()  # of its machines


def groups(found: Iterable[Resource]) -> dict[Key, tuple[Resource, ...]]:
    """Return everything that an account has, by cluster and owner."""
    grouped: dict[Key, list[Resource]] = {}
    for resource in found:
        key = Key(resource.cluster_id, resource.cluster, resource.owner)
        grouped.setdefault(key, []).append(resource)
    return {key: tuple(of_one) for key, of_one in grouped.items()}


def judge(
    key: Key,
    found: tuple[Resource, ...],
    recorded: Cluster | None,
    mine: str,
    now_s: float,
    *,
    made: bool,
    named: bool,
    not_pulled: tuple[str, ...] = (),
) -> GcLine:
    """Return what becomes of a group: ``kept`` or ``to delete``.

    Another owner's (not ``mine``) is never touched.  What goes: a cluster that this home ``made`` and has no
    more on record; one that has passed its time limit and holds no runs that are ``not_pulled``; one that was
    ``named`` and does not live here.  One on record goes when its labels and its record agree.
    """
    labels = tuple(resource.label for resource in found)
    zones = tuple(sorted({resource.zone for resource in found if resource.zone}))

    def line(state: str, action: str, reason: str, next_step: str = "") -> GcLine:
        return GcLine(key.cluster, key.id, key.owner, state, labels, action, reason, next_step, zones)

    if key.owner != mine:
        return line("foreign", "kept", "it has another owner")
    limits = [resource.expires_s for resource in found if resource.is_machine]
    known = [limit for limit in limits if limit is not None]
    limit_s = max(known) if known and len(known) == len(limits) else None  # of the last; None: one never ends
    expired = limit_s is not None and limit_s <= now_s
    if recorded is not None:
        down = f"rain-deploy down -c {recorded.name}"
        if not (expired and recorded.bill and recorded.bill.passed(now_s)):
            return line("living", "kept", "recorded on this machine", down)
        if not_pulled and not named:
            return line("expired", "kept", f"results of {not_pulled[-1]} are not pulled yet", down)
        limit_s = recorded.limit_s
    elif made or named:
        lost = "this machine created it and no longer has a record of it"
        return line("left", "to delete", lost if made else "not recorded on this machine; you named it")
    if expired:
        return line("expired", "to delete", f"its time limit was {hour(limit_s or 0.0, now_s)}")
    until = f"its time limit: {hour(limit_s, now_s)}" if limit_s else "it has no time limit"
    delete = f"rain-deploy gc --delete -c {key.cluster}"
    reason = f"not recorded on this machine; another of yours may use it; {until}"
    return line("living", "kept", reason, delete)
