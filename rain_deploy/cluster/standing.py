"""Say what of a cluster still exists when a command fails, what it costs, and how to end that."""

from __future__ import annotations

import contextlib
import time

from rain_deploy.cluster.context import Context
from rain_deploy.core.wording import hour, money
from rain_deploy.errors import RainDeployError


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


def add_standing(ctx: Context, name: str, error: RainDeployError) -> None:
    """Add to an error what of the cluster exists, unless it says so itself, and what costs."""
    with contextlib.suppress(RainDeployError):
        said = error.still_running
        rest = standing(ctx, name, costs_only=bool(said))
        error.still_running = "; ".join(filter(None, (said, rest))) or None
