"""Before money is spent: what machines will cost and open, when they end by themselves, and the question."""

from __future__ import annotations

import math
import time
from dataclasses import replace

from rain_deploy.cluster.context import Context
from rain_deploy.core.bill import DEFAULT_TTL_S, Bill
from rain_deploy.core.cluster import Cluster
from rain_deploy.core.events import Notice
from rain_deploy.core.machine import Resource
from rain_deploy.core.spec import ClusterSpec
from rain_deploy.core.wording import hour, money
from rain_deploy.errors import InputError, UsageError
from rain_deploy.parts.cache import EngineCache
from rain_deploy.parts.engine import engine_key
from rain_deploy.parts.facts import DEBIAN_12
from rain_deploy.providers.base import Provider

HOURS_PER_DAY = 24
SHORTEST_S = 60.0
"""Nothing is computed in less: a first boot alone takes longer."""


def offer(
    ctx: Context,
    provider: Provider,
    spec: ClusterSpec,
    cluster: Cluster,
    *,
    nodes: int,
    living: tuple[Resource, ...],
) -> Cluster:
    """The cluster with its quote and time limit, once the user has agreed to pay for what is missing.

    ``living``: what exists of it.  Where nothing is priced, or nothing is missing, the time limit is still to
    come and no other --max-cost is asked for: the cluster as it is.
    Raises UsageError when the user does not agree; nothing was made then.
    """
    more = nodes - machines_of(living)
    over = cluster.limit_s is not None and cluster.limit_s <= time.time()
    less = spec.max_cost not in {None, cluster.bill.max_cost if cluster.bill else None}
    if provider.cloud is None or (more <= 0 and cluster.bill is not None and not (over or less)):
        if provider.cloud and spec.ttl_s is not None:
            ctx.emit(Notice(f"{limit_sentence(cluster)}; `rain-deploy extend` moves it, --ttl does not"))
        return cluster
    quoted = quoted_cluster(provider, spec, cluster, nodes=nodes, more=max(more, 0))
    for sentence in sentences(ctx, spec, quoted, nodes=nodes, more=more):
        ctx.emit(Notice(sentence))
    if not ctx.confirm(question(quoted, nodes=nodes, more=more)):
        raise UsageError("nothing was made: you did not agree", next_step=f"rain-deploy up -c {cluster.name}")
    return quoted


def machines_of(resources: tuple[Resource, ...]) -> int:
    """How many machines exist among them."""
    return sum(resource.is_machine and bool(resource.ref) for resource in resources)


def quoted_cluster(
    provider: Provider, spec: ClusterSpec, cluster: Cluster, *, nodes: int, more: int
) -> Cluster:
    """The cluster as it would be paid for; reads only."""
    assert provider.cloud is not None
    quote = provider.cloud.quote(spec, cluster, more)
    now_s = time.time()
    had = cluster.bill or Bill(quote)
    bill = replace(
        had,
        quote=quote,
        account=provider.cloud.account,
        ttl_limit_s=_ttl_limit_s(spec, cluster, now_s),
        max_cost=spec.max_cost or had.max_cost,
    )
    limit_s = bill.limit_at(now_s, per_hour=quote.per_hour * nodes)
    if bill.max_cost is not None and limit_s is not None and limit_s - now_s < SHORTEST_S:
        raise InputError(
            f"--max-cost {bill.max_cost:g}: {nodes} machines spend that within {SHORTEST_S:.0f} s, "
            f"at {money(quote.per_hour * nodes, quote.currency)} per hour",
            next_step="name a higher --max-cost, or fewer --nodes",
        )
    machines = replace(
        cluster.machines,
        zone=quote.zone,
        instance_type=quote.instance_type,
        disk_size_gib=quote.disk_size_gib,
        template=quote.template,
    )
    return replace(cluster, bill=replace(bill, limit_s=limit_s), machines=machines)


def _ttl_limit_s(spec: ClusterSpec, cluster: Cluster, now_s: float) -> float | None:
    """A living limit stays; a new one is as asked, else 12 h."""
    had = cluster.bill.ttl_limit_s if cluster.bill else None
    if had is not None and had > now_s:
        return had
    if cluster.up and had is None:
        return None
    ttl_s = DEFAULT_TTL_S if spec.ttl_s is None else spec.ttl_s
    return None if math.isinf(ttl_s) else now_s + ttl_s


def sentences(ctx: Context, spec: ClusterSpec, cluster: Cluster, *, nodes: int, more: int) -> tuple[str, ...]:
    """The plan, a line each: what is made, what it costs, what opens to whom, when it ends by itself."""
    assert cluster.bill is not None
    quote = cluster.bill.quote
    hourly, paid = quote.per_hour * nodes, quote.currency
    left = "no limit" if quote.quota_left is None else f"{quote.quota_left} instances"
    engine = EngineCache(ctx.home).find(engine_key(spec.engine), DEBIAN_12.arch, DEBIAN_12.glibc)
    built = (
        () if engine or cluster.up else ("engine: none is cached; node-1 builds it first (3 to 5 minutes)",)
    )
    size = f"{quote.cpus} CPUs, {quote.memory_bytes >> 30} GiB, {quote.disk_size_gib} GiB of disk"
    made = more if more > 0 else f"as before, {nodes}"
    day = money(hourly * HOURS_PER_DAY, paid)
    off = money(quote.stopped_per_hour * nodes, paid)
    return (
        f"{made} x {quote.instance_type} ({size}) in {quote.zone}, {quote.template}",
        f"price of all {nodes}: {money(hourly, paid)} per hour, {day} per day; powered off {off} per hour",
        f"prices: {quote.source}",
        f"quota left: {left}",
        *quote.opens,
        limit_sentence(cluster),
        *built,
    )


def limit_sentence(cluster: Cluster) -> str:
    """When the machines end by themselves, and what they cost then."""
    if cluster.limit_s is None:
        return "time limit: none; the machines cost until `down`"
    return f"time limit: each machine powers itself off at {hour(cluster.limit_s, time.time())}"


def question(cluster: Cluster, *, nodes: int, more: int) -> str:
    """What the user agrees to, in one line."""
    assert cluster.bill is not None
    quote = cluster.bill.quote
    until = f"until {hour(cluster.limit_s, time.time())}" if cluster.limit_s else "WITHOUT a time limit"
    price = money(quote.per_hour * nodes, quote.currency)
    machines = "1 machine" if more == 1 else f"{more} machines"
    return f"{f'Make {machines}' if more > 0 else 'Go on'}, {price} per hour for all {nodes}, {until}?"
