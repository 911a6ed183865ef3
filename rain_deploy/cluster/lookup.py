"""Look up a cluster's record and nodes, and compare the two."""

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.seen import RUNNING, Account, has_moved
from rain_deploy.core.cluster import Cluster, Node, Role
from rain_deploy.core.machine import ASLEEP, Host, Reach, by_number
from rain_deploy.core.text import cluster_flag, hour, money
from rain_deploy.errors import (
    EngineError,
    HostKeyError,
    InputError,
    Locked,
    NotVerified,
    RainDeployError,
    Unreachable,
)
from rain_deploy.fleet.fanout import fan_out
from rain_deploy.node.wire import NodeStatus, WireError, read
from rain_deploy.parts.services import node_command

if TYPE_CHECKING:
    from rain_deploy.state.file import Holder

STATUS_DEADLINE_S = 20.0
NO_SERVICES = "no services"
"""The state of a node that answers, but does not run all of our services; its machine is not stopped."""


@dataclass(frozen=True, slots=True)
class NodeLine:
    """A node as a command saw it."""

    name: str
    role: str  # ``server`` (which has a governor too) or ``governor``
    address: str
    state: str
    """``ready``, ``starting``, ``no services``, ``stopped`` (powered off), ``unreachable``, ``gone`` or
    ``unknown``; of a machine that is no node yet, the cloud's word."""
    cpus: int
    label: str = ""
    load: float | None = None
    disk_free_bytes: int | None = None


def recorded(ctx: Context, name: str) -> Cluster:
    """Return the recorded cluster.  Raises InputError when there is none, Locked when one is being made."""
    if cluster := ctx.store.cluster(name):
        return cluster
    if at_work := changing(ctx, name):
        raise _not_up_yet(name, at_work)
    known = [cluster.name for cluster in ctx.store.clusters()]
    message = f"cluster {name} is not recorded on this machine (recorded: {', '.join(known) or 'none'})"
    next_step = f"rain-deploy up -c {name} --nodes 2"
    if len(known) == 1:  # it is probably the one that was meant
        next_step = f"the same command {'without -c' if known == ['default'] else f'with -c {known[0]}'}"
    raise InputError(message, next_step=next_step)


def living(ctx: Context, name: str) -> Cluster:
    """Return a cluster that ``up`` has finished.  Raises InputError, or Locked while ``up`` is at work."""
    cluster = recorded(ctx, name)
    if not cluster.up and (at_work := changing(ctx, name)):
        raise _not_up_yet(name, at_work)
    if not cluster.up:
        message = f'cluster {name} is not up: the last "up" did not finish'
        raise InputError(message, next_step=f"rain-deploy up -c {name}")
    return cluster


def changing(ctx: Context, name: str) -> "Holder | None":
    """Return the other command that changes the cluster now.

    A ``run`` or a ``cancel`` holds the cluster for a moment, but leaves its machines alone.
    """
    holder = ctx.store.holder(name)
    return holder if holder and holder.verb not in {"run", "cancel"} and not holder.is_self else None


def _not_up_yet(name: str, at_work: "Holder") -> Locked:
    message = f"cluster {name} is not up: {at_work} is at work on it"
    return Locked(message, next_step=f"try again when that has ended; rain-deploy status -c {name} shows it")


def find_node(cluster: Cluster, index: int | None) -> Node:
    """Return a node by number; the server node when none is named."""
    for node in cluster.nodes:
        if node.host.index == (index or cluster.server.host.index):
            return node
    raise InputError(f"cluster {cluster.name} has no node {index}; it has {len(cluster.nodes)}")


def ask_server(ctx: Context, cluster: Cluster, verb: str, *args: str) -> str:
    """Return the output of a verb of our node code on the server node; EngineError when it fails."""
    result = ctx.transport.run(cluster.server.host, node_command(cluster, verb, *args))
    answer = result.require(EngineError, f"`{verb}` failed on the server node", cluster.server.name)
    return answer.decode(errors="replace")


@contextlib.contextmanager
def understood(cluster: Cluster, node: str) -> Iterator[None]:
    """Translate WireError: a node's answer is not of the shape that this version reads."""
    try:
        yield
    except WireError as error:
        raise EngineError(
            f"the answer of {node} cannot be read: {error}",
            node=node,
            next_step=f"to bring this version's code to the nodes: rain-deploy up -c {cluster.name}",
        ) from error


def state_of(answer: NodeStatus | None) -> str:
    """Return ``ready`` where every service runs and the governor is registered."""
    if answer is None:
        return "unreachable"
    if not answer.services or None in answer.services.values():
        return NO_SERVICES
    return "ready" if answer.governor and answer.governor.ready else "starting"


def node_line(node: Node, state: str) -> NodeLine:
    """Return a recorded node in that state."""
    role = Role.SERVER if node.host.index == 1 else Role.GOVERNOR
    return NodeLine(node.name, role, node.cluster_address, state, node.cpus, node.host.label)


def ready_lines(cluster: Cluster) -> tuple[NodeLine, ...]:
    """Return the recorded nodes of a cluster that ``up`` has just brought up."""
    return tuple(node_line(node, "ready") for node in cluster.nodes)


def ask_nodes(
    ctx: Context, cluster: Cluster, account: Account | None
) -> tuple[list[NodeLine], NodeStatus | None]:
    """Ask all nodes at once, except those that are off; return all as they are, and what the server answered.

    A node that cannot be reached has no answer; a wrong host key is an error.  Recorded machines that are not
    nodes yet are there too, as the cloud has them: an ``up`` was killed.
    """
    layout, off = cluster.layout, out_of_reach(cluster, account)
    nodes = {node.name: node for node in cluster.nodes}

    def ask(host: Host) -> NodeStatus:
        places = layout.cluster, layout.node(host.index)
        command = node_command(
            cluster, "status", *places, node=nodes[host.name], deadline_s=STATUS_DEADLINE_S
        )
        result = ctx.transport.run(host, command)
        with understood(cluster, host.name):
            return read(NodeStatus, result.stdout) if result.exit_status == 0 else NodeStatus()

    asked = tuple(node.host for node in cluster.nodes if node.name not in off)
    outcomes = fan_out(asked if cluster.up else (), ask)
    for error in outcomes.errors.values():
        if not isinstance(error, Unreachable):
            raise error
    answers, lines = outcomes.values, []
    for node in cluster.nodes:
        answer = answers.get(node.name)
        line = node_line(node, off.get(node.name) or state_of(answer))
        if answer:
            line = replace(line, load=answer.load, disk_free_bytes=answer.disk_free_bytes)
        lines.append(line)
    machines = account.machines(cluster) if account else {}
    cpus, names = cluster.bill.quote.cpus if cluster.bill else 0, {node.name for node in cluster.nodes}
    for resource in ctx.store.resources(cluster.id):
        if (found := machines.get(resource.name)) and found.name not in names:
            role = Role.SERVER if found.index == 1 else Role.GOVERNOR
            lines.append(NodeLine(found.name, role, found.address, found.state, cpus))
    return lines, answers.get("node-1")


def out_of_reach(cluster: Cluster, account: Account | None) -> Mapping[str, str]:
    """Return the nodes that need not be asked over SSH, each with its state as NodeLine names it."""
    if account is None or account.silent:
        return {}
    machines, states = account.machines(cluster), {}
    for node in cluster.nodes:
        found = machines.get(node.name)
        if found is None:
            states[node.name] = "gone"
        elif has_moved(node, found):
            states[node.name] = "stopped" if found.state in ASLEEP else "unreachable"
    return states


def drift(
    ctx: Context, cluster: Cluster, account: Account | None, lines: Iterable[NodeLine], reach: Reach
) -> Iterator[str]:
    """Yield a sentence for each difference from the record: of nodes that were asked, and of the account."""
    if not cluster.up:
        at_work = changing(ctx, cluster.name)
        yield f"{at_work} has not finished yet" if at_work else 'the last "up" did not finish'
    if cluster.bill and cluster.bill.moving:
        moved = "a command was changing the time limit and did not finish"
        yield f"{moved}; the machines may have another limit"
    asked = {node.name for node in cluster.nodes} - out_of_reach(cluster, account).keys()
    for line in lines:
        if line.name in asked and line.state == NO_SERVICES:
            yield f"{line.name}: its services do not run"
        elif line.name in asked and line.state != "ready":
            yield f"{line.name} is {line.state}"
    if account:
        yield from _account_drift(ctx, cluster, account)
    yield from (f"security group: {repair}" for repair in reach.repairs)
    if reach.refused:
        yield f"{reach.refused}; next: {reach.next_step}"
    if reach.unknown:
        yield f"the rules of the security group are unknown: {reach.unknown}"
    yield from (f"{node.name} is left out" for node in cluster.left_out)


def _account_drift(ctx: Context, cluster: Cluster, account: Account) -> Iterator[str]:
    if account.silent:
        yield not_answered(account, cluster)
        return
    machines, resources = account.machines(cluster), ctx.store.resources(cluster.id)
    on_record = {resource.name for resource in resources if resource.is_machine}
    addresses = {node.name: node.host.address for node in cluster.every_node}
    for name in by_number(on_record - machines.keys()):
        yield f"{name}: its machine is gone"
    for name in by_number(machines):
        found = machines[name]
        if name not in on_record:
            yield f"{name}: a machine of this cluster that is not recorded ({found.ref})"
        elif found.state != RUNNING:
            yield f"{name}: its machine is {found.state}"
        elif name not in addresses:
            yield f"{name}: its machine runs and is not a node yet ({found.ref})"
        elif addresses[name] != found.address:
            yield f"{name}: its machine has another address now ({found.address})"
        if name in on_record and int(found.expires_s or 0) != int(cluster.limit_s or 0):
            label = hour(found.expires_s, time.time()) if found.expires_s else "none"
            yield f"{name}: its label shows another time limit: {label}"


def not_answered(account: Account, *clusters: Cluster) -> str:
    """Return why the account does not show the machines, and how old what is recorded of them is."""
    bills = (cluster.bill for cluster in clusters)
    seen_s = min((bill.seen_s for bill in bills if bill and bill.seen_s), default=0.0)
    since = f"; showing what was recorded at {hour(seen_s, time.time())}" if seen_s else ""
    return f"it is unknown if the machines run: {account.silent}{since}"


def add_way_out(ctx: Context, name: str, error: RainDeployError) -> None:
    """Add the ``down --forget`` command to an error that repeats if the host is gone."""
    causes = (Unreachable, HostKeyError, NotVerified)
    with contextlib.suppress(RainDeployError):
        cluster = ctx.store.cluster(name)
        if cluster is None or cluster.bill or error.node not in {node.name for node in cluster.every_node}:
            return
        if isinstance(error, causes) or isinstance(error.__cause__, causes):
            forget = f"rain-deploy down{cluster_flag(name)} --forget {error.node}"
            gone = f"if {error.node} is gone for good or was reinstalled"
            forget = f"{gone}, this deletes the cluster without it: {forget}"
            error.also(forget)


def add_existing(ctx: Context, name: str, error: RainDeployError, *, free: bool = True) -> None:
    """Add to an error which machines of the cluster still exist and what they cost.

    An error that names what is left gets only what costs.  A machine whose create had no outcome counts.
    ``free``: machines that cost nothing, too.
    """
    with contextlib.suppress(RainDeployError):
        cluster = ctx.store.cluster(name)
        if cluster is None or not (cluster.bill or free):
            return
        bill, resources = cluster.bill, ctx.store.resources(cluster.id)
        things = (resources or cluster.nodes) if bill else (cluster.nodes or resources)
        machines = sum(resource.is_machine for resource in resources) or len(cluster.nodes)
        costs = ""
        if bill and machines:
            limit = f"time limit {hour(bill.limit_s, time.time())}" if bill.limit_s else "no time limit"
            bill = bill.seen(None, time.time())
            metered = {meter.machine for meter in bill.meters}
            unmetered = sum(each.is_machine and each.ref not in metered for each in resources)
            hourly = bill.per_hour + unmetered * bill.quote.per_hour
            costs = f" ({money(hourly, bill.currency)} per hour; {limit})"
        reported = error.still_running
        if not things or (reported and not costs):
            return
        running = [each.name for each in things if isinstance(each, Node) or each.is_machine]
        others = ", ".join(each.name for each in things if each.name not in running)
        names = ", ".join(running) or "no machine"
        rest = f"cluster {name}: {names}{costs}{f'; it also has {others}' if others else ''}"
        if "rain-deploy down" not in (error.next_step or ""):
            rest += f"; remove it with: rain-deploy down{cluster_flag(name)}"
        error.still_running = f"{reported}; {rest}" if reported else rest
