"""``up``: the cluster that is wished for, from whatever is there; the second time it changes nothing."""

import time
from dataclasses import dataclass
from pathlib import Path

from rain_deploy.cluster.apply import agree, apply
from rain_deploy.cluster.context import Context
from rain_deploy.cluster.destroy import undone
from rain_deploy.cluster.install import PlanResult, preview
from rain_deploy.cluster.lookup import NodeLine, ready_lines
from rain_deploy.cluster.plan import Plan, plan_up
from rain_deploy.cluster.power import move_limit
from rain_deploy.cluster.seen import look, viewed
from rain_deploy.core.cluster import Quote
from rain_deploy.core.events import Result
from rain_deploy.core.spec import NO_JOURNAL, ClusterSpec
from rain_deploy.parts.part import facts_of
from rain_deploy.runs.journal import give_journal, give_none, named_copy, offer_journal
from rain_deploy.state.store import Record


@dataclass(frozen=True, slots=True)
class UpResult(Result):
    """The result of ``up``.  If ``changed`` is empty and ``started`` is 0, there was nothing to do."""

    cluster: str
    provider: str
    nodes: tuple[NodeLine, ...]
    changed: tuple[str, ...]  # one sentence for each change
    started: int  # the number of processes that were started and keep running
    seconds: float
    limit_s: float | None = None  # when the machines power themselves off; None: never
    quote: Quote | None = None  # the price of one machine; None if the machines cost nothing


def plan(ctx: Context, spec: ClusterSpec) -> PlanResult:
    """Return what ``up`` would do, and the commands that would run on each node; change nothing."""
    with viewed(ctx, spec.provider):
        seen = look(ctx, spec, preflight=False, resolve=False)
    return preview(ctx, plan_up(ctx.provider_for(spec.provider), seen))


def up(ctx: Context, spec: ClusterSpec) -> UpResult:
    """Bring a cluster up: look, plan, ask, apply.  What an interrupted or failed ``up`` made, it undoes."""
    started_s = time.monotonic()
    copy = named_copy(Path(spec.journal)) if spec.journal not in {"", NO_JOURNAL} else None
    with ctx.change(spec.name, "up") as record:
        wanted = plan_up(ctx.provider_for(spec.provider), look(ctx, spec))
        result = carry_out(ctx, record, wanted, started_s)
        if copy:
            give_journal(ctx, record.cluster, copy)
        elif spec.journal == NO_JOURNAL:
            give_none(ctx, record.cluster)
        elif not ((facts := facts_of(record.cluster.server)).journal or facts.active_run):
            offer_journal(ctx, record.cluster)
        return result


def carry_out(ctx: Context, record: Record, plan: Plan, started_s: float) -> UpResult:
    """Ask where money is spent, apply the plan, and return what the cluster is now."""
    agree(ctx, plan)
    with undone(ctx, record, plan, keep=plan.seen.spec.keep_partial):
        if plan.seen.recorded:  # a command that only reads may have recorded an address meanwhile
            record.change(bill=plan.cluster.bill, machines=plan.cluster.machines)
        else:
            record.save(plan.cluster)
        cluster, changed, started = apply(ctx, record, plan)
    if cluster.bill and plan.seen.recorded:  # a machine may have been off when the limit was moved
        move_limit(ctx, record, cluster.bill)
    seconds, quote = time.monotonic() - started_s, cluster.bill.quote if cluster.bill else None
    nodes = ready_lines(cluster)
    return UpResult(cluster.name, cluster.provider, nodes, changed, started, seconds, cluster.limit_s, quote)
