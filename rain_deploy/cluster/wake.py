"""Start machines that their time limit has powered off, so that what is on their disks can be reached."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.limits import write_limit
from rain_deploy.cluster.lookup import ask_server
from rain_deploy.cluster.nodes.hosts import BOOT_S
from rain_deploy.cluster.plan import is_lost
from rain_deploy.cluster.seen import ASLEEP, account_of
from rain_deploy.core.cluster import Cluster, Node
from rain_deploy.core.events import Notice
from rain_deploy.core.machine import Host, Resource
from rain_deploy.core.text import span
from rain_deploy.errors import Unreachable
from rain_deploy.fleet.fanout import fan_out
from rain_deploy.parts.machine import BOOT_GRANT_S
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
    """Return the cluster with these nodes started if they are powered off, at their addresses of now.

    Nobody asks the cloud while they answer; where the cloud does not answer, the cluster stays as it is.
    Raises Unreachable for a machine that is gone, or that does not answer BOOT_S after its start.
    """
    hosts = tuple(node.host for node in nodes) if cluster.bill else ()  # only these are ever powered off
    silent = fan_out(hosts, ctx.transport.connect).errors
    account = account_of(ctx, cluster.provider) if silent else None
    if account is None:
        return cluster
    if account.silent:
        names = ", ".join(silent)
        ctx.emit(
            Notice(f"the cloud did not answer, so it is unknown if {names} is powered off: {account.silent}")
        )
        return cluster
    machines = account.machines(cluster)
    for name in silent:
        if name not in machines:
            raise Unreachable(
                f"{name}: its machine is gone from the account, and what was on its disk with it",
                node=name,
                next_step=f"rain-deploy status -c {cluster.name}",
            )
    pairs = ((node, machines[node.name]) for node in nodes if node.name in silent)
    lost = tuple(found for node, found in pairs if is_lost(node, found))
    return wake(ctx, cluster, lost, clock=clock, pause=pause) if lost else cluster


def wake(
    ctx: Context,
    cluster: Cluster,
    lost: tuple[Resource, ...],
    *,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> Cluster:
    """Start these machines, wait until they answer, and tell them what they have missed.

    Returns the cluster with their addresses of now, which are on record too.
    """
    provider = ctx.provider_for(cluster.provider)
    asleep = tuple(found for found in lost if found.state in ASLEEP)
    _start(ctx, provider, cluster, asleep)
    cluster = _readdressed(ctx, cluster, provider.hosts(cluster, lost))
    names = {found.name for found in lost}
    _wait(ctx, tuple(node.host for node in cluster.nodes if node.name in names), clock=clock, pause=pause)
    started = {found.name for found in asleep}
    write_limit(ctx, cluster, tuple(node for node in cluster.nodes if node.name in started))
    server = cluster.server
    if server.name in started and cluster.up:  # its runs did not survive the power-off
        ask_server(ctx, cluster, "interrupted", layout_of(cluster).node(server.host.index))
    return cluster


def _start(ctx: Context, provider: Provider, cluster: Cluster, asleep: tuple[Resource, ...]) -> None:
    if not asleep:
        return
    names = ", ".join(machine.name for machine in asleep)
    granted_s = min(cluster.machines.idle_s or BOOT_GRANT_S, BOOT_GRANT_S)
    sentence = f"its boot grants {span(granted_s)}, and it resumes no run"
    ctx.emit(Notice(f"{names} of {cluster.name} was powered off and is started: {sentence}"))
    until_s = time.time() + BOOT_GRANT_S
    if provider.cloud and cluster.limit_s is not None and cluster.limit_s < until_s:
        provider.cloud.set_expiry(asleep, until_s)  # until then nobody's `gc` takes it
    fan_out(asleep, provider.start).require()


def _readdressed(ctx: Context, cluster: Cluster, hosts: tuple[Host, ...]) -> Cluster:
    """Return the cluster with the hosts' addresses of now, also on record; all else about them stays."""
    now = {host.name: host.address for host in hosts}

    def moved(node: Node) -> Node:
        old, new = node.host.address, now.get(node.name, node.host.address)
        host = replace(node.host, address=new, cluster_address=_moved(node.host.cluster_address, old, new))
        return replace(node, host=host, cluster_address=_moved(node.cluster_address, old, new))

    def recorded(record: Cluster) -> Cluster:  # others may have changed it meanwhile
        return record.with_nodes(moved) if record.id == cluster.id else record

    if ctx.store.cluster(cluster.name):
        ctx.store.update_cluster(cluster.name, recorded)
    return cluster.with_nodes(moved)


def _moved(address: Address, old: str, new: str) -> Address:
    """The address for the other nodes, if it is the one at which we reach it too."""
    return new if address == old else address


def _wait(
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
