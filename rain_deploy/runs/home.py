"""Pull every run of a cluster that is not pulled yet, before the cluster goes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.lookup import ask_server
from rain_deploy.core.cluster import Cluster
from rain_deploy.core.events import Notice
from rain_deploy.core.run import RunRecord, RunState
from rain_deploy.errors import EngineError, PullFailed, Unreachable, UsageError
from rain_deploy.node.wire import ListedRun
from rain_deploy.parts.services import layout_of
from rain_deploy.runs.finish import pull_run
from rain_deploy.runs.states import await_end, run_states, runs_of, unfinished


def not_pulled(ctx: Context, cluster: Cluster) -> tuple[RunRecord, ...]:
    """Return the cluster's runs whose results are not all here."""
    return tuple(run for run in runs_of(ctx, cluster) if not run.pulled)


def pull_all(
    ctx: Context, cluster: Cluster, runs: tuple[RunRecord, ...], out: Path | None
) -> tuple[str, ...]:
    """Cancel what runs, if the user agrees, and pull these runs; return the ids of those pulled.

    ``out``: a directory for all, instead of the one recorded for each.  Raises PullFailed, UsageError.
    """
    try:
        states = _cancel(ctx, cluster, run_states(ctx, cluster))
        pulled = []
        for run in runs:
            if run.id not in states:
                ctx.emit(Notice(f"run {run.id}: not on {cluster.server.name}, so nothing is pulled"))
            elif states[run.id].state != RunState.SHIPPED:
                target = out / run.id if out else run.out
                ctx.emit(Notice(f"run {run.id}: pulling results to {target}"))
                pull_run(ctx, cluster, replace(run, out=target), states[run.id])
                pulled.append(run.id)
    except (Unreachable, EngineError, PullFailed) as error:
        raise not_deleted(cluster, error) from error
    return tuple(pulled)


def not_deleted(cluster: Cluster, error: Unreachable | EngineError | PullFailed) -> PullFailed:
    """Return the error of a ``down`` that stops because results would be lost."""
    return PullFailed(
        f"results could not be pulled, so nothing was deleted: {error.message}",
        node=error.node,
        details=error.details,
        still_running=f"the {len(cluster.nodes)} nodes of {cluster.name}",
        next_step=f"rain-deploy down -c {cluster.name} --out DIR, or --discard-results to lose them",
    )


def end_records(ctx: Context, cluster: Cluster) -> None:
    """Record that the cluster's runs are over: it is gone."""
    for run in runs_of(ctx, cluster):
        if run.state != RunState.FINISHED:
            ctx.store.save_run(replace(run, state=RunState.FINISHED, outcome="cancelled"))


def _cancel(ctx: Context, cluster: Cluster, states: Mapping[str, ListedRun]) -> Mapping[str, ListedRun]:
    """End what runs and return the states after it; what does not end is left to the end of all services."""
    active = unfinished(states)
    if not active:
        return states
    if not ctx.confirm(f"{', '.join(active)} is still active on {cluster.name}. Cancel it?"):
        raise UsageError(
            f"cluster {cluster.name} has an active run and was left as it is",
            next_step=f"rain-deploy attach -c {cluster.name}",
        )
    layout = layout_of(cluster)
    for run in reversed(active):
        ask_server(ctx, cluster, "cancel", layout.run(run))
    try:
        return await_end(ctx, cluster, active)
    except EngineError as error:
        ctx.emit(Notice(f"{error.message}; what is there of it is pulled"))
        return run_states(ctx, cluster)
