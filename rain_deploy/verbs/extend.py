"""``extend``: a cluster's time limit moved to a later hour."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.limits import limit_now, move_limit
from rain_deploy.cluster.lookup import recorded
from rain_deploy.core.cluster import Cluster
from rain_deploy.core.events import Notice
from rain_deploy.core.money import per_hour_now
from rain_deploy.core.result import Result
from rain_deploy.core.wording import hour, money
from rain_deploy.errors import (
    InputError,
    UsageError,
)


@dataclass(frozen=True, slots=True)
class ExtendResult(Result):
    """``extend``: the hour at which the machines power themselves off now."""

    cluster: str
    limit_s: float | None
    """None: never."""
    nodes: tuple[str, ...]
    """Those that were told; of the others only the labels were moved."""
    per_hour: float
    """Of all machines of the cluster while they run."""
    currency: str


def extend(ctx: Context, name: str, duration_s: float | None) -> ExtendResult:
    """Move the time limit by a duration, from now where it has passed; None: no limit.

    Raises InputError where nothing is ever powered off, and where --max-cost is spent.
    """
    with ctx.store.lock(name, "extend"):
        cluster = recorded(ctx, name)
        cloud = ctx.provider_for(cluster.provider).cloud
        if cloud is None:
            raise InputError(
                f"cluster {name} is of provider {cluster.provider}: its machines are never powered off"
            )
        if duration_s is None:
            _agree(ctx, cluster)
        cluster = _moved(ctx, cluster, duration_s)
        told = move_limit(ctx, cloud, cluster)
    return ExtendResult(
        cluster=name,
        limit_s=cluster.limit_s,
        nodes=told,
        per_hour=per_hour_now(cluster.meters),
        currency=_currency(cluster),
    )


def _agree(ctx: Context, cluster: Cluster) -> None:
    paid = money(per_hour_now(cluster.meters), _currency(cluster))
    if not ctx.confirm(f"Without a time limit {cluster.name} costs {paid} per hour until `down`. Go on?"):
        raise UsageError(f"the time limit of {cluster.name} was left as it is")


def _moved(ctx: Context, cluster: Cluster, duration_s: float | None) -> Cluster:
    now_s = time.time()
    wanted_s = _wanted(cluster, now_s, duration_s)
    cluster = replace(cluster, ttl_limit_s=wanted_s)
    limit_s = limit_now(cluster, now_s)
    if limit_s is not None and (wanted_s is None or limit_s < wanted_s):
        most = money(cluster.max_cost or 0.0, _currency(cluster))
        said = f"--max-cost {most} is spent at {hour(limit_s, now_s)}"
        if limit_s <= now_s:
            raise InputError(f"{said}, so the time limit of {cluster.name} was left as it is")
        ctx.emit(Notice(f"{said}: that is the time limit, because it is the earlier"))
    return replace(cluster, limit_s=limit_s)


def _wanted(cluster: Cluster, now_s: float, duration_s: float | None) -> float | None:
    """By the clock alone; never earlier than it was."""
    if duration_s is None or (cluster.limit_s is not None and cluster.ttl_limit_s is None):
        return None
    later_s = max(now_s, cluster.limit_s or 0.0) + duration_s
    return max(later_s, cluster.ttl_limit_s or 0.0)


def _currency(cluster: Cluster) -> str:
    return cluster.quote.currency if cluster.quote else ""
