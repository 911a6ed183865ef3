"""Before money is spent: what machines will cost and open, when they end by themselves, and the question."""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.machines import is_machine
from rain_deploy.core.bill import Quote
from rain_deploy.core.cluster import Cluster
from rain_deploy.core.events import Notice
from rain_deploy.core.machine import ResourceRef
from rain_deploy.core.money import DEFAULT_TTL_S, cost_so_far, limit_of
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
    living: tuple[ResourceRef, ...],
) -> Cluster:
    """The cluster with its quote and time limit, once the user has agreed to pay for what is missing.

    ``living``: what exists of it.  Where nothing is priced, or nothing is missing, the time limit is still to
    come and no other --max-cost is asked for: the cluster as it is.
    Raises UsageError when the user does not agree; nothing was made then.
    """
    more = nodes - machines_of(living)
    over = cluster.limit_s is not None and cluster.limit_s <= time.time()
    less = spec.cloud.max_cost not in {None, cluster.max_cost}
    if provider.cloud is None or (more <= 0 and cluster.quote is not None and not (over or less)):
        if provider.cloud and spec.cloud.ttl_s is not None:
            ctx.emit(Notice(f"{limit_sentence(cluster)}; `rain-deploy extend` moves it, --ttl does not"))
        return cluster
    quoted = quoted_cluster(provider, spec, cluster, nodes=nodes, more=max(more, 0))
    assert quoted.quote is not None
    for sentence in sentences(ctx, spec, quoted, nodes=nodes, more=more):
        ctx.emit(Notice(sentence))
    if not ctx.confirm(question(quoted, nodes=nodes, more=more)):
        raise UsageError("nothing was made: you did not agree", next_step=f"rain-deploy up -c {cluster.name}")
    return quoted


def machines_of(resources: tuple[ResourceRef, ...]) -> int:
    """How many machines exist among them."""
    return sum(is_machine(resource.name) and bool(resource.ref) for resource in resources)


def quoted_cluster(
    provider: Provider, spec: ClusterSpec, cluster: Cluster, *, nodes: int, more: int
) -> Cluster:
    """The cluster as it would be paid for; reads only."""
    assert provider.cloud is not None
    quote = provider.cloud.quote(spec, cluster, more)
    kept = json.loads(cluster.spec_json)
    kept["cloud"] |= {
        "zone": quote.zone,
        "instance_type": quote.instance_type,
        "disk_size_gib": quote.disk_size_gib,
        "template": quote.template,
    }
    cluster = replace(
        cluster,
        account=provider.cloud.account,
        quote=quote,
        ttl_limit_s=_ttl_limit_s(spec, cluster),
        max_cost=spec.cloud.max_cost or cluster.max_cost,
        spec_json=json.dumps(kept),
    )
    limit_s = _limit_s(cluster, quote, nodes)
    if cluster.max_cost is not None and limit_s is not None and limit_s - time.time() < SHORTEST_S:
        raise InputError(
            f"--max-cost {cluster.max_cost:g}: {nodes} machines spend that within {SHORTEST_S:.0f} s, "
            f"at {money(quote.per_hour * nodes, quote.currency)} per hour",
            next_step="name a higher --max-cost, or fewer --nodes",
        )
    return replace(cluster, limit_s=limit_s)


def _ttl_limit_s(spec: ClusterSpec, cluster: Cluster) -> float | None:
    """A living limit stays; a new one is as asked, else 12 h."""
    now_s = time.time()
    if cluster.ttl_limit_s is not None and cluster.ttl_limit_s > now_s:
        return cluster.ttl_limit_s
    if cluster.up and cluster.ttl_limit_s is None:
        return None
    return limit_of(now_s, ttl_s=DEFAULT_TTL_S if spec.cloud.ttl_s is None else spec.cloud.ttl_s)


def _limit_s(cluster: Cluster, quote: Quote, nodes: int) -> float | None:
    """The hour at which --max-cost is spent, where that is the earlier one."""
    now_s = time.time()
    return limit_of(
        now_s,
        ttl_s=math.inf if cluster.ttl_limit_s is None else cluster.ttl_limit_s - now_s,
        max_cost=cluster.max_cost,
        spent=cost_so_far(cluster.meters, now_s),
        per_hour_all=quote.per_hour * nodes,
    )


def sentences(ctx: Context, spec: ClusterSpec, cluster: Cluster, *, nodes: int, more: int) -> tuple[str, ...]:
    """The plan, a line each: what is made, what it costs, what opens to whom, when it ends by itself."""
    quote = cluster.quote
    assert quote is not None
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
    quote = cluster.quote
    assert quote is not None
    until = f"until {hour(cluster.limit_s, time.time())}" if cluster.limit_s else "WITHOUT a time limit"
    price = money(quote.per_hour * nodes, quote.currency)
    machines = "1 machine" if more == 1 else f"{more} machines"
    return f"{f'Make {machines}' if more > 0 else 'Go on'}, {price} per hour for all {nodes}, {until}?"
