"""Apply: carry a plan out on a held record; each step is recorded the moment it is done."""

import itertools

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.destroy import delete, end_nodes
from rain_deploy.cluster.hosts import assign, look_at_hosts, run_stages, survivors
from rain_deploy.cluster.install import bring_up, refuse, shared_of
from rain_deploy.cluster.plan import Plan, limit_sentence, unknown_sentences
from rain_deploy.cluster.power import wake
from rain_deploy.core.cluster import Cluster
from rain_deploy.core.events import Notice
from rain_deploy.core.machine import Intent, Resource, by_number, node_index
from rain_deploy.core.text import count
from rain_deploy.errors import REFUSALS, Declined, DownIncomplete, PartlyUp, RainDeployError
from rain_deploy.fleet.fanout import Outcomes, fan_out
from rain_deploy.parts.part import stages_of
from rain_deploy.parts.services import start_stage
from rain_deploy.parts.wall import Wall
from rain_deploy.providers.base import Provider
from rain_deploy.state.store import Record


def agree(ctx: Context, plan: Plan) -> None:
    """Show the plan's offer and ask.  Raises Declined, with nothing created, when the user does not agree."""
    seen, cluster = plan.seen, plan.seen.cluster
    sentences = plan.offer or (() if seen.recorded else seen.sentences)  # an offer says it too
    if not sentences and cluster.bill and seen.spec.ttl_s is not None:
        limit = limit_sentence(cluster, seen.now_s)
        sentences = (f"{limit}; `rain-deploy extend` moves it, --ttl does not",)
    for sentence in (
        *unknown_sentences(plan),
        *sentences,
        *(f"security group, to be repaired: {repair}" for repair in plan.repairs),
    ):
        ctx.emit(Notice(sentence))
    if plan.question and not ctx.confirm(plan.question):
        raise Declined("nothing was created")


def apply(ctx: Context, record: Record, plan: Plan) -> tuple[Cluster, tuple[str, ...], int]:
    """Bring the cluster to the plan's nodes: machines, software, services, and the proof through Rain.

    Returns what ``install.bring_up`` does.  Raises what kept it from that; what was made is on record.
    """
    spec = plan.seen.spec
    delete_surplus(ctx, record, plan)
    if plan.start:
        wake(ctx, record.cluster, plan.start)
    machines = make(ctx, record, plan)
    facts = look_at_hosts(ctx, plan.seen, record.cluster, machines)
    shared = shared_of(ctx, plan, assign(ctx, spec, record.cluster, facts))
    cluster, changed, count = bring_up(ctx, record, spec, shared)
    cluster = record.change(nodes=cluster.nodes, up=True)
    for node in cluster.nodes:
        ctx.store.save_facts(node)
    return cluster, changed, count


def delete_surplus(ctx: Context, record: Record, plan: Plan) -> None:
    """Delete the machines that the plan has no node for.  Raises why one of them is still there."""
    if not plan.delete:
        return
    names = ", ".join(machine.name for machine in plan.delete)
    ctx.emit(Notice(f"deleting {names} of {plan.cluster.name}: not among the nodes asked for"))
    gone, failed = delete(ctx, record, plan.delete)
    record.drop_nodes({machine.name for machine in gone})
    Outcomes({}, failed).require()


def make(ctx: Context, record: Record, plan: Plan) -> tuple[Resource, ...]:
    """Create what is missing, wait until all machines run, and return the machines that do.

    A machine that was made here and does not come to run is deleted and made once more; one that lived before
    never is, because of what is on its disk.  Raises the first failure if fewer than ``min_nodes`` are left.
    """
    provider, cluster = ctx.provider_for(plan.cluster.provider), record.cluster
    alive = {node.name for node in cluster.every_node} if cluster.up else set()
    lived = {resource.ref for resource in record.resources if resource.ref and resource.name in alive}
    machines = tuple(intent for intent in plan.intents if node_index(intent.name))
    missing = [intent.name for intent in plan.create if intent in machines]
    made: list[Resource] = []
    errors: dict[str, RainDeployError] = {}
    for _, of_kind in itertools.groupby(plan.intents, key=lambda intent: intent.kind):
        intents = tuple(of_kind)
        if missing and cluster.bill and intents[0] in machines:
            ctx.emit(Notice(f"creating {', '.join(missing)}, and waiting until they run"))
        outcomes = _create(provider, record, intents)
        made += outcomes.values.values()
        errors |= outcomes.errors
        if any(not node_index(name) for name in errors):
            Outcomes({}, errors).require()
    if any(resource.is_machine for resource in made):
        errors |= provider.settle(record.cluster, tuple(made))
    broken = tuple(r for r in made if r.ref not in lived and isinstance(errors.get(r.name), PartlyUp))
    if broken:
        for machine in broken:
            why = errors.pop(machine.name).message
            ctx.emit(Notice(f"{machine.name}: {why}; it is deleted and created again"))
        _, failed = delete(ctx, record, broken)
        Outcomes({}, failed).require()
        names = {machine.name for machine in broken}
        outcomes = _create(provider, record, tuple(intent for intent in machines if intent.name in names))
        errors |= outcomes.errors
        errors |= provider.settle(record.cluster, tuple(outcomes.values.values()))
    left = survivors(ctx, plan.seen.spec, tuple(m.name for m in machines), errors)
    return tuple(resource for resource in record.resources if resource.name in left and resource.ref)


def _create(provider: Provider, record: Record, intents: tuple[Intent, ...]) -> Outcomes[Resource]:
    """Create all that is intended at once.  An intent is on disk before its call, an id once it is known."""
    recorded = {(resource.kind, resource.name): resource for resource in record.resources}

    def create(intent: Intent) -> Resource:
        earlier = recorded.get((intent.kind, intent.name))
        if earlier is None or not earlier.ref:  # from now on it may have been sent
            record.intend(intent)
        try:
            unsettled_s = earlier.recorded_s if earlier and not earlier.ref else None
            made = provider.create(intent, earlier.ref if earlier else "", unsettled_s=unsettled_s)
        except RainDeployError as error:
            if earlier is None and isinstance(error, REFUSALS) and not error.accepted:
                record.forget(Resource(intent.cluster_id, intent.kind, intent.name))
            raise
        record.made(made)
        return made

    try:
        return fan_out(intents, create, finish=True)
    finally:  # Ctrl-C, too, waits for what was begun
        record.meter()


def shrink(ctx: Context, record: Record, plan: Plan) -> None:
    """Take the plan's nodes out of a living cluster.  Raises DownIncomplete if a machine of theirs is left.

    Each step is on record before the next, so the next ``scale`` ends what this one has begun.
    Raises InputError where the Rain ports of the nodes that stay cannot be closed.
    """
    names = {node.name for node in plan.leave} | {machine.name for machine in plan.delete}
    name = plan.cluster.name
    ctx.emit(Notice(f"removing {', '.join(by_number(names))} of {name}"))
    end_nodes(ctx, record.cluster, plan.leave)
    cluster = record.cluster
    left_out = {node.name: node for node in (*cluster.left_out, *plan.leave)}
    nodes = tuple(node for node in cluster.nodes if node.name not in names)
    record.change(nodes=nodes, left_out=tuple(left_out.values()))
    _, failed = delete(ctx, record, plan.delete)
    cluster = record.drop_nodes(names - failed.keys())
    if ctx.provider_for(cluster.provider).traits.needs_wall:
        wall = (Wall(cluster, plan.seen.spec.machines.trust_networks),)
        refuse(wall, cluster)
        run_stages(ctx, cluster, stages_of(wall, cluster.nodes)).require()
    server = cluster.server
    run_stages(ctx, cluster, {server.name: start_stage(cluster, server, probe=True)}).require()
    if failed:
        reasons = "; ".join(error.message for error in failed.values())
        raise DownIncomplete(
            f"{name} has {count(len(cluster.nodes), 'node')}, but not all others could be deleted: {reasons}",
            still_running=", ".join(failed),
            next_step=f"rain-deploy scale {plan.seen.nodes} -c {name}",
        )
