"""Move the hour at which machines power themselves off, and start those that their limit has stopped."""

import time
from dataclasses import replace

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.hosts import BOOT_S, run_stages
from rain_deploy.cluster.lookup import ask_server
from rain_deploy.cluster.seen import account_of, ask, has_moved, is_lost
from rain_deploy.core.cluster import Bill, Cluster, Node
from rain_deploy.core.events import Notice
from rain_deploy.core.machine import ASLEEP, Host, Resource
from rain_deploy.core.text import span
from rain_deploy.errors import REFUSALS, ApiError, HostKeyError, MachineGone
from rain_deploy.fleet.fanout import fan_out, once_it_answers
from rain_deploy.parts.machine import BOOT_GRANT_S, limit_stage
from rain_deploy.providers.base import Cloud
from rain_deploy.state.store import Record


def move_limit(ctx: Context, record: Record, bill: Bill) -> tuple[str, ...]:
    """Write the bill's limit on record, on the nodes, then into the labels.

    Returns the names of the nodes that have it; one that is powered off gets it when it is started.
    If a node refuses it, it is taken back everywhere.  What raises later finds it on the nodes and on record:
    the record says what the machines obey.  Raises HostKeyError with nothing done.
    """
    cluster, limit_s = record.cluster, bill.limit_s
    cloud = ctx.provider_for(cluster.provider).cloud
    assert cloud is not None
    nodes = _answering(ctx, cloud, cluster)
    if limit_s != cluster.limit_s:
        record.change(bill=replace(bill, moving=True))
    names = _bring_limit(ctx, record, nodes, limit_s, before=cluster.bill)
    record.change(bill=replace(bill, moving=False))
    silent = [node.name for node in cluster.nodes if node.name not in names]
    if silent:
        ctx.emit(Notice(f"{', '.join(silent)} does not answer: only its label in the cloud is changed"))
    try:
        cloud.set_expiry(tuple(r for r in record.resources if r.is_machine and r.ref), limit_s)
    except (ApiError, *REFUSALS) as error:
        holds = f"the new time limit is set on {', '.join(names) or 'no node'} and recorded"
        error.message += f" ({holds}; labels in the cloud may still show the old one)"
        error.next_step = f"to write the labels: rain-deploy up -c {cluster.name}"
        raise
    return names


def _bring_limit(
    ctx: Context, record: Record, nodes: tuple[Node, ...], limit_s: float | None, *, before: Bill | None
) -> tuple[str, ...]:
    """Write the limit on these nodes and return their names; if one refuses it, restore what was before."""
    cluster = record.cluster
    try:
        outcomes = run_stages(ctx, cluster, {node.name: limit_stage(limit_s) for node in nodes})
    except HostKeyError:  # nothing was done on any node
        record.change(bill=before)
        raise
    if outcomes.errors:  # a node whose answer was lost may have it already
        old_s = before.limit_s if before else None
        back = run_stages(ctx, cluster, {node.name: limit_stage(old_s) for node in nodes})
        record.change(bill=before and replace(before, moving=bool(back.errors)))
        error = next(iter(outcomes.errors.values()))
        was = "the time limit did not change"
        error.message += (
            f" ({was}, but {', '.join(back.errors)} may have the new one)" if back.errors else f" ({was})"
        )
    return tuple(outcomes.require())


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


def awake(ctx: Context, cluster: Cluster, nodes: tuple[Node, ...]) -> Cluster:
    """Return the cluster with these nodes started if they are powered off, at their addresses of now.

    Nobody asks the cloud while they answer; where the cloud does not answer, the cluster stays as it is.
    Raises MachineGone, and Unreachable for a machine that does not answer BOOT_S after its start.
    """
    hosts = tuple(node.host for node in nodes) if cluster.bill else ()  # only these are ever powered off
    silent = fan_out(hosts, ctx.transport.connect).errors
    account = account_of(ctx, cluster) if silent else None
    if account is None:
        return cluster
    if account.silent:
        ctx.emit(Notice(f"it is unknown if {', '.join(silent)} is powered off: {account.silent}"))
        return cluster
    machines = account.machines(cluster)
    for name in silent:
        if name not in machines:
            gone = f"{name}: its machine is gone from the account, and what was on its disk with it"
            raise MachineGone(gone, node=name, next_step=f"rain-deploy status -c {cluster.name}")
    pairs = ((node, machines[node.name]) for node in nodes if node.name in silent)
    lost = tuple(found for node, found in pairs if is_lost(node, found))
    return wake(ctx, cluster, lost) if lost else cluster


def wake(ctx: Context, cluster: Cluster, lost: tuple[Resource, ...]) -> Cluster:
    """Start these machines, wait until they answer, and bring their limit and their runs up to date.

    Returns the cluster with their addresses of now, which are on record too.
    """
    provider, server = ctx.provider_for(cluster.provider), cluster.server.name
    asleep = {found.name: found for found in lost if found.state in ASLEEP}
    if asleep:
        granted_s = min(cluster.machines.idle_s or BOOT_GRANT_S, BOOT_GRANT_S)
        was, it = ("was", "it stays") if len(asleep) == 1 else ("were", "they stay")
        off = f"which {was} powered off; {it} on for {span(granted_s)}; runs are not resumed"
        ctx.emit(Notice(f"starting {', '.join(asleep)} of {cluster.name}, {off}"))
        until_s = time.time() + BOOT_GRANT_S
        if provider.cloud and cluster.limit_s is not None and cluster.limit_s < until_s:
            provider.cloud.set_expiry(tuple(asleep.values()), until_s)  # until then nobody's `gc` takes it
        fan_out(tuple(asleep.values()), provider.start).require()
    started = {found.ref for found in asleep.values()}
    cluster = _readdressed(ctx, cluster, provider.hosts(cluster, lost), started)
    names, began_s = {found.name for found in lost}, ctx.clock()

    def connect_to(host: Host) -> None:
        connect = ctx.transport.connect
        once_it_answers(
            lambda: connect(host),
            BOOT_S,
            began_s=began_s,
            waiting=lambda why: ctx.emit(Notice(f"waiting for SSH of {host.name}: {why}")),
            clock=ctx.clock,
            pause=ctx.pause,
        )

    fan_out(tuple(node.host for node in cluster.nodes if node.name in names), connect_to).require()
    run_stages(ctx, cluster, {name: limit_stage(cluster.limit_s) for name in asleep}).require()
    if server in asleep and cluster.up:  # its runs did not survive the power-off
        ask_server(ctx, cluster, "interrupted", cluster.layout.node(cluster.server.host.index))
    return cluster


def _readdressed(ctx: Context, cluster: Cluster, hosts: tuple[Host, ...], started: set[str]) -> Cluster:
    """Return the cluster with the hosts' addresses of now, also on record; all else about them stays.

    ``started``: the cloud's ids of machines that cost their full price from now on.
    """
    now_s = time.time()
    now = {host.name: host.address for host in hosts}

    def moved(node: Node) -> Node:
        new = now.get(node.name, node.host.address)
        given, inner = node.host.cluster_address, node.cluster_address
        of = {node.host.address: new}  # the address for other nodes too, if it is where we reach it
        host = replace(node.host, address=new, cluster_address=given and of.get(given, given))
        return replace(node, host=host, cluster_address=of.get(inner, inner))

    def recorded(record: Cluster) -> Cluster:  # others may have changed it meanwhile
        return changed(record) if record.id == cluster.id else record

    def changed(one: Cluster) -> Cluster:
        return replace(one.with_nodes(moved), bill=one.bill.started(started, now_s) if one.bill else None)

    if ctx.store.cluster(cluster.name):
        ctx.store.update_cluster(cluster.name, recorded)
    return changed(cluster)
