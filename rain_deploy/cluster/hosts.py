"""The hosts of a cluster: what they are, the node that each becomes, and stages that run on them."""

import contextlib
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TextIO

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.seen import Seen
from rain_deploy.core.cluster import Cluster, Node
from rain_deploy.core.events import Event, Notice, Progress, StepDone
from rain_deploy.core.layout import ROOT_BASE, governor_port, user_base
from rain_deploy.core.machine import Facts, Host, Resource
from rain_deploy.core.spec import ClusterSpec
from rain_deploy.core.step import Command, Stage
from rain_deploy.core.text import count
from rain_deploy.errors import HostKeyError, InputError, InstallFailed, RainDeployError
from rain_deploy.fleet.fanout import Outcomes, StageReport, fan_out, once_it_answers
from rain_deploy.parts.facts import facts_command, parse_facts
from rain_deploy.parts.software import environment_digest
from rain_deploy.parts.wall import cluster_addresses
from rain_deploy.transport.base import Transport

BOOT_S = 300.0  # for machines that we made to answer their first SSH connection
REBOOT_S = 120.0  # for those that answered before: they may have been powered off until now
MEMORY_PER_TASK_BYTES = 1 << 30


def run_stages(ctx: Context, cluster: Cluster, stages: Mapping[str, Stage]) -> Outcomes[StageReport]:
    """Run stages of one name on the nodes that have one, and log what they print; every outcome is kept.

    Raises HostKeyError, before anything is done on any node, if one of them has a wrong key.
    """
    if not stages:
        return Outcomes({}, {})
    hosts = {node.host: stages[node.name] for node in cluster.nodes if node.name in stages}
    log = _opened(install_log(ctx, cluster))

    def note(text: str) -> None:
        with contextlib.suppress(OSError):  # a full disk keeps nobody from the work that it is about
            log.write(f"{text}\n")

    def emit(event: Event) -> None:
        if isinstance(event, Progress):
            note(f"{event.host} | {event.text}")
        elif isinstance(event, StepDone):
            note(f"{event.host} | == {event.stage}: {event.step}: {event.outcome}")
        ctx.emit(event)

    try:
        return ctx.executor.run(hosts, cluster.base, emit)
    finally:
        with contextlib.suppress(OSError):
            log.close()


def _opened(path: Path) -> TextIO:
    """Return a log that lines are added to; where it cannot be written, they go nowhere."""
    try:
        for directory in (path.parent.parent, path.parent):  # parents=True: by umask
            directory.mkdir(mode=0o700, exist_ok=True)
        return path.open("a", encoding="utf-8", errors="backslashreplace")
    except OSError:
        return Path(os.devnull).open("a")


def install_log(ctx: Context, cluster: Cluster) -> Path:
    """Return the file with what stages printed on the cluster's nodes, each line with its node's name."""
    return ctx.home / "clusters" / cluster.id / "install.log"


def look_at_hosts(
    ctx: Context, seen: Seen, cluster: Cluster, machines: tuple[Resource, ...]
) -> dict[Host, Facts]:
    """Return the machines' hosts with their facts, in order; without ``--min-nodes`` each must be reached."""
    provider = ctx.provider_for(cluster.provider)
    hosts = pinned(cluster, provider.hosts(cluster, machines))
    living = {(node.name, node.host.machine) for node in cluster.nodes} if cluster.up else set()
    again_s, began_s = REBOOT_S if provider.cloud else 0.0, ctx.clock()

    def ask(host: Host) -> Facts:
        fresh = provider.traits.owned and (host.name, host.machine) not in living
        return once_it_answers(
            lambda: ask_facts(ctx.transport, host, question(seen, cluster, host, hosts[0])),
            BOOT_S if fresh else again_s,
            began_s=began_s,
            waiting=lambda why: ctx.emit(Notice(f"waiting for {host.name} to answer: {why}")),
            clock=ctx.clock,
            pause=ctx.pause,
        )

    outcomes = fan_out(hosts, ask)
    left = survivors(ctx, seen.spec, tuple(host.name for host in hosts), outcomes.errors)
    return {host: outcomes.values[host.name] for host in hosts if host.name in left}


def pinned(cluster: Cluster, hosts: tuple[Host, ...]) -> tuple[Host, ...]:
    """Return the hosts with the keys recorded for the same machines: the first key may be replaced."""
    known = {node.host.machine: node.host.host_keys for node in cluster.every_node if node.host.machine}
    return tuple(replace(host, host_keys=known.get(host.machine, host.host_keys)) for host in hosts)


def survivors(
    ctx: Context, spec: ClusterSpec, names: tuple[str, ...], errors: Mapping[str, RainDeployError]
) -> tuple[str, ...]:
    """Return the nodes with which the cluster continues: at least ``--min-nodes``, by default all.

    ``names``: server first.  Raises the first failure if fewer are left or the server is not among them, and
    a wrong host key always.
    """
    left = tuple(name for name in names if name not in errors)
    wrong = any(isinstance(error, HostKeyError) for error in errors.values())
    if wrong or len(left) < (spec.min_nodes or len(names)) or names[0] not in left:
        Outcomes({}, errors).require()
    for name, error in errors.items():
        ctx.emit(Notice(f"{name} is left out: {error.message}"))
    return left


def question(seen: Seen, cluster: Cluster, host: Host, first: Host) -> Command:
    """Return what one host is asked; the first also whether it can build the engine, while none is known."""
    tools = host is first and not cluster.engine_sha256
    digest = environment_digest(seen.environment) if seen.environment else ""
    return facts_command(host, cluster.id, route_to=first.address, tools=tools, environment=digest)


def ask_facts(transport: Transport, host: Host, asked: Command) -> Facts:
    """Return what a host answers to its ``question``.  Raises Unreachable, HostKeyError, InstallFailed."""
    answer = transport.run(host, asked).require(InstallFailed, "its facts could not be read", host.name)
    return parse_facts(host, answer.decode(errors="replace"))


def choose_base(cluster: Cluster, hosts: tuple[Host, ...], facts: dict[str, Facts]) -> str:
    """Return the directory for everything of ours, the same on all nodes; it never changes."""
    if given := cluster.base or hosts[0].base:
        return given
    reported = {fact.base for fact in facts.values()}
    if len(reported) == 1 and "" not in reported:
        return reported.pop()
    if all(fact.root for fact in facts.values()):
        return ROOT_BASE
    uids = {fact.uid for fact in facts.values()}
    if len(uids) > 1:
        raise InputError(
            "the hosts have no root in common and different user ids, so no directory is the same on all",
            next_step="use accounts with root or passwordless sudo, or with the same user id",
        )
    return user_base(uids.pop())


def assign(ctx: Context, spec: ClusterSpec, cluster: Cluster, found: Mapping[Host, Facts]) -> Cluster:
    """Return the cluster with a node for each host.  What a node was given stays; one task per GPU.

    Raises InputError where two clusters would share Rain's ports at one address: the governors of one would
    join the other.
    """
    recorded = {node.name: node for node in cluster.every_node}
    hosts, facts = tuple(found), {host.name: fact for host, fact in found.items()}
    addresses = cluster_addresses(hosts, facts, spec.machines.trust_networks)
    share = len(hosts) if ctx.provider_for(cluster.provider).traits.shared_machine else 1
    gpus = cluster.bill.quote.gpus if cluster.bill else 0
    nodes = []
    for host, fact in found.items():
        known, address = recorded.get(host.name), addresses[host.name]
        # The address of a machine that was made anew may be another's by now.
        same = known and (known.host.machine, known.host.address) == (host.machine, host.address)
        if known and (same or not host.machine):
            address = known.cluster_address
        given = spec.cpus_per_node or (known.cpus if known else 0) or gpus
        cpus = given or _cpus(ctx, host, fact, share)
        nodes.append(Node(host.name, host, fact, address, governor_port(host.index), cpus))
        for taken in fact.taken:
            at, _, other = taken.partition(" ")
            if at == address:
                raise InputError(
                    f"another cluster of rain-deploy (id {other}) runs on it, at {at}",
                    node=host.name,
                    next_step="take that one down first (rain-deploy list shows it), or name other machines",
                )
    left_out = tuple(node for name, node in recorded.items() if name not in facts)
    base = choose_base(cluster, hosts, facts)
    return replace(cluster, base=base, nodes=tuple(nodes), left_out=left_out)


def _cpus(ctx: Context, host: Host, facts: Facts, share: int) -> int:
    cpus = max(1, facts.cpus // share)
    fitting = max(1, facts.memory_bytes // share // MEMORY_PER_TASK_BYTES)
    if fitting < cpus:
        tasks = f"{count(fitting, 'task')} at once instead of {cpus}"
        ctx.emit(Notice(f"{host.name}: {tasks}: 1 GiB of memory each"))
    return min(cpus, fitting)
