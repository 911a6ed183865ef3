"""What several flows ask of the record: a cluster that is up, a run by id or the last one."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path

from rain_deploy.cluster.context import Context
from rain_deploy.core.cluster import Cluster, Node, Role
from rain_deploy.core.machine import Host
from rain_deploy.core.text import hour, money
from rain_deploy.errors import (
    EngineError,
    InputError,
    RainDeployError,
)
from rain_deploy.parts.access import known_hosts_text, ssh_config_text
from rain_deploy.parts.services import node_command


@dataclass(frozen=True, slots=True)
class NodeLine:
    """A node as a command saw it."""

    name: str
    role: str
    """``server`` (which has a governor too) or ``governor``."""
    address: str
    state: str
    """``ready``, ``starting``, ``no services``, ``stopped`` (powered off), ``unreachable``, ``gone`` or
    ``unknown``; of a machine that is no node yet, the cloud's word."""
    cpus: int
    label: str = ""
    load: float | None = None
    disk_free_bytes: int | None = None


def recorded(ctx: Context, name: str) -> Cluster:
    """The recorded cluster.  Raises InputError when there is none."""
    cluster = ctx.store.cluster(name)
    if cluster is None:
        known = ", ".join(c.name for c in ctx.store.clusters()) or "none"
        raise InputError(
            f"there is no cluster {name} (clusters here: {known})",
            next_step=f"rain-deploy up -c {name} --nodes 2",
        )
    return cluster


def living(ctx: Context, name: str) -> Cluster:
    """A cluster that ``up`` has finished.  Raises InputError otherwise."""
    cluster = recorded(ctx, name)
    if not cluster.up:
        raise InputError(
            f"cluster {name} is not up: its last `up` did not end",
            next_step=f"rain-deploy up -c {name}",
        )
    return cluster


def hosts_of(cluster: Cluster) -> tuple[Host, ...]:
    """Server first."""
    return tuple(node.host for node in cluster.nodes)


def find_node(cluster: Cluster, index: int | None) -> Node:
    """A node by number; the server node when none is named."""
    for node in cluster.nodes:
        if node.host.index == (index or cluster.server.host.index):
            return node
    raise InputError(f"cluster {cluster.name} has no node {index}; it has {len(cluster.nodes)}")


def ask_server(ctx: Context, cluster: Cluster, verb: str, *args: str, deadline_s: float = 60.0) -> str:
    """Output of a verb of our node code on the server node; EngineError when it fails."""
    result = ctx.transport.run(cluster.server.host, node_command(cluster, verb, *args, deadline_s=deadline_s))
    if result.exit_status != 0:
        raise EngineError(
            f"`{verb}` failed on the server node (exit {result.exit_status})",
            node=cluster.server.name,
            details=result.stderr.decode(errors="replace")[-2000:],
        )
    return result.stdout.decode(errors="replace")


def node_lines(cluster: Cluster, state: str) -> tuple[NodeLine, ...]:
    """The recorded nodes, all in one state."""
    return tuple(
        NodeLine(
            name=node.name,
            role=Role.SERVER if node is cluster.server else Role.GOVERNOR,
            address=node.cluster_address,
            state=state,
            cpus=node.cpus,
            label=node.host.label,
        )
        for node in cluster.nodes
    )


def standing(ctx: Context, name: str, *, costs_only: bool) -> str | None:
    """Return a sentence about the cluster's machines as recorded; None where nothing is left.

    ``costs_only``: also None where they cost nothing.  A machine whose create had no outcome counts: it may
    exist.
    """
    cluster = ctx.store.cluster(name)
    if cluster is None:
        return None
    bill, resources = cluster.bill, ctx.store.resources(cluster.id)
    things = (resources or cluster.nodes) if bill else (cluster.nodes or resources)
    machines = sum(resource.is_machine for resource in resources) or len(cluster.nodes)
    costs = ""
    if bill and machines:
        limit = f"time limit {hour(bill.limit_s, time.time())}" if bill.limit_s else "no time limit"
        costs = f" ({money(bill.quote.per_hour * machines, bill.currency)} per hour; {limit})"
    if not things or (costs_only and not costs):
        return None
    names = ", ".join(thing.name for thing in things)
    flag = "" if name == "default" else f" -c {name}"
    return f"cluster {name}: {names}{costs}; remove it with: rain-deploy down{flag}"


def add_standing(ctx: Context, name: str, error: RainDeployError) -> None:
    """Add to an error what of the cluster exists, unless it says so itself, and what costs."""
    with contextlib.suppress(RainDeployError):
        said = error.still_running
        rest = standing(ctx, name, costs_only=bool(said))
        error.still_running = "; ".join(filter(None, (said, rest))) or None


def write_ssh_config(ctx: Context, cluster: Cluster) -> Path:
    """Write the configuration with which the system's ssh reaches the nodes, and return its path."""
    directory = ctx.home / "clusters" / cluster.id
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    known_hosts, config = directory / "known_hosts", directory / "ssh_config"
    known_hosts.write_text(known_hosts_text(cluster.id, hosts_of(cluster)))
    config.write_text(ssh_config_text(cluster.id, hosts_of(cluster), known_hosts))
    return config
