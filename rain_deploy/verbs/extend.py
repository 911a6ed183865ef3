"""``extend``: a cluster's time limit moved to a later hour."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.lookup import recorded
from rain_deploy.cluster.power import move_limit
from rain_deploy.core.cluster import Bill
from rain_deploy.core.events import Notice, Result
from rain_deploy.core.text import hour, money
from rain_deploy.errors import InputError, UsageError


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
    with ctx.change(name, "extend") as record:
        cluster = recorded(ctx, name)
        if (bill := cluster.bill) is None:
            raise InputError(
                f"cluster {name} is of provider {cluster.provider}: its machines are never powered off"
            )
        if duration_s is None:
            paid = f"{money(bill.per_hour, bill.currency)} per hour until `down`"
            if not ctx.confirm(f"Without a time limit {name} costs {paid}. Go on?"):
                raise UsageError(f"the time limit of {name} was left as it is")
        bill = _moved(ctx, name, bill, duration_s)
        names = move_limit(ctx, record, bill)
    return ExtendResult(name, bill.limit_s, names, bill.per_hour, bill.currency)


def _moved(ctx: Context, name: str, bill: Bill, duration_s: float | None) -> Bill:
    """Return the bill with a later limit, by the clock or by --max-cost, whichever is earlier."""
    now_s, wanted_s = time.time(), None
    if duration_s is not None and (bill.limit_s is None or bill.ttl_limit_s is not None):
        wanted_s = max(max(now_s, bill.limit_s or 0.0) + duration_s, bill.ttl_limit_s or 0.0)
    bill = replace(bill, ttl_limit_s=wanted_s)
    limit_s = bill.limit_at(now_s)
    if limit_s is not None and (wanted_s is None or limit_s < wanted_s):
        spent = f"--max-cost {money(bill.max_cost or 0.0, bill.currency)} is spent at {hour(limit_s, now_s)}"
        if limit_s <= now_s:
            raise InputError(f"{spent}, so the time limit of {name} was left as it is")
        ctx.emit(Notice(f"{spent}: that is the time limit, because it is the earlier"))
    return replace(bill, limit_s=limit_s)
