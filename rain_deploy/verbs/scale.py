"""``scale`` and ``extend``: a living cluster with another number of nodes, or a later time limit."""

import time
from dataclasses import dataclass, replace

from rain_deploy.cluster.apply import shrink
from rain_deploy.cluster.context import Context
from rain_deploy.cluster.lookup import NodeLine, living, ready_lines, recorded
from rain_deploy.cluster.plan import plan_up
from rain_deploy.cluster.power import move_limit
from rain_deploy.cluster.seen import account_of, look, note
from rain_deploy.core.cluster import Bill
from rain_deploy.core.events import Notice, Result
from rain_deploy.core.spec import ClusterSpec
from rain_deploy.core.text import hour, money
from rain_deploy.errors import Declined, InputError
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
    per_hour: float | None = None  # the price of all machines while they run; None if they cost nothing
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
                lost = f"{', '.join(active)} is not finished on {before.name}, and would be lost with a node"
                raise InputError(lost, next_step=f"rain-deploy cancel {active[0]} -c {before.name}")
            shrink(ctx, record, plan)
        if len(record.cluster.nodes) < n:
            carry_out(ctx, record, plan_up(provider, look(ctx, spec)) if shrinks else plan, started_s)
        bill = record.cluster.bill
        # Another number of machines reaches --max-cost at another hour.
        if bill and (limit_s := bill.limit_at(time.time())) != bill.limit_s:
            move_limit(ctx, record, replace(bill, limit_s=limit_s))
        cluster = record.cluster
    now, had = ([node.name for node in one.nodes] for one in (cluster, before))
    return ScaleResult(
        cluster=spec.name,
        before=len(had),
        after=len(now),
        added=tuple(name for name in now if name not in had),
        removed=tuple(name for name in had if name not in now),
        nodes=ready_lines(cluster),
        seconds=time.monotonic() - started_s,
        per_hour=cluster.bill.per_hour if cluster.bill else None,
        currency=cluster.currency,
        limit_s=cluster.limit_s,
    )


@dataclass(frozen=True, slots=True)
class ExtendResult(Result):
    """The result of ``extend``: when the machines power themselves off now; None: never."""

    cluster: str
    limit_s: float | None
    nodes: tuple[str, ...]  # those that have it; of the others only the labels were changed
    per_hour: float
    currency: str


def extend(ctx: Context, name: str, duration_s: float | None) -> ExtendResult:
    """Move the time limit by a duration, from now where it has passed; None: no limit.

    Raises InputError where nothing is ever powered off, and where --max-cost is spent.
    """
    with ctx.change(name, "extend") as record:
        cluster = recorded(ctx, name)
        if (bill := cluster.bill) is None:
            which = f"cluster {name} is of provider {cluster.provider}"
            raise InputError(f"{which}: its machines are never powered off")
        account = account_of(ctx, cluster)
        if account and isinstance(account.silent, InputError):  # it could not write the labels either
            raise account.silent
        bill = note(ctx, cluster, account).bill or bill if account else bill
        paid = f"{money(bill.per_hour, bill.currency)} per hour until `down`"
        if duration_s is None and not ctx.confirm(f"Without a time limit {name} costs {paid}. Continue?"):
            raise Declined(f"the time limit of {name} did not change")
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
        spent = f"{bill.cap} is spent at {hour(limit_s, now_s)}"
        if limit_s <= now_s:
            raise InputError(f"{spent}, so the time limit of {name} did not change")
        ctx.emit(Notice(f"{spent}: that is the time limit, because it is the earlier"))
    return replace(bill, limit_s=limit_s)
