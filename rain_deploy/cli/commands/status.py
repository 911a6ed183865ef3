"""rain-deploy status and list: one cluster as its machines are, and all clusters."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rain_deploy.cli.command import option, verb
from rain_deploy.cli.show import text
from rain_deploy.core.text import hour, money

if TYPE_CHECKING:
    from rain_deploy.cli.session import Session
    from rain_deploy.verbs.list import ClusterLine, ListResult
    from rain_deploy.verbs.status import StatusResult


def status_text(result: StatusResult) -> text.Text:
    """Return the cluster's state, its cost, a row for each node, its run, and what has drifted."""
    rain = "Rain does not answer"
    if result.governors is not None:
        rain = f"{text.count(result.governors, 'governor')} registered with Rain"
    run = result.run
    return [
        f"cluster {result.cluster}: {result.provider}, {text.count(len(result.nodes), 'node')}, {rain}",
        *_cost(result),
        text.nodes_table(result.nodes),
        f"run {run.run}: {run.outcome or run.state}, {run.script}" if run else "no run yet",
        *(f"not as recorded: {text.clean(line)}" for line in result.drift),
    ]


def _cost(result: StatusResult) -> list[str]:
    if result.cost is None:
        return []
    hourly = f"{money(result.per_hour, result.currency)} per hour; " if result.per_hour is not None else ""
    return [f"cost so far {money(result.cost, result.currency)}; {hourly}{text.limit(result.limit_s)}"]


def list_text(result: ListResult) -> text.Text:
    """Return a row for each cluster."""
    if not result.clusters:
        return ["no clusters"]
    head = ("CLUSTER", "PROVIDER", ">NODES", "STATE", "MADE", ">COST", "TIME LIMIT", ">RUNS", "ACTIVE RUN")
    return [text.table(head, [_row(line) for line in result.clusters])]


def _row(line: ClusterLine) -> tuple[str, ...]:
    limit = hour(line.limit_s, time.time()) if line.limit_s else "none"
    return (
        line.name,
        line.provider,
        str(line.nodes),
        ", ".join(filter(None, ("up" if line.up else "not up", line.state))),
        text.moment(line.created_s),
        "" if line.cost is None else money(line.cost, line.currency),
        "" if line.cost is None else limit,
        str(line.runs),
        line.active_run,
    )


@verb("status", status_text, examples=("status", "status -c mine --check"))
@option("--check", is_flag=True, help="Exit with 3 if anything differs from the record.")
def status_command(session: Session, *, check: bool) -> StatusResult:
    """Show the state of a cluster and of each of its nodes."""
    from rain_deploy.verbs.status import status

    return session.call(status, session.cluster, check=check)


@verb("list", list_text, examples=("list", "list --json"))
def list_command(session: Session) -> ListResult:
    """Show all clusters in RAIN_DEPLOY_HOME, with their cost so far and their time limit."""
    from rain_deploy.verbs.list import list_clusters

    return session.call(list_clusters)
