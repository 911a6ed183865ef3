"""``list``: all clusters of this home, from the record; rented machines as the cloud reports them."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.seen import Account, account_of
from rain_deploy.core.cluster import Cluster
from rain_deploy.core.events import Result
from rain_deploy.core.run import RunState
from rain_deploy.runs.states import runs_of


@dataclass(frozen=True, slots=True)
class ClusterLine:
    """A cluster in a list, from the record alone."""

    name: str
    id: str
    provider: str
    nodes: int
    up: bool
    """True once ``up`` has ended well."""
    created_s: float
    runs: int = 0
    active_run: str = ""
    limit_s: float | None = None
    """When the machines power themselves off; None: never."""
    cost: float | None = None
    """So far; None where nothing is priced."""
    currency: str = ""
    state: str = ""
    """Rented machines as the cloud reports them: ``3 running, 1 stopped``, or ``unknown``."""


@dataclass(frozen=True, slots=True)
class ListResult(Result):
    """``list``: every cluster of this home."""

    clusters: tuple[ClusterLine, ...]


def list_clusters(ctx: Context) -> ListResult:
    """Return every recorded cluster; each cloud is asked once."""
    clusters = ctx.store.clusters()
    accounts = {
        provider: account_of(ctx, provider)
        for provider in {cluster.provider for cluster in clusters if cluster.bill}
    }
    return ListResult(tuple(_line(ctx, cluster, accounts.get(cluster.provider)) for cluster in clusters))


def _line(ctx: Context, cluster: Cluster, account: Account | None) -> ClusterLine:
    runs = runs_of(ctx, cluster)
    active = [record.id for record in runs if record.state != RunState.FINISHED]
    return ClusterLine(
        name=cluster.name,
        id=cluster.id,
        provider=cluster.provider,
        nodes=len(cluster.nodes),
        up=cluster.up,
        created_s=cluster.created_s,
        runs=len(runs),
        active_run=active[0] if active else "",
        limit_s=cluster.limit_s,
        cost=cluster.cost(time.time()),
        currency=cluster.currency,
        state=_machines(cluster, account) if account else "",
    )


def _machines(cluster: Cluster, account: Account) -> str:
    """Return ``3 running, 1 stopped``."""
    if account.silent:
        return "unknown"
    counts = Counter(found.state for found in account.machines(cluster).values())
    return ", ".join(f"{count} {state}" for state, count in counts.most_common()) or "no machine"
