"""What several flows ask of the record: a cluster that is up, a run by id or the last one."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping

from rain_deploy.core.model import Cluster, Host, Node, Role, RunRecord, RunState
from rain_deploy.errors import EngineError, InputError
from rain_deploy.flows.context import Context
from rain_deploy.flows.results import NodeLine, RunLine
from rain_deploy.ops.services import layout_of, node_command

CANCEL_S = 60.0
"""For a run to end that was asked to; a script that does not listen is killed after 5 s."""
PAUSE_S = 0.2
State = Mapping[str, object]
"""state.json of a run, as node code tells it."""


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


def find_run(ctx: Context, cluster: str, run: str | None) -> RunRecord:
    """A run of the cluster's name by id, or the last one."""
    runs = ctx.store.runs(cluster)
    found = [record for record in runs if run in {None, record.id}]
    if not found:
        known = ", ".join(record.id for record in runs[-5:]) or "none"
        what = f"no run {run}" if run else "no run"
        raise InputError(
            f"cluster {cluster} has {what} (last runs: {known})",
            next_step=f"rain-deploy runs -c {cluster}",
        )
    return found[-1]


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


def run_states(ctx: Context, cluster: Cluster) -> dict[str, State]:
    """state.json of every run that the server node holds, by run id."""
    rows = json.loads(ask_server(ctx, cluster, "runs", layout_of(cluster).cluster))
    return {str(row["run"]): row for row in rows}


def unfinished(states: Mapping[str, State]) -> tuple[str, ...]:
    """Ids of the runs that wait or run."""
    over = {RunState.SHIPPED, RunState.FINISHED}
    return tuple(run for run, state in states.items() if state.get("state") not in over)


def await_end(
    ctx: Context,
    cluster: Cluster,
    runs: tuple[str, ...],
    *,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> dict[str, State]:
    """States of all runs once these have ended.  Raises EngineError after CANCEL_S."""
    deadline_s = clock() + CANCEL_S
    while True:
        states = run_states(ctx, cluster)
        left = [run for run in unfinished(states) if run in runs]
        if not left:
            return states
        if clock() > deadline_s:
            raise EngineError(
                f"{', '.join(left)} did not end within {CANCEL_S:.0f} s",
                node=cluster.server.name,
                next_step=f"rain-deploy status -c {cluster.name}",
            )
        pause(PAUSE_S)


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


def run_line(record: RunRecord, state: State | None = None) -> RunLine:
    """A run as recorded, or as the server node tells it where that is known."""
    known = state or {}

    def seconds(key: str) -> float | None:
        value = known.get(key)
        return float(value) if isinstance(value, int | float) else None

    exit_code = known.get("exit_code", record.exit_code)
    return RunLine(
        run=record.id,
        sequence=record.sequence,
        script=record.script,
        args=record.args,
        state=str(known.get("state", record.state)),
        outcome=str(known.get("outcome", record.outcome)),
        exit_code=exit_code if isinstance(exit_code, int) else None,
        created_s=record.created_s,
        started_s=seconds("started_s"),
        ended_s=seconds("ended_s"),
        results_dir=record.out,
        pulled=record.pulled,
    )
