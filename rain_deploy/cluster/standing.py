"""Say what of a cluster still exists when a command fails, what it costs, and how to end that."""

from __future__ import annotations

import time

from rain_deploy.cluster.context import Context
from rain_deploy.core.wording import hour, money


def standing(ctx: Context, name: str, *, costs_only: bool) -> str | None:
    """Return a sentence about the cluster's machines as recorded; None where nothing is left.

    ``costs_only``: also None where they cost nothing.  A machine whose create had no outcome counts: it may
    exist.
    """
    cluster = ctx.store.cluster(name)
    if cluster is None:
        return None
    bill, resources = cluster.bill, ctx.store.resources(cluster.id)
    things = (resources or cluster.nodes) if bill else (cluster.nodes or resources)
    machines = sum(resource.is_machine for resource in resources) or len(cluster.nodes)
    costs = ""
    if bill and machines:
        limit = f"time limit {hour(bill.limit_s, time.time())}" if bill.limit_s else "no time limit"
        costs = f" ({money(bill.quote.per_hour * machines, bill.currency)} per hour; {limit})"
    if not things or (costs_only and not costs):
        return None
    names = ", ".join(thing.name for thing in things)
    flag = "" if name == "default" else f" -c {name}"
    return f"cluster {name}: {names}{costs}; remove it with: rain-deploy down{flag}"
