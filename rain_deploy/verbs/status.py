"""``status``: one cluster from the machines themselves; ``list``: all clusters from the record."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.lookup import NodeLine, hosts_of, recorded
from rain_deploy.cluster.seeing import Sight, cloud_drift, out_of_reach, seen
from rain_deploy.core.bill import Bill
from rain_deploy.core.cluster import Cluster, Node, Role
from rain_deploy.core.events import Notice
from rain_deploy.core.machine import Host, Resource
from rain_deploy.core.result import Result
from rain_deploy.core.run import RunRecord, RunState
from rain_deploy.errors import (
    Drift,
    HostKeyError,
    RainDeployError,
    Unreachable,
)
from rain_deploy.fleet.fanout import fan_out
from rain_deploy.node.wire import ListedRun, NodeStatus, read
from rain_deploy.parts.services import layout_of, node_command
from rain_deploy.runs.states import RunLine, record_state, run_line, understood


@dataclass(frozen=True, slots=True)
class StatusResult(Result):
    """``status``: ``drift`` says in sentences what is not as recorded."""

    cluster: str
    provider: str
    nodes: tuple[NodeLine, ...]
    governors: int | None
    """Registered with Rain now; None: Rain did not answer."""
    run: RunLine | None
    """The active run, else the last."""
    drift: tuple[str, ...]
    seconds: float
    checked: bool = False
    """True for ``--check``: drift is then a problem."""
    limit_s: float | None = None
    """When the machines power themselves off; None: never."""
    cost: float | None = None
    """So far; None where nothing is priced."""
    per_hour: float | None = None
    """Of all machines of the cluster as they are: one that is powered off costs its disk."""
    currency: str = ""

    @property
    def problem(self) -> RainDeployError | None:
        if not (self.checked and self.drift):
            return None
        return Drift(
            f"cluster {self.cluster} is not as recorded: {'; '.join(self.drift)}",
            next_step=f"rain-deploy up -c {self.cluster}",
        )


@dataclass(frozen=True, slots=True)
class ClusterLine:
    """A cluster in a list, from state alone."""

    name: str
    id: str
    provider: str
    nodes: int
    up: bool
    """True once ``up`` has ended well."""
    created_s: float
    runs: int = 0
    active_run: str = ""
    limit_s: float | None = None
    """When the machines power themselves off; None: never."""
    cost: float | None = None
    """So far; None where nothing is priced."""
    currency: str = ""
    state: str = ""
    """Of priced machines, as the cloud tells it: ``3 running, 1 stopped``, or ``unknown``."""


@dataclass(frozen=True, slots=True)
class ListResult(Result):
    """``list``: every cluster of this home."""

    clusters: tuple[ClusterLine, ...]


NO_SERVICES = "no services"
"""The state of a node that answers and runs none of ours, or not all: its machine is not stopped."""


def status(ctx: Context, name: str, *, check: bool = False) -> StatusResult:
    """Ask every node at once.  A node that does not answer is drift; a wrong host key is an error.

    Where machines are priced the cloud is asked first: a node whose machine does not run is not asked.
    """
    started_s = time.monotonic()
    cluster = recorded(ctx, name)
    sight = seen(ctx, cluster.provider)
    off = out_of_reach(cluster, sight) if sight else {}
    answers = _ask(ctx, cluster, off)
    lines = tuple(_line(cluster, node, answers.get(node.name), off.get(node.name)) for node in cluster.nodes)
    server = answers.get(cluster.server.name) if cluster.nodes else None
    states = {run.run: run for run in server.runs} if server else {}
    _record(ctx, cluster, states)
    _say_where_results_are(ctx, cluster, off)
    return StatusResult(
        cluster=name,
        provider=cluster.provider,
        nodes=(*lines, *(_no_nodes_yet(ctx, cluster, sight) if sight else ())),
        governors=sum(line.state == "ready" for line in lines),
        run=_shown_run(ctx, cluster, states),
        drift=_drift(ctx, cluster, lines, off, sight),
        seconds=time.monotonic() - started_s,
        checked=check,
        limit_s=cluster.limit_s,
        cost=cluster.bill.cost(time.time()) if cluster.bill else None,
        per_hour=_per_hour(cluster.bill, cluster, sight) if cluster.bill and sight else None,
        currency=cluster.bill.currency if cluster.bill else "",
    )


def _ask(ctx: Context, cluster: Cluster, off: Mapping[str, str]) -> Mapping[str, NodeStatus]:
    layout = layout_of(cluster)

    def ask(host: Host) -> NodeStatus:
        command = node_command(cluster, "status", layout.cluster, layout.node(host.index), deadline_s=20.0)
        result = ctx.transport.run(host, command)
        with understood(cluster, host.name):
            return read(NodeStatus, result.stdout) if result.exit_status == 0 else NodeStatus()

    asked = tuple(host for host in hosts_of(cluster) if host.name not in off)
    outcomes = fan_out(asked if cluster.up else (), ask)
    for error in outcomes.errors.values():
        if isinstance(error, HostKeyError) or not isinstance(error, Unreachable):
            raise error
    return outcomes.values


def _drift(
    ctx: Context, cluster: Cluster, lines: tuple[NodeLine, ...], off: Mapping[str, str], sight: Sight | None
) -> tuple[str, ...]:
    """In sentences; of a node that is off, the cloud's word."""
    unended = () if cluster.up else ("its last `up` did not end",)
    nodes = (_amiss(line) for line in lines if line.state != "ready" and line.name not in off)
    left_out = (f"{node.name} is left out" for node in cluster.left_out)
    return (*unended, *nodes, *(cloud_drift(ctx, cluster, sight) if sight else ()), *left_out)


def _amiss(line: NodeLine) -> str:
    serves_not = line.state == NO_SERVICES
    return f"{line.name}: its services do not run" if serves_not else f"{line.name} is {line.state}"


def _no_nodes_yet(ctx: Context, cluster: Cluster, sight: Sight) -> tuple[NodeLine, ...]:
    """Machines on record that no node stands for, as the cloud tells them: of an ``up`` that was killed."""
    nodes, machines = {node.name for node in cluster.nodes}, sight.machines(cluster)
    cpus = cluster.bill.quote.cpus if cluster.bill else 0

    def line(name: str, found: Resource) -> NodeLine:
        role = Role.SERVER if name == "node-1" else Role.GOVERNOR
        return NodeLine(name, role, found.address, found.state, cpus)

    recorded_names = [ref.name for ref in ctx.store.resources(cluster.id) if ref.name not in nodes]
    return tuple(line(name, machines[name]) for name in recorded_names if name in machines)


def _per_hour(bill: Bill, cluster: Cluster, sight: Sight) -> float:
    """Of all machines as they are now: one that is powered off costs its disk."""
    rates = {meter.machine: meter.per_hour for meter in bill.meters if meter.until_s is None}
    for found in sight.machines(cluster).values():
        if found.state == "stopped":
            rates[found.ref] = bill.quote.stopped_per_hour
        else:
            rates.setdefault(found.ref, bill.quote.per_hour)
    return sum(rates.values())


def _record(ctx: Context, cluster: Cluster, states: Mapping[str, ListedRun]) -> None:
    """Keep what the server node tells of runs: it may be powered off when somebody asks next."""
    for record in _runs(ctx, cluster):  # as they are now: other commands record them too
        now = states.get(record.id)
        if now and record.state not in {RunState.FINISHED, now.state}:
            record_state(ctx, record, now)


def _say_where_results_are(ctx: Context, cluster: Cluster, off: Mapping[str, str]) -> None:
    if not cluster.nodes or off.get(cluster.server.name) != "stopped":
        return
    held = [record.id for record in _runs(ctx, cluster) if not record.pulled]
    if held:
        commands = " or ".join(f"`rain-deploy {verb} -c {cluster.name}`" for verb in ("pull", "down"))
        where = f"on the disk of {cluster.server.name}, which is powered off; {commands} starts it"
        ctx.emit(Notice(f"results of {', '.join(held)} are {where}"))


def _runs(ctx: Context, cluster: Cluster) -> list[RunRecord]:
    return [record for record in ctx.store.runs(cluster.name) if record.cluster_id == cluster.id]


def _shown_run(ctx: Context, cluster: Cluster, states: Mapping[str, ListedRun]) -> RunLine | None:
    """The active run, else the last."""
    runs = _runs(ctx, cluster)
    active = [r for r in runs if r.id in states and states[r.id].state != RunState.FINISHED]
    shown = next(iter(active), None) or (runs[-1] if runs else None)
    return run_line(shown, states.get(shown.id)) if shown else None


def _line(cluster: Cluster, node: Node, answer: NodeStatus | None, off: str | None) -> NodeLine:
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
    """``ready``: every service runs, and the governor is registered."""
    if answer is None:
        return "unreachable"
    if not answer.services or None in answer.services.values():
        return NO_SERVICES
    return "ready" if answer.governor and answer.governor.ready else "starting"


def list_clusters(ctx: Context) -> ListResult:
    """Every cluster that is recorded here; a cloud is asked once for all that are priced."""
    clusters = ctx.store.clusters()
    priced = {cluster.provider for cluster in clusters if cluster.bill}
    sights = {provider: seen(ctx, provider) for provider in priced}
    return ListResult(
        tuple(_cluster_line(ctx, cluster, sights.get(cluster.provider)) for cluster in clusters)
    )


def _cluster_line(ctx: Context, cluster: Cluster, sight: Sight | None) -> ClusterLine:
    mine = _runs(ctx, cluster)
    active = [record.id for record in mine if record.state != RunState.FINISHED]
    return ClusterLine(
        name=cluster.name,
        id=cluster.id,
        provider=cluster.provider,
        nodes=len(cluster.nodes),
        up=cluster.up,
        created_s=cluster.created_s,
        runs=len(mine),
        active_run=active[0] if active else "",
        limit_s=cluster.limit_s,
        cost=cluster.bill.cost(time.time()) if cluster.bill else None,
        currency=cluster.bill.currency if cluster.bill else "",
        state=_machines(cluster, sight) if sight else "",
    )


def _machines(cluster: Cluster, sight: Sight) -> str:
    """``3 running, 1 stopped``."""
    if sight.silent:
        return "unknown"
    counts = Counter(found.state for found in sight.machines(cluster).values())
    return ", ".join(f"{count} {state}" for state, count in counts.most_common()) or "no machine"
