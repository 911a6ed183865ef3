"""Make what a plan lacks: each intent is on disk before its call, each id the moment it is known."""

from __future__ import annotations

import itertools

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.nodes.hosts import survivors
from rain_deploy.cluster.plan import Plan
from rain_deploy.core.events import Notice
from rain_deploy.core.machine import Intent, Resource, node_index
from rain_deploy.errors import InputError, PartlyUp, QuotaError, RainDeployError
from rain_deploy.fleet.fanout import Outcomes, fan_out
from rain_deploy.providers.base import Provider
from rain_deploy.state.store import Record


def make(ctx: Context, record: Record, plan: Plan) -> tuple[Resource, ...]:
    """Create what is missing, wait until all machines run, and return the machines that do.

    A machine that was made here and does not come to run is deleted and made once more; one that lived before
    never is, because of what is on its disk.  Raises the first failure if fewer than ``min_nodes`` are left.
    """
    provider = ctx.provider_for(plan.cluster.provider)
    lived = _lived(record)
    made: list[Resource] = []
    errors: dict[str, RainDeployError] = {}
    for kind, of_kind in itertools.groupby(plan.intents, key=lambda intent: intent.kind):
        missing = [intent.name for intent in plan.create if intent.kind == kind and node_index(intent.name)]
        if missing and record.cluster.bill:
            ctx.emit(Notice(f"making {', '.join(missing)}, and waiting until they run"))
        outcomes = _create(provider, record, tuple(of_kind))
        made += outcomes.values.values()
        errors |= outcomes.errors
        if any(not node_index(name) for name in errors):
            Outcomes({}, errors).require()
    errors |= _settled(ctx, record, plan, tuple(made), lived)
    names = tuple(intent.name for intent in plan.intents if node_index(intent.name))
    left = survivors(ctx, plan.seen.spec, names, Outcomes({}, errors))
    return tuple(resource for resource in record.resources if resource.name in left and resource.ref)


def _lived(record: Record) -> frozenset[str]:
    """References of machines on which something may have been computed."""
    cluster = record.cluster
    names = {node.name for node in cluster.every_node} if cluster.up else set()
    return frozenset(resource.ref for resource in record.resources if resource.ref and resource.name in names)


def _create(provider: Provider, record: Record, intents: tuple[Intent, ...]) -> Outcomes[Resource]:
    """Create what is intended, all at the same time."""
    recorded = {(resource.kind, resource.name): resource for resource in record.resources}

    def create(intent: Intent) -> Resource:
        earlier = recorded.get((intent.kind, intent.name))
        if earlier is None or not earlier.ref:  # from now on it may have been sent
            record.intend(intent)
        try:
            unsettled_s = earlier.recorded_s if earlier and not earlier.ref else None
            made = provider.create(intent, earlier.ref if earlier else "", unsettled_s=unsettled_s)
        except RainDeployError as error:
            if earlier is None and isinstance(error, InputError | QuotaError):  # refused: nothing was made
                record.forget(Resource(intent.cluster_id, intent.kind, intent.name))
            raise
        record.made(made)
        return made

    try:
        return fan_out(intents, create, finish=True)
    finally:  # Ctrl-C, too, waits for what was begun
        record.meter()


def _settled(
    ctx: Context,
    record: Record,
    plan: Plan,
    made: tuple[Resource, ...],
    lived: frozenset[str],
) -> dict[str, RainDeployError]:
    """Wait until the machines run; return why not, by name, for those that do not, also made once more."""
    provider = ctx.provider_for(plan.cluster.provider)
    lost = dict(provider.settle(record.cluster, made))
    broken = tuple(r for r in made if r.ref not in lived and isinstance(lost.get(r.name), PartlyUp))
    if not broken:
        return lost
    for machine in broken:
        ctx.emit(
            Notice(f"{machine.name}: {lost.pop(machine.name).message}; it is deleted and made once more")
        )
    fan_out(broken, lambda machine: delete_one(provider, record, machine), finish=True).require()
    names = {machine.name for machine in broken}
    again = _create(provider, record, tuple(intent for intent in plan.intents if intent.name in names))
    fresh = tuple(again.values.values())
    return {**lost, **again.errors, **provider.settle(record.cluster, fresh)}


def delete_one(provider: Provider, record: Record, resource: Resource) -> None:
    """Delete a resource and forget it once it is observed to be gone."""
    provider.delete(resource)
    record.forget(resource)
