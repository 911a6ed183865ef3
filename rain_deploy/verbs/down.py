"""``down``: bring home what is not home, end and delete everything, look again, certify."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from rain_deploy.cluster.account import refuse_another_account
from rain_deploy.cluster.context import Context
from rain_deploy.cluster.lookup import ask_server, hosts_of
from rain_deploy.cluster.removing import remove
from rain_deploy.cluster.stages import try_stages
from rain_deploy.cluster.waking import awake
from rain_deploy.core.cluster import Cluster, Node
from rain_deploy.core.events import Notice
from rain_deploy.core.machine import Resource
from rain_deploy.core.result import Result
from rain_deploy.core.run import RunRecord, RunState
from rain_deploy.errors import (
    DownIncomplete,
    EngineError,
    HostKeyError,
    PullFailed,
    RainDeployError,
    Unproved,
    Unreachable,
    UsageError,
)
from rain_deploy.fleet.executor import StageReport
from rain_deploy.fleet.reach import meet
from rain_deploy.node.wire import ListedRun
from rain_deploy.parts.services import layout_of
from rain_deploy.parts.teardown import remove_stage, stop_stage
from rain_deploy.providers.base import Provider
from rain_deploy.runs.finish import pull_run
from rain_deploy.runs.states import await_end, run_states, runs_of, unfinished


@dataclass(frozen=True, slots=True)
class DownResult(Result):
    """``down``: ``nothing`` is true when no such cluster existed."""

    cluster: str
    deleted: tuple[str, ...] = ()
    certificate: tuple[str, ...] = ()
    """What was looked at and found absent, one line each."""
    pulled: tuple[str, ...] = ()
    """Runs whose results were brought home first."""
    seconds: float = 0.0
    nothing: bool = False
    cost: float | None = None
    """Of the machines from first to last; None where nothing is priced."""
    currency: str = ""


def down(ctx: Context, name: str, *, discard_results: bool = False, out: Path | None = None) -> DownResult:
    """Delete the cluster.  Absent is success; what could not be proved to be gone is an error."""
    with ctx.store.lock(name, "down"):
        cluster = ctx.store.cluster(name)
        if cluster is None:
            return DownResult(cluster=name, nothing=True)
        return tear_down(ctx, cluster, discard_results=discard_results, out=out)


def tear_down(
    ctx: Context, cluster: Cluster, *, discard_results: bool, out: Path | None = None
) -> DownResult:
    """``down`` for a caller that holds the cluster's lock."""
    started_s = time.monotonic()
    provider = ctx.provider_for(cluster.provider)
    pulled: tuple[str, ...] = ()
    cluster = replace(cluster, nodes=cluster.every_node, left_out=())
    wanted = cluster.up and not discard_results
    certificate: tuple[str, ...] = ()
    if provider.cloud is not None:  # a machine that goes takes all with it
        refuse_another_account(provider.cloud, cluster, ctx.store.resources(cluster.id))
        if wanted and _not_home(ctx, cluster):
            pulled = _bring_home(ctx, cluster, out, off=True)
    elif cluster.nodes:
        _wake(ctx, provider, cluster)
        pulled = _bring_home(ctx, cluster, out) if wanted else ()
        certificate = _end_services(ctx, provider, cluster)
    deleted, gone = _delete(ctx, provider, cluster)
    ctx.store.forget_cluster(cluster)
    shutil.rmtree(ctx.home / "clusters" / cluster.id, ignore_errors=True)
    for record in runs_of(ctx, cluster):
        if record.state != RunState.FINISHED:
            ctx.store.save_run(replace(record, state=RunState.FINISHED, outcome="cancelled"))
    return DownResult(
        cluster=cluster.name,
        deleted=deleted,
        certificate=(*certificate, *gone),
        pulled=pulled,
        seconds=time.monotonic() - started_s,
        cost=cluster.bill.cost(time.time()) if cluster.bill else None,
        currency=cluster.bill.currency if cluster.bill else "",
    )


def _wake(ctx: Context, provider: Provider, cluster: Cluster) -> None:
    """Start what does not run and wait until it answers.  HostKeyError: nothing is done on any host."""
    made = tuple(resource for resource in ctx.store.resources(cluster.id) if resource.ref)
    for resource in made:
        provider.start(resource)
    with contextlib.suppress(Unreachable):  # what is done next says who does not answer
        provider.hosts(cluster, made)
    meet(ctx.transport, hosts_of(cluster))


def _bring_home(ctx: Context, cluster: Cluster, out: Path | None, *, off: bool = False) -> tuple[str, ...]:
    """Cancel what runs, when the user agrees, and pull every run that is not home.

    ``off``: its machines may be powered off, and the server's is started then.
    """
    mine = _not_home(ctx, cluster)
    if not mine:
        return ()
    try:
        cluster = awake(ctx, cluster, (cluster.server,)) if off else cluster
        states = _cancel(ctx, cluster, run_states(ctx, cluster))
        pulled = []
        for record in mine:
            if record.id not in states:
                ctx.emit(Notice(f"run {record.id}: not on {cluster.server.name}, so nothing is pulled"))
            elif states[record.id].state != RunState.SHIPPED:
                target = out / record.id if out else record.out
                ctx.emit(Notice(f"run {record.id}: pulling results to {target}"))
                pull_run(ctx, cluster, replace(record, out=target), states[record.id])
                pulled.append(record.id)
    except (Unreachable, EngineError, PullFailed) as error:
        raise PullFailed(
            f"results could not be pulled, so nothing was deleted: {error.message}",
            node=error.node,
            details=error.details,
            still_running=f"the {len(cluster.nodes)} nodes of {cluster.name}",
            next_step=f"rain-deploy down -c {cluster.name} --out DIR, or --discard-results to lose them",
        ) from error
    return tuple(pulled)


def _not_home(ctx: Context, cluster: Cluster) -> tuple[RunRecord, ...]:
    return tuple(record for record in runs_of(ctx, cluster) if not record.pulled)


def _cancel(ctx: Context, cluster: Cluster, states: Mapping[str, ListedRun]) -> Mapping[str, ListedRun]:
    """End what runs; the states after it.  What does not end is told, and left to the end of all services."""
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


def _end_services(ctx: Context, provider: Provider, cluster: Cluster) -> tuple[str, ...]:
    """Two barriers: nothing of the cluster runs anywhere before its files are removed."""
    stop = {node.name: stop_stage(cluster, node) for node in cluster.nodes}
    remove = remove_stage(cluster, wall=provider.traits.needs_wall)
    lines: list[str] = []
    for name, stages in (("stop", stop), ("remove", dict.fromkeys(stop, remove))):
        outcomes = try_stages(ctx, cluster, name, stages)
        if outcomes.errors:
            raise _incomplete(cluster, dict(outcomes.errors))
        lines += [line for node in cluster.nodes for line in _absent(node, outcomes.values[node.name])]
    return tuple(lines)


def _absent(node: Node, report: StageReport) -> list[str]:
    return [f"{node.name}: no {line}" for line in report.values("absent")]


def _incomplete(cluster: Cluster, errors: dict[str, RainDeployError]) -> RainDeployError:
    name, first = next(iter(errors.items()))
    kind = Unproved if isinstance(first, Unreachable) else DownIncomplete
    if isinstance(first, HostKeyError):
        return first
    return kind(
        f"down of {cluster.name} is not complete on {', '.join(errors)}: {first.message}",
        node=name,
        details=first.details,
        still_running=f"what rain-deploy started on {', '.join(errors)}",
        next_step=f"rain-deploy down -c {cluster.name}",
    )


def _delete(ctx: Context, provider: Provider, cluster: Cluster) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Delete every resource, keep going, then list again: nothing of the cluster may be left."""
    known = ctx.store.resources(cluster.id)
    more = _unrecorded(known, _listed(provider, cluster))
    cluster = replace(cluster, up=False)
    ctx.store.save_cluster(cluster)  # from here on it is no living one, also when this command is killed
    # Machines last in the order of making: they are the first to go.
    resources = sorted((*known, *more), key=lambda resource: resource.is_machine)
    gone, failed = remove(ctx, provider, tuple(resources))
    ctx.store.save_cluster(cluster.closed(gone, time.time()))
    left = [f"{resource.kind} {resource.name}" for resource in _listed(provider, cluster)]
    if failed or left:
        reasons = "; ".join([*(error.message for error in failed.values()), *left])
        raise DownIncomplete(
            f"down of {cluster.name} is not complete: {reasons}",
            still_running=", ".join(left) or None,
            next_step=f"rain-deploy down -c {cluster.name}",
        )
    deleted = tuple(f"{resource.kind} {resource.name}" for resource in gone)
    return deleted, (f"{cluster.provider}: listed again, no resource of {cluster.name} is left",)


def _unrecorded(known: tuple[Resource, ...], listed: tuple[Resource, ...]) -> tuple[Resource, ...]:
    """What exists beside what is on record: also a second of one name, of a create that was given up."""
    refs = {(resource.kind, resource.name): resource.ref for resource in known}

    def another(resource: Resource) -> bool:
        ref = refs.get((resource.kind, resource.name))
        if not ref:  # a record without an id stands for all of its name
            return ref is None
        return resource.ref not in {"", ref}

    return tuple(filter(another, listed))


def _listed(provider: Provider, cluster: Cluster) -> tuple[Resource, ...]:
    return tuple(r for r in provider.list(cluster.owner) if r.cluster_id == cluster.id)
