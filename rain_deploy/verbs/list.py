"""``list``, ``zones`` and ``types``: the recorded clusters, and what a cloud offers, for how much."""

import contextlib
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.lookup import changing, not_answered
from rain_deploy.cluster.seen import account_at, note, viewed
from rain_deploy.core.events import Notice, Result
from rain_deploy.core.machine import InstanceType
from rain_deploy.core.run import RunState
from rain_deploy.core.spec import ClusterSpec
from rain_deploy.errors import InputError
from rain_deploy.providers.base import Cloud
from rain_deploy.runs.states import runs_of, why_over


@dataclass(frozen=True, slots=True)
class ClusterLine:
    """A cluster in a list, from the record; rented machines as the cloud reports them."""

    name: str
    id: str
    provider: str
    nodes: int
    up: bool
    created_s: float
    runs: int = 0
    active_run: str = ""
    limit_s: float | None = None
    cost: float | None = None  # so far; None where nothing is priced
    currency: str = ""
    state: str = ""  # rented machines as the cloud reports them: ``3 running, 1 stopped``, or ``unknown``
    unknown: str = ""  # why it is unknown
    zone: str = ""  # empty where machines have none
    changing: str = ""  # the verb of another command that changes it now


@dataclass(frozen=True, slots=True)
class ListResult(Result):
    """``list``: every recorded cluster."""

    clusters: tuple[ClusterLine, ...]


@dataclass(frozen=True, slots=True)
class ZoneLine:
    """A place where the cloud makes machines; ``default``: the account's own, without ``--zone``."""

    name: str
    default: bool


@dataclass(frozen=True, slots=True)
class ZonesResult(Result):
    """``zones``."""

    zones: tuple[ZoneLine, ...]


@dataclass(frozen=True, slots=True)
class TypesResult(Result):
    """``types``: cheapest first; ``source`` of the prices, with the date of their table."""

    zone: str
    types: tuple[InstanceType, ...]
    source: str


def list_clusters(ctx: Context) -> ListResult:
    """Return every recorded cluster; each cloud is asked once."""
    clusters, lines = ctx.store.clusters(), []
    accounts = {name: account_at(ctx, name) for name in {cluster.provider for cluster in clusters}}
    shown = [(account := accounts[cluster.provider]) and account.about(cluster) for cluster in clusters]
    for account in dict.fromkeys(account for account in shown if account and account.silent):
        own = (cluster for cluster, its in zip(clusters, shown, strict=True) if its == account)
        ctx.emit(Notice(not_answered(account, *own), warning=True))
    for cluster, account in zip(clusters, shown, strict=True):
        runs = runs_of(ctx, cluster)
        state = "unknown" if account else ""
        if account and not account.silent:
            counts = Counter(found.state for found in account.machines(cluster).values())
            state = ", ".join(f"{count} {word}" for word, count in counts.most_common()) or "no machine"
        over = why_over(cluster, account, time.time())
        not_active = {RunState.FINISHED, RunState.SHIPPED}  # shipped: it was never queued
        active = (record.id for record in runs if record.state not in not_active and not over)
        priced = note(ctx, cluster, account) if account else cluster
        line = ClusterLine(
            name=cluster.name,
            id=cluster.id,
            provider=cluster.provider,
            zone=cluster.machines.zone or "",
            changing=at_work.verb if (at_work := changing(ctx, cluster.name)) else "",
            nodes=len(cluster.nodes),
            up=cluster.up,
            created_s=cluster.created_s,
            runs=len(runs),
            active_run=next(active, ""),
            limit_s=cluster.limit_s,
            cost=priced.cost(time.time()),
            currency=cluster.currency,
            state=state,
            unknown=str(account.silent or "") if account else "",
        )
        lines.append(line)
    return ListResult(tuple(lines))


def zones(ctx: Context, spec: ClusterSpec) -> ZonesResult:
    """Return where machines are made.  Raises InputError for a provider that makes none for money."""
    with _cloud(ctx, spec) as cloud:
        names = cloud.zones()
    return ZonesResult(tuple(ZoneLine(name, default=name == names[0]) for name in names))


def types(ctx: Context, spec: ClusterSpec) -> TypesResult:
    """Return sizes of machines with their prices, in the spec's zone, else in the account's default."""
    with _cloud(ctx, spec) as cloud:
        zone = spec.machines.zone or cloud.zones()[0]
        kinds = cloud.types(zone, spec)
    sources = dict.fromkeys(kind.source for kind in kinds if kind.per_hour is not None)
    return TypesResult(zone=zone, types=kinds, source="; ".join(sources))


@contextlib.contextmanager
def _cloud(ctx: Context, spec: ClusterSpec) -> Iterator[Cloud]:
    with viewed(ctx, spec.provider) as cloud:
        if cloud:
            yield cloud
            return
    message = f"provider {spec.provider} has neither zones nor instance types: its machines cost nothing"
    raise InputError(message, next_step="rain-deploy types --provider exoscale")
