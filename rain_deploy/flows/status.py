"""``status``: one cluster from the machines themselves; ``list``: all clusters from the record."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping

from rain_deploy.core.model import Cluster, Host, Node, Role, RunState
from rain_deploy.core.money import cost_so_far, per_hour_now
from rain_deploy.errors import HostKeyError, Unreachable
from rain_deploy.fleet.fanout import fan_out
from rain_deploy.flows.clusters import State, hosts_of, recorded, run_line
from rain_deploy.flows.context import Context
from rain_deploy.flows.results import ClusterLine, ListResult, NodeLine, RunLine, StatusResult
from rain_deploy.flows.seeing import Sight, cloud_drift, out_of_reach, seen
from rain_deploy.ops.services import layout_of, node_command


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
    states = _runs_of(answers.get(cluster.server.name)) if cluster.nodes else {}
    return StatusResult(
        cluster=name,
        provider=cluster.provider,
        nodes=lines,
        governors=sum(line.state == "ready" for line in lines),
        run=_shown_run(ctx, cluster, states),
        drift=_drift(ctx, cluster, lines, off, sight),
        seconds=time.monotonic() - started_s,
        checked=check,
        limit_s=cluster.limit_s,
        cost=cost_so_far(cluster.meters, time.time()) if sight else None,
        per_hour=per_hour_now(cluster.meters) if sight else None,
        currency=cluster.quote.currency if cluster.quote else "",
    )


def _ask(ctx: Context, cluster: Cluster, off: Mapping[str, str]) -> Mapping[str, State]:
    layout = layout_of(cluster)

    def ask(host: Host) -> State:
        command = node_command(cluster, "status", layout.cluster, layout.node(host.index), deadline_s=20.0)
        result = ctx.transport.run(host, command)
        answer: State = json.loads(result.stdout) if result.exit_status == 0 else {}
        return answer

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
    nodes = (
        f"{line.name} is {line.state}" for line in lines if line.state != "ready" and line.name not in off
    )
    left_out = (f"{node.name} is left out" for node in cluster.left_out)
    return (*unended, *nodes, *(cloud_drift(ctx, cluster, sight) if sight else ()), *left_out)


def _shown_run(ctx: Context, cluster: Cluster, states: Mapping[str, State]) -> RunLine | None:
    """The active run, else the last."""
    runs = [record for record in ctx.store.runs(cluster.name) if record.cluster_id == cluster.id]
    active = [r for r in runs if states.get(r.id, {}).get("state") not in {None, RunState.FINISHED}]
    shown = next(iter(active), None) or (runs[-1] if runs else None)
    return run_line(shown, states.get(shown.id)) if shown else None


def _runs_of(answer: State | None) -> dict[str, State]:
    rows = (answer or {}).get("runs")
    return {str(row["run"]): row for row in rows} if isinstance(rows, list) else {}


def _line(cluster: Cluster, node: Node, answer: State | None, off: str | None) -> NodeLine:
    said = answer or {}
    load, disk = said.get("load"), said.get("disk_free_bytes")
    return NodeLine(
        name=node.name,
        role=Role.SERVER if node is cluster.server else Role.GOVERNOR,
        address=node.cluster_address,
        state=off or _state(answer),
        cpus=node.cpus,
        label=node.host.label,
        load=float(load) if isinstance(load, int | float) else None,
        disk_free_bytes=int(disk) if isinstance(disk, int) else None,
    )


def _state(answer: State | None) -> str:
    """``ready``: every service runs, and the governor is registered."""
    if answer is None:
        return "unreachable"
    services, governor = answer.get("services"), answer.get("governor")
    if not isinstance(services, dict) or None in services.values():
        return "stopped"
    return "ready" if isinstance(governor, dict) and governor.get("ready") else "starting"


def list_clusters(ctx: Context) -> ListResult:
    """Every cluster that is recorded here; a cloud is asked once for all that are priced."""
    clusters = ctx.store.clusters()
    priced = {cluster.provider for cluster in clusters if cluster.quote}
    sights = {provider: seen(ctx, provider) for provider in priced}
    return ListResult(
        tuple(_cluster_line(ctx, cluster, sights.get(cluster.provider)) for cluster in clusters)
    )


def _cluster_line(ctx: Context, cluster: Cluster, sight: Sight | None) -> ClusterLine:
    mine = [record for record in ctx.store.runs(cluster.name) if record.cluster_id == cluster.id]
    active = [record.id for record in mine if record.state != RunState.FINISHED]
    quote = cluster.quote
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
        cost=cost_so_far(cluster.meters, time.time()) if quote else None,
        currency=quote.currency if quote else "",
        state=_machines(cluster, sight) if sight else "",
    )


def _machines(cluster: Cluster, sight: Sight) -> str:
    """``3 running, 1 stopped``."""
    if sight.silent:
        return "unknown"
    counts = Counter(found.state for found in sight.machines(cluster).values())
    return ", ".join(f"{count} {state}" for state, count in counts.most_common()) or "no machine"
