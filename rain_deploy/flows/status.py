"""``status``: one cluster from the machines themselves; ``list``: all clusters from the record."""

from __future__ import annotations

import json
import time

from rain_deploy.core.model import Cluster, Host, Node, Role, RunState
from rain_deploy.errors import HostKeyError, Unreachable
from rain_deploy.fleet.fanout import fan_out
from rain_deploy.flows.clusters import State, hosts_of, recorded, run_line
from rain_deploy.flows.context import Context
from rain_deploy.flows.results import ClusterLine, ListResult, NodeLine, StatusResult
from rain_deploy.ops.services import layout_of, node_command


def status(ctx: Context, name: str, *, check: bool = False) -> StatusResult:
    """Ask every node at once.  A node that does not answer is drift; a wrong host key is an error."""
    started_s = time.monotonic()
    cluster = recorded(ctx, name)
    layout = layout_of(cluster)

    def ask(host: Host) -> State:
        command = node_command(cluster, "status", layout.cluster, layout.node(host.index), deadline_s=20.0)
        result = ctx.transport.run(host, command)
        answer: State = json.loads(result.stdout) if result.exit_status == 0 else {}
        return answer

    outcomes = fan_out(hosts_of(cluster) if cluster.up else (), ask)
    for error in outcomes.errors.values():
        if isinstance(error, HostKeyError) or not isinstance(error, Unreachable):
            raise error
    lines = tuple(_line(cluster, node, outcomes.values.get(node.name)) for node in cluster.nodes)
    drift = tuple(f"{line.name} is {line.state}" for line in lines if line.state != "ready")
    drift += tuple(f"{node.name} is left out" for node in cluster.left_out)
    if not cluster.up:
        drift = ("its last `up` did not end", *drift)
    runs = [record for record in ctx.store.runs(name) if record.cluster_id == cluster.id]
    states = _runs_of(outcomes.values.get(cluster.server.name)) if cluster.nodes else {}
    active = [r for r in runs if states.get(r.id, {}).get("state") not in {None, RunState.FINISHED}]
    shown = next(iter(active), None) or (runs[-1] if runs else None)
    return StatusResult(
        cluster=name,
        provider=cluster.provider,
        nodes=lines,
        governors=sum(line.state == "ready" for line in lines),
        run=run_line(shown, states.get(shown.id)) if shown else None,
        drift=drift,
        seconds=time.monotonic() - started_s,
        checked=check,
    )


def _runs_of(answer: State | None) -> dict[str, State]:
    rows = (answer or {}).get("runs")
    return {str(row["run"]): row for row in rows} if isinstance(rows, list) else {}


def _line(cluster: Cluster, node: Node, answer: State | None) -> NodeLine:
    said = answer or {}
    load, disk = said.get("load"), said.get("disk_free_bytes")
    return NodeLine(
        name=node.name,
        role=Role.SERVER if node is cluster.server else Role.GOVERNOR,
        address=node.cluster_address,
        state=_state(answer),
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
    """Every cluster that is recorded here."""
    runs = ctx.store.runs()
    lines = []
    for cluster in ctx.store.clusters():
        mine = [record for record in runs if record.cluster_id == cluster.id]
        active = [record.id for record in mine if record.state != RunState.FINISHED]
        lines.append(
            ClusterLine(
                name=cluster.name,
                id=cluster.id,
                provider=cluster.provider,
                nodes=len(cluster.nodes),
                up=cluster.up,
                created_s=cluster.created_s,
                runs=len(mine),
                active_run=active[0] if active else "",
            )
        )
    return ListResult(tuple(lines))
