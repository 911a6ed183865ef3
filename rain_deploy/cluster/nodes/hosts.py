"""The hosts of a cluster: what they are, which of them are enough, and the node that each becomes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

from rain_deploy.cluster.context import Context
from rain_deploy.core.cluster import Cluster, Node
from rain_deploy.core.events import EventSink, Notice
from rain_deploy.core.layout import ROOT_BASE, governor_port, user_base
from rain_deploy.core.machine import Facts, Host
from rain_deploy.core.spec import ClusterSpec
from rain_deploy.core.step import Command
from rain_deploy.errors import HostKeyError, InputError
from rain_deploy.fleet.fanout import Outcomes
from rain_deploy.fleet.reach import gather_facts
from rain_deploy.parts.facts import facts_command
from rain_deploy.parts.wall import cluster_addresses
from rain_deploy.providers.base import Provider

T = TypeVar("T")

BOOT_S = 300.0
"""For machines that we made to answer their first SSH connection."""
REBOOT_S = 120.0
"""For those that answered before: they may have been powered off until now."""
MEMORY_PER_TASK_BYTES = 1 << 30


def pinned(cluster: Cluster, hosts: tuple[Host, ...]) -> tuple[Host, ...]:
    """Return the hosts with the keys recorded for the same machines: the first key may be replaced."""
    known = {node.host.machine: node.host.host_keys for node in cluster.every_node if node.host.machine}
    return tuple(replace(host, host_keys=known.get(host.machine, host.host_keys)) for host in hosts)


def look_at_hosts(
    ctx: Context, provider: Provider, spec: ClusterSpec, cluster: Cluster, hosts: tuple[Host, ...]
) -> dict[Host, Facts]:
    """Return the facts of the hosts, in order; without ``--min-nodes`` each must be reached."""
    living = {(node.name, node.host.machine) for node in cluster.nodes} if cluster.up else set()
    again_s = REBOOT_S if provider.cloud else 0.0

    def patience_s(host: Host) -> float:
        return again_s if (host.name, host.machine) in living or not provider.traits.owned else BOOT_S

    outcomes = gather_facts(
        ctx.transport,
        hosts,
        lambda host: question(cluster, host, hosts[0]),
        wait_s=patience_s,
        waiting=lambda host, why: ctx.emit(Notice(f"waiting for {host.name} to answer: {why}")),
    )
    left = survivors(ctx, spec, tuple(host.name for host in hosts), outcomes)
    return {host: outcomes.values[host.name] for host in hosts if host.name in left}


def survivors(
    ctx: Context, spec: ClusterSpec, names: tuple[str, ...], outcomes: Outcomes[T]
) -> tuple[str, ...]:
    """Return the nodes with which the cluster goes on: at least ``--min-nodes``, by default all.

    ``names``: server first.  Raises the first failure if fewer are left or the server is not among them, and
    a wrong host key always.
    """
    left = tuple(name for name in names if name not in outcomes.errors)
    wrong = any(isinstance(error, HostKeyError) for error in outcomes.errors.values())
    if wrong or len(left) < (spec.min_nodes or len(names)) or names[0] not in left:
        outcomes.require()
    for name, error in outcomes.errors.items():
        ctx.emit(Notice(f"{name} is left out: {error.message}"))
    return left


def question(cluster: Cluster, host: Host, first: Host) -> Command:
    """Return what one host is asked; the first also whether it can build the engine, while none is known."""
    tools = host is first and not cluster.engine_sha256
    return facts_command(host, cluster.id, route_to=first.address, tools=tools)


def choose_base(cluster: Cluster, hosts: tuple[Host, ...], facts: dict[str, Facts]) -> str:
    """Return the directory for everything of ours, the same on all nodes; it never changes."""
    if cluster.base:
        return cluster.base
    if hosts[0].base:
        return hosts[0].base
    told = {fact.base for fact in facts.values()}
    if len(told) == 1 and "" not in told:
        return told.pop()
    if all(fact.root for fact in facts.values()):
        return ROOT_BASE
    uids = {fact.uid for fact in facts.values()}
    if len(uids) > 1:
        raise InputError(
            "the hosts have no root in common and different user ids, so no directory is the same on all",
            next_step="use accounts with root or passwordless sudo, or with the same user id",
        )
    return user_base(uids.pop())


def assign(
    emit: EventSink,
    provider: Provider,
    spec: ClusterSpec,
    cluster: Cluster,
    looked: Mapping[Host, Facts],
) -> Cluster:
    """Return the cluster with a node for each host.  What a node was given stays; one task per GPU."""
    recorded = {node.name: node for node in cluster.every_node}
    hosts = tuple(looked)
    facts = {host.name: fact for host, fact in looked.items()}
    addresses = cluster_addresses(hosts, facts, spec.machines.trust_networks)
    share = len(hosts) if provider.traits.shared_machine else 1
    gpus = cluster.bill.quote.gpus if cluster.bill else 0
    nodes = []
    for host in hosts:
        known, fact = recorded.get(host.name), facts[host.name]
        nodes.append(
            Node(
                name=host.name,
                host=host,
                facts=fact,
                cluster_address=known.cluster_address
                if known and _is_same(known.host, host)
                else addresses[host.name],
                governor_port=governor_port(host.index),
                cpus=spec.cpus_per_node
                or (known.cpus if known else 0)
                or gpus
                or _cpus(emit, host, fact, share),
            )
        )
    _refuse_taken(nodes)
    left_out = tuple(node for name, node in recorded.items() if name not in facts)
    base = choose_base(cluster, hosts, facts)
    return replace(cluster, base=base, nodes=tuple(nodes), left_out=left_out)


def _is_same(known: Host, host: Host) -> bool:
    """False for a machine that was made anew: the old one's address may be another's now."""
    return (known.machine, known.address) == (host.machine, host.address) or not host.machine


def _refuse_taken(nodes: list[Node]) -> None:
    """Two clusters at one address would share Rain's ports: the governors of one would join the other."""
    for node in nodes:
        for taken in node.facts.taken if node.facts else ():
            address, _, other = taken.partition(" ")
            if address == node.cluster_address:
                raise InputError(
                    f"another cluster of rain-deploy (id {other}) runs on it, at {address}",
                    node=node.name,
                    next_step="take that one down first (rain-deploy list shows it), or name other machines",
                )


def _cpus(emit: EventSink, host: Host, facts: Facts, share: int) -> int:
    cpus = max(1, facts.cpus // share)
    fitting = max(1, facts.memory_bytes // share // MEMORY_PER_TASK_BYTES)
    if fitting < cpus:
        emit(Notice(f"{host.name}: {fitting} tasks at once instead of {cpus}: 1 GiB of memory each"))
    return min(cpus, fitting)
