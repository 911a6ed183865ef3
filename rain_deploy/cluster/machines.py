"""The first half of ``up``: resources, recorded before and after they are made, and what the hosts are."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

from rain_deploy.cluster.context import Context
from rain_deploy.core.cluster import Cluster, Node
from rain_deploy.core.command import Command
from rain_deploy.core.events import Notice
from rain_deploy.core.layout import ROOT_BASE, governor_port, user_base
from rain_deploy.core.machine import Facts, Host, Resource
from rain_deploy.core.spec import ClusterSpec
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
_SETTLED = ("zone", "instance_type", "disk_size_gib", "template", "anti_affinity", "idle_s")
"""Fields of Machines that a living cluster cannot change."""


def new_cluster(ctx: Context, spec: ClusterSpec) -> Cluster:
    """A cluster that has nothing yet.  Until it is recorded, its id stays the same: a dry run shows it."""
    return Cluster(
        id=ctx.store.next_cluster_id(spec.name),
        name=spec.name,
        provider=spec.provider,
        created_s=time.time(),
        machines=spec.machines,
        owner=spec.owner or "",
    )


def remembering(spec: ClusterSpec, cluster: Cluster) -> ClusterSpec:
    """The spec with what a living cluster was made with and this command does not name.

    Raises InputError for machines of another kind than the cluster has.
    """
    for name in _SETTLED:
        asked, has = getattr(spec.machines, name), getattr(cluster.machines, name)
        if asked and has and asked != has:
            raise InputError(
                f"the machines of cluster {cluster.name} have {name.replace('_', '-')} {has}, not {asked}",
                next_step=f"rain-deploy down -c {cluster.name}, or another name with -c",
            )
    return replace(spec, owner=cluster.owner or spec.owner, machines=spec.machines.or_else(cluster.machines))


def wanted_nodes(spec: ClusterSpec, cluster: Cluster, resources: tuple[Resource, ...] = ()) -> int:
    """How many nodes ``up`` shall leave: as asked, else those of an ``up`` before, ended or not.

    Raises InputError for fewer than live, and for another provider.
    """
    if cluster.provider != spec.provider:
        raise InputError(
            f"cluster {cluster.name} is of provider {cluster.provider}, not {spec.provider}",
            next_step=f"rain-deploy down -c {cluster.name}, or another name with -c",
        )
    living = len(cluster.nodes)
    begun = sum(resource.is_machine for resource in resources)
    wanted = spec.nodes or max(living, begun, len(spec.machines.hosts) if not living else 0, 1)
    if wanted < living and (cluster.up or cluster.bill is None):
        raise InputError(
            f"cluster {cluster.name} has {living} nodes; up does not remove nodes (asked for: {wanted})",
            next_step=f"rain-deploy scale {wanted} -c {cluster.name}",
        )
    return wanted


def pinned(cluster: Cluster, hosts: tuple[Host, ...]) -> tuple[Host, ...]:
    """The hosts with the keys that are recorded of the same machines: those may have changed their first."""
    known = {node.host.machine: node.host.host_keys for node in cluster.nodes if node.host.machine}
    return tuple(replace(host, host_keys=known.get(host.machine, host.host_keys)) for host in hosts)


def look(
    ctx: Context, provider: Provider, spec: ClusterSpec, cluster: Cluster, hosts: tuple[Host, ...]
) -> dict[Host, Facts]:
    """Facts of the hosts, in order; without ``--min-nodes`` one that cannot be reached ends the command."""
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
    """The nodes (server first in ``names``) with which the cluster goes on, by ``--min-nodes``, default all.

    Raises the error of the others when too few are left or the server is not among them, and a wrong host key
    always.
    """
    left = tuple(name for name in names if name not in outcomes.errors)
    wrong = any(isinstance(error, HostKeyError) for error in outcomes.errors.values())
    if wrong or len(left) < (spec.min_nodes or len(names)) or names[0] not in left:
        outcomes.require()
    for name, error in outcomes.errors.items():
        ctx.emit(Notice(f"{name} is left out: {error.message}"))
    return left


def question(cluster: Cluster, host: Host, first: Host) -> Command:
    """What one host is asked; the first also whether it could build the engine, while none is known."""
    tools = host is first and not cluster.engine_sha256
    return facts_command(host, cluster.id, route_to=first.address, tools=tools)


def choose_base(cluster: Cluster, hosts: tuple[Host, ...], facts: dict[str, Facts]) -> str:
    """The one directory of ours on all nodes.  Fixed once the cluster has nodes."""
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
    ctx: Context,
    provider: Provider,
    spec: ClusterSpec,
    cluster: Cluster,
    looked: Mapping[Host, Facts],
) -> Cluster:
    """The cluster with a node for each host.  What a recorded node was given stays; one task per GPU."""
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
                or _cpus(ctx, host, fact, share),
            )
        )
    _refuse_taken(nodes)
    left_out = tuple(node for name, node in recorded.items() if name not in facts)
    base = choose_base(cluster, hosts, facts)
    return replace(cluster, base=base, nodes=tuple(nodes), left_out=left_out)


def _is_same(known: Host, host: Host) -> bool:
    """Not so for a machine that was made anew in its place: what the old one had is another's now."""
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


def _cpus(ctx: Context, host: Host, facts: Facts, share: int) -> int:
    cpus = max(1, facts.cpus // share)
    fitting = max(1, facts.memory_bytes // share // MEMORY_PER_TASK_BYTES)
    if fitting < cpus:
        ctx.emit(Notice(f"{host.name}: {fitting} tasks at once instead of {cpus}: 1 GiB of memory each"))
    return min(cpus, fitting)
