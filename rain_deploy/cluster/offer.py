"""What machines will cost and open, when they end by themselves, and the question to the user."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.seen import Seen
from rain_deploy.core.bill import DEFAULT_TTL_S, Bill
from rain_deploy.core.cluster import Cluster
from rain_deploy.core.events import Notice
from rain_deploy.core.text import DAY_S, HOUR_S, hour, money
from rain_deploy.errors import InputError, UsageError

_BUILDS = "engine: not cached; node-1 builds it first (3 to 5 minutes)"
SHORTEST_S = 60.0
"""Nothing is computed in less: a first boot alone takes longer."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What the user reads before money is spent, and the question to answer."""

    sentences: tuple[str, ...]
    question: str


def agreed(seen: Seen) -> Cluster:
    """Return the cluster with the bill that the user is asked to agree to; as it is where nothing is priced.

    Raises InputError where --max-cost would be spent at once.
    """
    quote, cluster = seen.quote, seen.cluster
    if quote is None:
        return cluster
    had = cluster.bill or Bill(quote)
    bill = replace(
        had,
        quote=quote,
        account=seen.account.key if seen.account else "",
        ttl_limit_s=_ttl_limit_s(seen),
        max_cost=seen.spec.max_cost or had.max_cost,
    )
    limit_s = bill.limit_at(seen.now_s, per_hour=quote.per_hour * seen.nodes)
    if bill.max_cost is not None and limit_s is not None and limit_s - seen.now_s < SHORTEST_S:
        raise InputError(
            f"--max-cost {bill.max_cost:g}: {seen.nodes} machines spend that within {SHORTEST_S:.0f} s, "
            f"at {money(quote.per_hour * seen.nodes, quote.currency)} per hour",
            next_step="give a higher --max-cost, or fewer --nodes",
        )
    return replace(cluster, bill=replace(bill, limit_s=limit_s), machines=quote.settings(cluster.machines))


def _ttl_limit_s(seen: Seen) -> float | None:
    """A limit that has not passed stays; a new one is as asked, else 12 h."""
    had = seen.cluster.bill.ttl_limit_s if seen.cluster.bill else None
    if had is not None and had > seen.now_s:
        return had
    if seen.cluster.up and had is None:
        return None
    ttl_s = DEFAULT_TTL_S if seen.spec.ttl_s is None else seen.spec.ttl_s
    return None if math.isinf(ttl_s) else seen.now_s + ttl_s


def offer_of(seen: Seen, cluster: Cluster) -> Offer:
    """Return what is offered: what is made, what it costs, what opens to whom, when it ends by itself."""
    assert cluster.bill is not None
    quote, nodes, more = cluster.bill.quote, seen.nodes, seen.missing
    hourly, paid = quote.per_hour * nodes, quote.currency
    per_hour = money(hourly, paid)
    per_day, off = money(hourly * DAY_S / HOUR_S, paid), money(quote.stopped_per_hour * nodes, paid)
    left = "no limit" if quote.quota_left is None else f"{quote.quota_left} instances"
    until = f"until {hour(cluster.limit_s, seen.now_s)}" if cluster.limit_s else "WITHOUT a time limit"
    made = more if more > 0 else f"as before, {nodes}"
    what = f"Make {more} {'machine' if more == 1 else 'machines'}" if more > 0 else "Go on"
    builds = () if seen.engine_cached or cluster.up else (_BUILDS,)
    return Offer(
        (
            f"{made} x {quote.instance_type} ({quote.size}) in {quote.zone}, {quote.template}",
            f"price of all {nodes}: {per_hour} per hour, {per_day} per day; powered off {off} per hour",
            f"prices: {quote.source}",
            f"quota left: {left}",
            *quote.opens,
            limit_sentence(cluster, seen.now_s),
            *builds,
        ),
        f"{what}, {per_hour} per hour for all {nodes}, {until}?",
    )


def limit_sentence(cluster: Cluster, now_s: float) -> str:
    """Return when the machines end by themselves, and what they cost then."""
    if cluster.limit_s is None:
        return "time limit: none; the machines cost until `down`"
    return f"time limit: each machine powers itself off at {hour(cluster.limit_s, now_s)}"


def agree(ctx: Context, seen: Seen, offer: Offer | None) -> None:
    """Show the offer and ask.  Raises UsageError when the user does not agree; nothing was made then."""
    name, account = seen.cluster.name, seen.account
    if account and account.silent:
        ctx.emit(
            Notice(f"the cloud did not answer, so it is unknown what there is of {name}: {account.silent}")
        )
    if offer is None:
        if seen.cluster.bill and seen.spec.ttl_s is not None:
            sentence = limit_sentence(seen.cluster, seen.now_s)
            ctx.emit(Notice(f"{sentence}; `rain-deploy extend` moves it, --ttl does not"))
        return
    for sentence in offer.sentences:
        ctx.emit(Notice(sentence))
    if not ctx.confirm(offer.question):
        raise UsageError("nothing was made: you did not agree", next_step=f"rain-deploy up -c {name}")
