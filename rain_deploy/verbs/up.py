"""``up``: a cluster as wanted, from whatever is there; the second time it looks and changes nothing."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from rain_deploy.cluster.account import in_account
from rain_deploy.cluster.context import Context
from rain_deploy.cluster.install import bring_up, shared_of
from rain_deploy.cluster.limits import move_limit
from rain_deploy.cluster.lookup import NodeLine, node_lines, recorded
from rain_deploy.cluster.machines import assign, look, new_cluster, pinned, remembering, wanted_nodes
from rain_deploy.cluster.making import make_resources
from rain_deploy.cluster.offering import offer
from rain_deploy.cluster.removing import remove_surplus, surplus
from rain_deploy.cluster.resolution import decide_environment
from rain_deploy.cluster.waking import rouse
from rain_deploy.core.bill import Quote
from rain_deploy.core.cluster import Cluster
from rain_deploy.core.environment import ResolvedEnvironment
from rain_deploy.core.events import Notice
from rain_deploy.core.result import Result
from rain_deploy.core.spec import ClusterSpec
from rain_deploy.providers.base import Provider
from rain_deploy.verbs.plan import PlanResult, plan
from rain_deploy.verbs.undo import undo


@dataclass(frozen=True, slots=True)
class UpResult(Result):
    """``up``: ``changed`` empty and ``started`` 0 mean that everything was as it should be."""

    cluster: str
    provider: str
    nodes: tuple[NodeLine, ...]
    changed: tuple[str, ...]
    """One sentence per thing that was changed."""
    started: int
    """Processes started that outlive the command."""
    seconds: float
    limit_s: float | None = None
    """When the machines power themselves off; None: never."""
    quote: Quote | None = None
    """What one of them costs; None where nothing is priced."""


def up(ctx: Context, spec: ClusterSpec, *, dry_run: bool = False) -> UpResult | PlanResult:
    """Converge.  What an interrupted or failed ``up`` made, it undoes."""
    if dry_run:
        return plan(ctx, spec)
    return converge(ctx, spec)


def converge(ctx: Context, spec: ClusterSpec) -> UpResult:
    """``up`` itself."""
    started_s = time.monotonic()
    provider = ctx.provider_for(spec.provider)
    with ctx.store.lock(spec.name, "up"):
        before = ctx.store.cluster(spec.name)
        cluster = before or new_cluster(ctx, spec)
        spec = remembering(spec, cluster)
        known = ctx.store.resources(cluster.id)
        nodes = wanted_nodes(spec, cluster, known)
        for sentence in provider.preflight(replace(spec, nodes=nodes)):
            if before is None and provider.cloud is None:  # an offer says it too
                ctx.emit(Notice(sentence))
        environment = decide_environment(ctx, spec, cluster)
        living = in_account(provider.cloud, cluster, known) if provider.cloud else known
        above = surplus(cluster, known, nodes) if provider.cloud else ()
        living = tuple(ref for ref in living if ref not in above)
        cluster = offer(ctx, provider, spec, cluster, nodes=nodes, living=living)
        ctx.store.save_cluster(cluster)
        cluster = remove_surplus(ctx, provider, cluster, above)
        try:
            result = _make(ctx, provider, spec, cluster, environment, nodes=nodes)
        except BaseException as error:
            was = before.without({ref.name for ref in above}) if before else cluster
            undo(ctx, provider, was, error, known if before else None, keep=spec.keep_partial)
            raise
        if before and provider.cloud:  # also one that was off when its limit was moved
            now = recorded(ctx, spec.name)
            assert now.bill is not None
            move_limit(ctx, provider.cloud, replace(now, bill=replace(now.bill, limit_s=cluster.limit_s)))
    return replace(result, seconds=time.monotonic() - started_s)


def _make(
    ctx: Context,
    provider: Provider,
    spec: ClusterSpec,
    cluster: Cluster,
    environment: ResolvedEnvironment,
    *,
    nodes: int,
) -> UpResult:
    if cluster.up:  # what a limit has powered off is started, and its broken-off runs are over
        cluster, _ = rouse(ctx, cluster, cluster.nodes)
    cluster, resources = make_resources(ctx, provider, spec, cluster, nodes)
    hosts = pinned(cluster, provider.hosts(cluster, resources))
    looked = look(ctx, provider, spec, cluster, hosts)
    grown = len(looked) != len(cluster.nodes)
    old = {node.name for node in cluster.nodes} if cluster.up else set()
    new = frozenset(host.name for host in looked if host.name not in old)
    cluster = assign(ctx, provider, spec, cluster, looked)
    shared = shared_of(ctx, provider, spec, cluster, environment, new=new, grown=grown)
    cluster, changed, count = bring_up(ctx, spec, shared)
    cluster = replace(cluster, up=True)
    ctx.store.save_cluster(cluster)
    for node in cluster.nodes:
        ctx.store.save_facts(node)
    return UpResult(
        cluster=cluster.name,
        provider=cluster.provider,
        nodes=node_lines(cluster, "ready"),
        changed=changed,
        started=count,
        seconds=0.0,
        limit_s=cluster.limit_s,
        quote=cluster.bill.quote if cluster.bill else None,
    )
