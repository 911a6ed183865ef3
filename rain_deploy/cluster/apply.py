"""Apply: carry a plan out on a held record; each step is recorded the moment it is done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.destroy import delete, end_nodes
from rain_deploy.cluster.make import make
from rain_deploy.cluster.nodes.hosts import assign, look_at_hosts, pinned
from rain_deploy.cluster.nodes.install import bring_up, shared_of, wall_stages
from rain_deploy.cluster.nodes.stages import run_stages
from rain_deploy.cluster.plan import Plan
from rain_deploy.cluster.wake import wake
from rain_deploy.core.cluster import Cluster
from rain_deploy.core.events import Notice
from rain_deploy.errors import RainDeployError
from rain_deploy.fleet.fanout import Outcomes
from rain_deploy.parts.services import start_stage
from rain_deploy.state.store import Record


@dataclass(frozen=True, slots=True)
class Applied:
    """What was changed on the nodes."""

    cluster: Cluster
    changed: tuple[str, ...]
    """One sentence per thing."""
    started: int
    """Processes started that outlive the command."""


def apply(ctx: Context, record: Record, plan: Plan) -> Applied:
    """Bring the cluster to the plan's nodes: machines, software, services, and the proof through Rain.

    Raises what kept it from that; what was made until then is on record.
    """
    spec, provider = plan.seen.spec, ctx.provider_for(plan.cluster.provider)
    delete_surplus(ctx, record, plan)
    if plan.start:
        wake(ctx, record.cluster, plan.start)
    machines = make(ctx, record, plan)
    before = record.cluster
    hosts = pinned(before, provider.hosts(before, machines))
    facts = look_at_hosts(ctx, provider, spec, before, hosts)
    cluster = assign(ctx.emit, provider, spec, before, facts)
    shared = shared_of(ctx, plan, cluster)
    cluster, changed, count = bring_up(ctx, record, spec, shared)
    cluster = record.change(nodes=cluster.nodes, up=True)
    for node in cluster.nodes:
        ctx.store.save_facts(node)
    return Applied(cluster, changed, count)


def delete_surplus(ctx: Context, record: Record, plan: Plan) -> None:
    """Delete the machines that the plan has no node for.  Raises why one of them is still there."""
    if not plan.delete:
        return
    names = [machine.name for machine in plan.delete]
    ctx.emit(Notice(f"deleting {', '.join(names)} of {plan.cluster.name}: not among the nodes asked for"))
    gone, failed = delete(ctx, record, plan.delete)
    record.drop_nodes({machine.name for machine in gone})
    Outcomes({}, failed).require()


def shrink(ctx: Context, record: Record, plan: Plan) -> Mapping[str, RainDeployError]:
    """Take the plan's nodes out of a living cluster; return why a machine of theirs is still there, by name.

    Each step is on record before the next, so the next ``scale`` ends what this one has begun.
    """
    provider = ctx.provider_for(plan.cluster.provider)
    names = {node.name for node in plan.leave} | {machine.name for machine in plan.delete}
    ctx.emit(Notice(f"removing {', '.join(sorted(names))} of {plan.cluster.name}"))
    end_nodes(ctx, record.cluster, plan.leave)
    cluster = record.cluster
    left_out = {node.name: node for node in (*cluster.left_out, *plan.leave)}
    nodes = tuple(node for node in cluster.nodes if node.name not in names)
    record.change(nodes=nodes, left_out=tuple(left_out.values()))
    _, failed = delete(ctx, record, plan.delete)
    cluster = record.drop_nodes(names - failed.keys())
    run_stages(ctx, cluster, "wall", wall_stages(provider, cluster, plan.seen.spec.machines.trust_networks))
    server = cluster.server
    run_stages(ctx, cluster, "start", {server.name: start_stage(cluster, server, probe=True)})
    return failed
