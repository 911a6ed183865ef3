"""Machines that their time limit has powered off, started again so that what is on their disks is reached."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.limits import tell
from rain_deploy.cluster.lookup import ask_server
from rain_deploy.cluster.machines import BOOT_S
from rain_deploy.cluster.seeing import ASLEEP, STARTING, seen
from rain_deploy.core.cluster import Cluster, Node
from rain_deploy.core.events import Notice
from rain_deploy.core.machine import Host, Resource
from rain_deploy.core.wording import span
from rain_deploy.errors import Unreachable
from rain_deploy.fleet.fanout import fan_out
from rain_deploy.parts.limit import BOOT_GRANT_S
from rain_deploy.parts.services import layout_of
from rain_deploy.providers.base import Provider

Address = TypeVar("Address", str, str | None)

PAUSE_S = 1.0
"""Between two tries of a machine that boots."""


def awake(
    ctx: Context,
    cluster: Cluster,
    nodes: tuple[Node, ...],
    *,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> Cluster:
    """The cluster with these nodes started where they are powered off, at the addresses of now (recorded).

    Nobody asks the cloud while they answer; where the cloud does not, the cluster as it is.  Raises
    Unreachable for a machine that is gone, or that does not answer BOOT_S after its start.
    """
    cluster, gone = rouse(ctx, cluster, nodes, clock=clock, pause=pause)
    for name in gone:
        raise Unreachable(
            f"{name}: its machine is gone from the account, and what was on its disk with it",
            node=name,
            next_step=f"rain-deploy status -c {cluster.name}",
        )
    return cluster


def rouse(
    ctx: Context,
    cluster: Cluster,
    nodes: tuple[Node, ...],
    *,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> tuple[Cluster, tuple[str, ...]]:
    """As ``awake``; and the names of those whose machines are gone, which is no error here."""
    silent = fan_out(_priced(cluster, nodes), ctx.transport.connect).errors
    sight = seen(ctx, cluster.provider) if silent else None
    if sight is None:
        return cluster, ()
    if sight.silent:
        ctx.emit(Notice(f"whether {', '.join(silent)} is powered off is not known: {sight.silent}"))
        return cluster, ()
    machines = sight.machines(cluster)
    gone = tuple(name for name in silent if name not in machines)
    lost = [machines[node.name] for node in nodes if node.name in silent and _is_lost(machines, node)]
    if lost:
        cluster = _roused(ctx, cluster, tuple(lost), clock=clock, pause=pause)
    return cluster, gone


def _roused(
    ctx: Context,
    cluster: Cluster,
    lost: tuple[Resource, ...],
    *,
    clock: Callable[[], float],
    pause: Callable[[float], None],
) -> Cluster:
    provider = ctx.provider_for(cluster.provider)
    asleep = tuple(found for found in lost if found.state in ASLEEP)
    _start(ctx, provider, cluster, asleep)
    hosts = provider.hosts(cluster, tuple(found for found in lost))
    cluster = _readdressed(ctx, cluster, hosts)
    names = {found.name for found in lost}
    woken = tuple(node.host for node in cluster.nodes if node.name in names)
    _await(ctx, woken, clock=clock, pause=pause)
    _brought_up_to_date(ctx, cluster, tuple(ref.name for ref in asleep))
    return cluster


def _priced(cluster: Cluster, nodes: tuple[Node, ...]) -> tuple[Host, ...]:
    """Only priced machines are ever powered off."""
    return () if cluster.bill is None else tuple(node.host for node in nodes)


def _is_lost(machines: Mapping[str, Resource], node: Node) -> bool:
    """Whether a node that does not answer is off, or has another address."""
    found = machines.get(node.name)
    if found is None:
        return False
    return found.state in {*ASLEEP, STARTING} or found.address != node.host.address


def _start(ctx: Context, provider: Provider, cluster: Cluster, asleep: tuple[Resource, ...]) -> None:
    if asleep:
        names = ", ".join(ref.name for ref in asleep)
        idle_s = cluster.machines.idle_s
        told = f"its boot grants {span(min(idle_s or BOOT_GRANT_S, BOOT_GRANT_S))}, and it resumes no run"
        ctx.emit(Notice(f"{names} of {cluster.name} was powered off and is started: {told}"))
        _label(provider, cluster, asleep)
        fan_out(asleep, provider.start).require()


def _label(provider: Provider, cluster: Cluster, started: tuple[Resource, ...]) -> None:
    """Until its boot's grant is over nobody's ``gc`` takes a machine that was started for what is on it."""
    granted_s = time.time() + BOOT_GRANT_S
    if provider.cloud and cluster.limit_s is not None and cluster.limit_s < granted_s:
        provider.cloud.set_expiry(started, granted_s)


def _readdressed(ctx: Context, cluster: Cluster, hosts: tuple[Host, ...]) -> Cluster:
    """The nodes at their addresses of now, also on record; all else about them stays."""
    now = {host.name: host.address for host in hosts}

    def moved(node: Node) -> Node:
        old, new = node.host.address, now.get(node.name, node.host.address)
        host = replace(node.host, address=new, cluster_address=_moved(node.host.cluster_address, old, new))
        return replace(node, host=host, cluster_address=_moved(node.cluster_address, old, new))

    recorded = ctx.store.cluster(cluster.name)  # not the argument: others may have changed it since
    if recorded is not None and recorded.id == cluster.id:
        ctx.store.save_cluster(replace(recorded, nodes=tuple(map(moved, recorded.nodes))))
    return replace(cluster, nodes=tuple(map(moved, cluster.nodes)))


def _moved(address: Address, old: str, new: str) -> Address:
    """Where the other nodes reach it, if that is the address at which we do."""
    return new if address == old else address


def _await(
    ctx: Context, hosts: tuple[Host, ...], *, clock: Callable[[], float], pause: Callable[[float], None]
) -> None:
    deadline_s = clock() + BOOT_S

    def meet(host: Host) -> None:
        while True:
            try:
                ctx.transport.connect(host)
            except Unreachable:
                if clock() > deadline_s:
                    raise
                pause(PAUSE_S)
            else:
                return

    fan_out(hosts, meet).require()


def _brought_up_to_date(ctx: Context, cluster: Cluster, names: tuple[str, ...]) -> None:
    """What a machine that was off has missed: a limit that was moved, and the end of its runs."""
    tell(ctx, cluster, tuple(node for node in cluster.nodes if node.name in names))
    server = cluster.server
    if server.name in names and cluster.up:
        ask_server(ctx, cluster, "interrupted", layout_of(cluster).node(server.host.index))
