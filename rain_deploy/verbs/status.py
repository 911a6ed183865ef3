"""``status``: one cluster, from the machines themselves."""

import time
from dataclasses import dataclass

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.lookup import NodeLine, ask_nodes, changing, drift, recorded
from rain_deploy.cluster.seen import account_of, note, reach_of
from rain_deploy.core.cluster import Cluster
from rain_deploy.core.events import Notice, Result
from rain_deploy.core.machine import Reach
from rain_deploy.core.run import RunRecord
from rain_deploy.errors import Drift, RainDeployError, Unreachable
from rain_deploy.node.wire import RunState, RunStatus
from rain_deploy.results.points import Table
from rain_deploy.results.tally import Outlook
from rain_deploy.runs.outlook import outlook_of
from rain_deploy.runs.states import RunLine, record_states, run_file, run_line, runs_of, unfinished, why_over


@dataclass(frozen=True, slots=True)
class StatusResult(Result):
    """The result of ``status``.  ``drift`` has a sentence for each difference from the record."""

    cluster: str
    provider: str
    nodes: tuple[NodeLine, ...]
    governors: int | None  # how many are registered with Rain now; None if Rain did not answer
    run: RunLine | None  # the active run, or else the last one
    drift: tuple[str, ...]
    seconds: float
    checked: bool = False  # True with ``--check``; then ``drift`` is a problem
    limit_s: float | None = None
    cost: float | None = None  # the cost so far; None if the machines cost nothing
    per_hour: float | None = None
    """The price of all machines in their present state; a machine that is off costs only its disk."""
    currency: str = ""
    outlook: Outlook | None = None  # of the run, while it runs
    zone: str = ""  # empty where machines have none
    changing: str = ""  # another command that changes the cluster now, and for how long

    @property
    def problem(self) -> RainDeployError | None:
        if not (self.checked and self.drift):
            return None
        message = f"cluster {self.cluster} is not as recorded: {'; '.join(self.drift)}"
        return Drift(message, next_step=f"rain-deploy up -c {self.cluster}")


def status(ctx: Context, name: str, *, check: bool = False) -> StatusResult:
    """Ask all nodes in parallel.  A node that does not answer is drift; a wrong host key is an error.

    Where machines are priced, the cloud is asked first, and a node whose machine is off is not asked.
    """
    started_s = time.monotonic()
    cluster = recorded(ctx, name)
    account = account_of(ctx, cluster)
    cluster = note(ctx, cluster, account) if account else cluster
    reach = reach_of(ctx, cluster, account) if account else Reach()
    for sentence in reach.warnings:
        ctx.emit(Notice(sentence, warning=True))
    lines, server = ask_nodes(ctx, cluster, account)
    states = {run.run: run for run in server.runs} if server else {}
    record_states(ctx, cluster, states)
    runs, active = runs_of(ctx, cluster), unfinished(states)
    shown = [record for record in runs if record.id in active][:1] or runs[-1:]
    held = [record.id for record in runs if not record.pulled]
    if held and cluster.nodes and lines[0].state == "stopped":
        commands = " or ".join(f"`rain-deploy {verb} -c {cluster.name}`" for verb in ("pull", "down"))
        where = f"on the disk of {cluster.server.name}, which is powered off; {commands} starts it"
        ctx.emit(Notice(f"results of {', '.join(held)} are {where}"))
    running = bool(active and shown) and states[shown[0].id].state == RunState.RUNNING
    over = why_over(cluster, account, time.time())
    return StatusResult(
        cluster=name,
        provider=cluster.provider,
        zone=cluster.machines.zone or "",
        changing=str(changing(ctx, name) or ""),
        nodes=tuple(lines),
        governors=sum(line.state == "ready" for line in lines),
        run=run_line(shown[0], states.get(shown[0].id), over) if shown else None,
        drift=tuple(drift(ctx, cluster, account, lines, reach)),
        seconds=time.monotonic() - started_s,
        checked=check,
        limit_s=cluster.limit_s,
        cost=cluster.cost(time.time()),
        per_hour=cluster.bill.per_hour if cluster.bill else None,
        currency=cluster.currency,
        outlook=_outlook(ctx, cluster, shown[0], states[shown[0].id]) if running else None,
    )


def _outlook(ctx: Context, cluster: Cluster, run: RunRecord, status: RunStatus) -> Outlook | None:
    """Return what is ahead of a run; None if its points cannot be read now."""
    table = Table()
    try:
        run_file(ctx, cluster, run, "points.jsonl", table.feed)
    except Unreachable:
        return None
    return outlook_of(cluster, table.rows(), status)
