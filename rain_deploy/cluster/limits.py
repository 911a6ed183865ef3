"""The hour at which machines power themselves off, and its move: on nodes, in labels, on record."""

from __future__ import annotations

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.seeing import answering
from rain_deploy.cluster.stages import run_stages
from rain_deploy.core.cluster import Cluster, Node
from rain_deploy.core.events import Notice
from rain_deploy.errors import ApiError, PartlyUp
from rain_deploy.parts.limit import limit_stage
from rain_deploy.providers.base import Cloud


def move_limit(ctx: Context, cloud: Cloud, cluster: Cluster) -> tuple[str, ...]:
    """Bring ``limit_s`` of the given cluster to its nodes, then into the labels, then on record.

    Returns the nodes that were told; one that does not answer (powered off) is told when it is started.
    Raises HostKeyError with nothing done, PartlyUp for a machine that is gone once all others are told.
    """
    nodes = answering(ctx, cloud, cluster)
    tell(ctx, cluster, nodes)
    told = tuple(node.name for node in nodes)
    silent = [node.name for node in cluster.nodes if node.name not in told]
    if silent:
        ctx.emit(Notice(f"{', '.join(silent)} does not answer: only its label in the cloud is changed"))
    machines = tuple(ref for ref in ctx.store.resources(cluster.id) if ref.is_machine and ref.ref)
    try:
        cloud.set_expiry(machines, cluster.limit_s)
    except ApiError as error:
        error.message += f" (the new time limit holds on {', '.join(told) or 'no node'}; the labels are old)"
        error.next_step = "the same command again"
        raise
    except PartlyUp:  # a machine is gone: all others are told, and so is the record
        ctx.store.save_cluster(cluster)
        raise
    ctx.store.save_cluster(cluster)
    return told


def tell(ctx: Context, cluster: Cluster, nodes: tuple[Node, ...]) -> None:
    """Write the limit where each machine's own timer reads it."""
    run_stages(ctx, cluster, "limit", {node.name: limit_stage(cluster.limit_s) for node in nodes})
