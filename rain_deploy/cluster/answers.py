"""What the nodes of a cluster answer about themselves."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.lookup import NodeLine
from rain_deploy.cluster.seen import Account
from rain_deploy.core.cluster import Cluster, Node, Role
from rain_deploy.core.machine import Host
from rain_deploy.errors import EngineError, HostKeyError, Unreachable
from rain_deploy.fleet.fanout import fan_out
from rain_deploy.node.wire import NodeStatus, WireError, read
from rain_deploy.parts.services import layout_of, node_command

STATUS_DEADLINE_S = 20.0
NO_SERVICES = "no services"
"""The state of a node that answers, but does not run all of our services; its machine is not stopped."""


@contextlib.contextmanager
def understood(cluster: Cluster, node: str) -> Iterator[None]:
    """Translate WireError: a node's answer is not of the shape that this version reads."""
    try:
        yield
    except WireError as error:
        raise EngineError(
            f"the answer of {node} cannot be read: {error}",
            node=node,
            next_step=f"rain-deploy up -c {cluster.name}, which brings this version's code to the nodes",
        ) from error


def node_answers(ctx: Context, cluster: Cluster, *, without: Collection[str]) -> Mapping[str, NodeStatus]:
    """Ask all nodes at once, except those named in ``without``; return the answers by node name.

    A node that cannot be reached has no answer; a wrong host key is an error.
    """
    layout = layout_of(cluster)

    def ask(host: Host) -> NodeStatus:
        places = layout.cluster, layout.node(host.index)
        result = ctx.transport.run(
            host, node_command(cluster, "status", *places, deadline_s=STATUS_DEADLINE_S)
        )
        with understood(cluster, host.name):
            return read(NodeStatus, result.stdout) if result.exit_status == 0 else NodeStatus()

    asked = tuple(node.host for node in cluster.nodes if node.name not in without)
    outcomes = fan_out(asked if cluster.up else (), ask)
    for error in outcomes.errors.values():
        if isinstance(error, HostKeyError) or not isinstance(error, Unreachable):
            raise error
    return outcomes.values


def node_line(cluster: Cluster, node: Node, answer: NodeStatus | None, off: str | None) -> NodeLine:
    """Return a node as it answered; ``off`` is its state where it was not asked."""
    return NodeLine(
        name=node.name,
        role=Role.SERVER if node is cluster.server else Role.GOVERNOR,
        address=node.cluster_address,
        state=off or _state(answer),
        cpus=node.cpus,
        label=node.host.label,
        load=answer.load if answer else None,
        disk_free_bytes=answer.disk_free_bytes if answer else None,
    )


def _state(answer: NodeStatus | None) -> str:
    """Return ``ready`` where every service runs and the governor is registered."""
    if answer is None:
        return "unreachable"
    if not answer.services or None in answer.services.values():
        return NO_SERVICES
    return "ready" if answer.governor and answer.governor.ready else "starting"


def machine_lines(ctx: Context, cluster: Cluster, account: Account) -> tuple[NodeLine, ...]:
    """Return the recorded machines that are not nodes yet, as the cloud has them: an ``up`` was killed."""
    nodes, machines = {node.name for node in cluster.nodes}, account.machines(cluster)
    cpus = cluster.bill.quote.cpus if cluster.bill else 0
    return tuple(
        NodeLine(name, Role.SERVER if name == "node-1" else Role.GOVERNOR, found.address, found.state, cpus)
        for name in (resource.name for resource in ctx.store.resources(cluster.id))
        if name not in nodes and (found := machines.get(name))
    )
