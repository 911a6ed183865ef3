"""Plan: from what is seen and what is wished, what to delete, start and create, and what it costs.  Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from rain_deploy.cluster.offer import Offer, agreed, offer_of
from rain_deploy.cluster.seen import ASLEEP, STARTING, Seen, has_moved
from rain_deploy.core.cluster import Cluster, Node
from rain_deploy.core.machine import Intent, Resource
from rain_deploy.providers.base import Provider


@dataclass(frozen=True, slots=True)
class Plan:
    """What a command does to the machines of a cluster, in this order."""

    seen: Seen
    cluster: Cluster
    """As it is recorded once the user has agreed: with its bill and what its machines have in common."""
    leave: tuple[Node, ...] = ()
    """Nodes that end their work and go; ``up`` never has one."""
    delete: tuple[Resource, ...] = ()
    """The last of them goes first."""
    start: tuple[Resource, ...] = ()
    """Machines of nodes that are powered off, or have another address now."""
    create: tuple[Intent, ...] = ()
    """What does not exist yet."""
    intents: tuple[Intent, ...] = ()
    """All that shall exist; an intent whose outcome is unknown may be among them."""
    offer: Offer | None = None
    """What the user must agree to before anything is done."""

    @property
    def empty(self) -> bool:
        """True where the machines are as they should be."""
        return not (self.leave or self.delete or self.start or self.create)


def plan_up(provider: Provider, seen: Seen, *, shrink: bool = False) -> Plan:
    """Return the plan that leads to the nodes wished for.

    ``shrink``: nodes above that number leave; without it no living node is ever touched.
    """
    cluster = agreed(seen)
    intents = provider.intents(seen.spec, cluster, seen.nodes)
    there = {(resource.kind, resource.name) for resource in seen.existing}
    return Plan(
        seen=seen,
        cluster=cluster,
        leave=tuple(n for n in seen.cluster.every_node if n.host.index > seen.nodes) if shrink else (),
        delete=_above(provider, seen, shrink=shrink),
        start=_to_start(seen),
        create=tuple(intent for intent in intents if (intent.kind, intent.name) not in there),
        intents=intents,
        offer=offer_of(seen, cluster) if seen.quote else None,
    )


def plan_down(seen: Seen) -> Plan:
    """Return the plan that leaves nothing of the cluster, also of what is not on record."""
    mine = seen.account.all_of(seen.cluster) if seen.account else ()
    everything = in_order_of_making((*seen.resources, *unrecorded(seen.resources, mine)))
    return Plan(
        seen=seen, cluster=replace(seen.cluster, up=False), leave=seen.cluster.every_node, delete=everything
    )


def in_order_of_making(resources: tuple[Resource, ...]) -> tuple[Resource, ...]:
    """Return machines, by number, behind all else: they are made last and go first."""
    return tuple(sorted(resources, key=lambda resource: resource.index))


def unrecorded(known: tuple[Resource, ...], listed: tuple[Resource, ...]) -> tuple[Resource, ...]:
    """Return what exists besides what is on record, also a second one of a name.

    A record without an id stands for everything of its name: ``delete`` looks for it.
    """
    refs = {(resource.kind, resource.name): resource.ref for resource in known}

    def is_another(resource: Resource) -> bool:
        ref = refs.get((resource.kind, resource.name))
        return ref is None if not ref else resource.ref not in {"", ref}

    return tuple(filter(is_another, listed))


def _above(provider: Provider, seen: Seen, *, shrink: bool) -> tuple[Resource, ...]:
    """Recorded machines above the number wished for: they leave, or a command that was killed made them."""
    if provider.cloud is None and not shrink:
        return ()
    living = {node.name for node in seen.cluster.nodes} if seen.cluster.up and not shrink else set()
    return tuple(r for r in seen.resources if r.index > seen.nodes and r.name not in living)


def _to_start(seen: Seen) -> tuple[Resource, ...]:
    """Machines of living nodes that do not run, or not where they are recorded.

    One that does not run and is no node yet is started by its create.
    """
    if not seen.cluster.up or seen.account is None or seen.account.silent:
        return ()
    nodes = (node for node in seen.cluster.nodes if node.host.index <= seen.nodes)
    pairs = ((node, seen.machine(node)) for node in nodes)
    return tuple(found for node, found in pairs if found and is_lost(node, found))


def is_lost(node: Node, found: Resource) -> bool:
    """Return True where a node's machine is powered off, starts, or has another address."""
    return has_moved(node, found) and (
        found.state in {*ASLEEP, STARTING} or found.address != node.host.address
    )
