"""``scale``: a living cluster with more or fewer nodes; a failure never touches those that stay."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from rain_deploy.cluster.apply import shrink
from rain_deploy.cluster.context import Context
from rain_deploy.cluster.lookup import NodeLine, living, node_lines
from rain_deploy.cluster.plan import plan_up
from rain_deploy.cluster.power import move_limit
from rain_deploy.cluster.seen import look
from rain_deploy.core.events import Result
from rain_deploy.core.spec import ClusterSpec
from rain_deploy.errors import InputError
from rain_deploy.runs.states import run_states, unfinished
from rain_deploy.verbs.up import carry_out


@dataclass(frozen=True, slots=True)
class ScaleResult(Result):
    """The result of ``scale``.  ``added`` and ``removed`` are empty if the cluster already had this size."""

    cluster: str
    before: int
    after: int
    added: tuple[str, ...]
    removed: tuple[str, ...]
    nodes: tuple[NodeLine, ...]
    seconds: float
    per_hour: float | None = None
    """The price of all machines while they run; None if they cost nothing."""
    currency: str = ""
    limit_s: float | None = None


def scale(ctx: Context, spec: ClusterSpec, n: int) -> ScaleResult:
    """Grow to ``n`` nodes as by ``up``, or take the highest away.

    Raises InputError while a run waits or runs and nodes would go; DownIncomplete where one did not.
    """
    started_s = time.monotonic()
    with ctx.change(spec.name, "scale") as record:
        before = living(ctx, spec.name)
        spec = replace(spec, provider=before.provider, nodes=n)
        provider = ctx.provider_for(before.provider)
        plan = plan_up(provider, look(ctx, spec, shrink=True), shrink=True)
        if shrinks := bool(plan.leave or plan.delete):
            if active := unfinished(run_states(ctx, before)):  # Rain ends a run that loses a governor
                raise InputError(
                    f"{', '.join(active)} is not finished on {before.name}, and would be lost with a node",
                    next_step=f"rain-deploy cancel {active[0]} -c {before.name}",
                )
            shrink(ctx, record, plan)
        if len(record.cluster.nodes) < n:
            carry_out(ctx, record, plan_up(provider, look(ctx, spec)) if shrinks else plan, started_s)
        bill = record.cluster.bill
        if bill and bill.max_cost is not None:  # another number of machines spends it at another hour
            move_limit(ctx, record, replace(bill, limit_s=bill.limit_at(time.time())))
        cluster = record.cluster
    now, had = ([node.name for node in one.nodes] for one in (cluster, before))
    return ScaleResult(
        cluster=spec.name,
        before=len(had),
        after=len(now),
        added=tuple(name for name in now if name not in had),
        removed=tuple(name for name in had if name not in now),
        nodes=node_lines(cluster, "ready"),
        seconds=time.monotonic() - started_s,
        per_hour=cluster.bill.per_hour if cluster.bill else None,
        currency=cluster.currency,
        limit_s=cluster.limit_s,
    )
