"""Resources of a cluster: each intent is on disk before its call, each id the moment it is known."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.machines import survivors
from rain_deploy.core.cluster import Cluster
from rain_deploy.core.events import Notice
from rain_deploy.core.machine import Intent, Resource, node_index
from rain_deploy.core.spec import ClusterSpec
from rain_deploy.errors import InputError, PartlyUp, QuotaError, RainDeployError
from rain_deploy.fleet.fanout import Outcomes, fan_out
from rain_deploy.providers.base import Provider


def make_resources(
    ctx: Context, provider: Provider, spec: ClusterSpec, cluster: Cluster, nodes: int
) -> tuple[Cluster, tuple[Resource, ...]]:
    """Create what is missing and wait until all machines run; the cluster with its meters, and all of it.

    A machine that was made here and did not come to run is deleted and made once more; one that lived before
    never is, for what is on its disk.  Raises what kept one from it when fewer are left than ``--min-nodes``
    wants.
    """
    intents = provider.intents(spec, cluster, nodes)
    lived = _lived(ctx, cluster)
    made: list[Resource] = []
    errors: dict[str, RainDeployError] = {}
    for _, of_kind in itertools.groupby(intents, key=lambda intent: intent.kind):
        group = tuple(of_kind)
        if cluster.bill is not None:
            _say_what_is_made(ctx, group)
        try:
            outcomes = _made(ctx, provider, group)
        finally:  # Ctrl-C, too, waits for those that were begun
            cluster = _metered(ctx, cluster)
        made += outcomes.values.values()
        errors |= outcomes.errors
        if any(not node_index(name) for name in errors):
            Outcomes({}, errors).require()
    lost = dict(provider.settle(cluster, tuple(made)))
    may_go = {ref.name for ref in made if ref.ref not in lived}
    again = {name for name, error in lost.items() if isinstance(error, PartlyUp) and name in may_go}
    if again:
        for name in again:
            ctx.emit(Notice(f"{name}: {lost[name].message}; it is deleted and made once more"))
        broken = tuple(ref for ref in made if ref.name in again)
        fan_out(broken, lambda ref: _dropped(ctx, provider, ref), finish=True).require()
        cluster = cluster.closed(broken, time.time())
        try:
            outcomes = _made(ctx, provider, tuple(intent for intent in intents if intent.name in again))
        finally:
            cluster = _metered(ctx, cluster)
        fresh = tuple(outcomes.values.values())
        still = {name: error for name, error in lost.items() if name not in again}
        lost = {**still, **outcomes.errors, **provider.settle(cluster, fresh)}
    errors |= lost
    names = tuple(intent.name for intent in intents if node_index(intent.name))
    left = survivors(ctx, spec, names, Outcomes({}, errors))
    return cluster, tuple(r for r in ctx.store.resources(cluster.id) if r.name in left and r.ref)


def _say_what_is_made(ctx: Context, group: tuple[Intent, ...]) -> None:
    recorded = {(ref.kind, ref.name) for ref in ctx.store.resources(group[0].cluster_id) if ref.ref}
    missing = [intent.name for intent in group if (intent.kind, intent.name) not in recorded]
    if missing and node_index(missing[0]):
        ctx.emit(Notice(f"making {', '.join(missing)}, and waiting until they run"))


def _lived(ctx: Context, cluster: Cluster) -> frozenset[str]:
    """References of machines on which something may have been computed."""
    names = {node.name for node in (*cluster.nodes, *cluster.left_out)} if cluster.up else set()
    return frozenset(ref.ref for ref in ctx.store.resources(cluster.id) if ref.ref and ref.name in names)


def _made(ctx: Context, provider: Provider, intents: tuple[Intent, ...]) -> Outcomes[Resource]:
    """Those of one kind, at the same time."""
    recorded = {(ref.kind, ref.name): ref for ref in ctx.store.resources(intents[0].cluster_id)}

    def make(intent: Intent) -> Resource:
        earlier = recorded.get((intent.kind, intent.name))
        if earlier is None or not earlier.ref:  # it may be sent (again) from now on
            ctx.store.save_intent(replace(intent, recorded_s=time.time()))
        try:
            unsettled_s = earlier.recorded_s if earlier and not earlier.ref else None
            ref = provider.create(intent, earlier.ref if earlier else "", unsettled_s=unsettled_s)
        except RainDeployError as error:
            if earlier is None and isinstance(error, InputError | QuotaError):  # refused: there is nothing
                ctx.store.forget_resource(Resource(intent.cluster_id, intent.kind, intent.name))
            raise
        ctx.store.save_resource(ref)
        return ref

    return fan_out(intents, make, finish=True)


def _metered(ctx: Context, cluster: Cluster) -> Cluster:
    """The cluster, recorded, with a meter for each machine on record that has none: from its intent on."""
    if cluster.bill is None:
        return cluster
    bill, now_s = cluster.bill, time.time()
    for ref in ctx.store.resources(cluster.id):
        if ref.is_machine and ref.ref:
            bill = bill.opened(ref.name, ref.ref, ref.recorded_s or now_s, now_s)
    cluster = replace(cluster, bill=bill)
    ctx.store.save_cluster(cluster)
    return cluster


def _dropped(ctx: Context, provider: Provider, ref: Resource) -> None:
    provider.delete(ref)
    ctx.store.forget_resource(ref)
