"""Move the hour at which machines power themselves off: on nodes, in labels, on record."""

from __future__ import annotations

from dataclasses import replace

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.nodes.stages import run_stages
from rain_deploy.cluster.seen import ask, has_moved
from rain_deploy.core.bill import Bill
from rain_deploy.core.cluster import Cluster, Node
from rain_deploy.core.events import Notice
from rain_deploy.errors import ApiError, HostKeyError, PartlyUp
from rain_deploy.fleet.fanout import fan_out
from rain_deploy.parts.machine import limit_stage
from rain_deploy.providers.base import Cloud
from rain_deploy.state.store import Record


def move_limit(ctx: Context, cloud: Cloud, record: Record, bill: Bill) -> tuple[str, ...]:
    """Write the bill's limit on the nodes, then into the labels, then on record.

    Returns the names of the nodes that have it; one that is powered off gets it when it is started.
    Raises HostKeyError with nothing done, PartlyUp for a machine that is gone once all others have it.
    """
    cluster, limit_s = replace(record.cluster, bill=bill), bill.limit_s
    nodes = _answering(ctx, cloud, cluster)
    write_limit(ctx, cluster, nodes)
    names = tuple(node.name for node in nodes)
    silent = [node.name for node in cluster.nodes if node.name not in names]
    if silent:
        ctx.emit(Notice(f"{', '.join(silent)} does not answer: only its label in the cloud is changed"))
    try:
        cloud.set_expiry(tuple(r for r in record.resources if r.is_machine and r.ref), limit_s)
    except ApiError as error:
        error.message += f" (the new time limit holds on {', '.join(names) or 'no node'}; the labels are old)"
        error.next_step = "the same command again"
        raise
    except PartlyUp:  # a machine is gone: all others have the limit, and so has the record
        record.change(bill=bill)
        raise
    record.change(bill=bill)
    return names


def write_limit(ctx: Context, cluster: Cluster, nodes: tuple[Node, ...]) -> None:
    """Write the cluster's limit where each machine's own timer reads it."""
    run_stages(ctx, cluster, "limit", {node.name: limit_stage(cluster.limit_s) for node in nodes})


def _answering(ctx: Context, cloud: Cloud, cluster: Cluster) -> tuple[Node, ...]:
    """Return the nodes that answer over SSH.

    Raises HostKeyError for a machine that runs at its recorded address with another key: where it is powered
    off, the address may be another machine's by now.
    """
    outcomes = fan_out(tuple(node.host for node in cluster.nodes), ctx.transport.connect)
    wrong = {name: error for name, error in outcomes.errors.items() if isinstance(error, HostKeyError)}
    machines = ask(cloud).machines(cluster) if wrong else {}
    for node in cluster.nodes:
        found = machines.get(node.name)
        if node.name in wrong and (found is None or not has_moved(node, found)):
            raise wrong[node.name]
    return tuple(node for node in cluster.nodes if node.name in outcomes.values)
