"""Brings nodes what they lack, or shows what that would be: one loop over the list of parts."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.hosts import assign, question, run_stages, survivors
from rain_deploy.cluster.plan import Plan, unknown_sentences
from rain_deploy.core.cluster import Cluster, Node, Quote
from rain_deploy.core.events import Notice, Result
from rain_deploy.core.machine import Facts, Host
from rain_deploy.core.spec import ClusterSpec
from rain_deploy.core.step import Command, Stage
from rain_deploy.errors import InstallFailed
from rain_deploy.fleet.fanout import StageReport, fan_out
from rain_deploy.parts.facts import DEBIAN_12, NEW_MACHINE
from rain_deploy.parts.listed import first_parts, last_parts, parts, software
from rain_deploy.parts.machine import NEW_KEY, HostKey
from rain_deploy.parts.part import (
    Part,
    Shared,
    after,
    facts_of,
    groups,
    having,
    lacking,
    planned,
    refusals,
    stages_of,
)
from rain_deploy.parts.shell import stage_command
from rain_deploy.parts.software import ENGINE, code_bundle, engine_key, environment_digest
from rain_deploy.parts.supply.cache import EngineCache, uv_pin, uv_program
from rain_deploy.providers.base import Provider
from rain_deploy.state.store import Record

ENGINE_DEADLINE_S = 300.0


def shared_of(ctx: Context, plan: Plan, cluster: Cluster) -> Shared:
    """Return what the parts are made from, with the digests of what the nodes shall have.

    ``cluster`` is the plan's, with a node for each host.  Reads this machine's cache and asks no network.
    Without an ``engine_sha256`` the server node makes the engine.
    """
    spec, environment, before = plan.seen.spec, plan.seen.environment, plan.cluster
    assert environment is not None
    old = {node.name for node in before.nodes} if before.up else set()
    server, sha256 = facts_of(cluster.server), cluster.engine_sha256
    versions = (facts_of(node).glibc for node in cluster.nodes)
    glibc = min(versions, key=lambda version: [int(number) for number in version.split(".") if number])
    found = EngineCache(ctx.home).find(engine_key(spec.engine), server.arch, glibc)
    if not sha256 or cluster.layout.engine(sha256) not in server.have:
        sha256 = found[0] if found else ""
    code, env = code_bundle()[0], environment_digest(environment)
    return Shared(
        replace(cluster, env_digest=env, code_digest=code, engine_sha256=sha256),
        ctx.provider_for(cluster.provider).traits,
        environment,
        spec.engine,
        trust=spec.machines.trust_networks,
        new=frozenset(node.name for node in cluster.nodes if node.name not in old),
        grown=len(cluster.nodes) != len(before.nodes),
        binary=found[1] if found and found[0] == sha256 else None,
    )


def refuse(every: Iterable[Part], cluster: Cluster) -> None:
    """Raise why a node cannot get one of the parts, before anything is changed on any node."""
    for error in refusals(every, cluster.nodes):
        raise error


def bring_up(
    ctx: Context, record: Record, spec: ClusterSpec, shared: Shared
) -> tuple[Cluster, tuple[str, ...], int]:
    """Bring every node what it lacks, in the order of the parts.

    Returns the cluster, a sentence for each thing that was changed, and how many processes were started.
    """
    refuse(parts(shared), shared.cluster)
    record.save(shared.cluster)
    for part in first_parts(shared):
        cluster = rekey(ctx, record, part) if isinstance(part, HostKey) else _run(ctx, record, (part,))[0]
        shared = replace(shared, cluster=cluster)
    shared, changed = _install(ctx, record, spec, shared)
    cluster = shared.cluster
    if active := facts_of(cluster.server).active_run:
        ctx.emit(Notice(f"run {active} is active: nothing is restarted, new nodes join after it"))
    started: list[str] = []
    for group in groups(last_parts(shared)):
        cluster, reports = _run(ctx, record, group)
        started += [f"{name}: started {it}" for name, r in reports.items() for it in r.values("started")]
    return cluster, (*changed, *started), len(started)


def _run(ctx: Context, record: Record, group: tuple[Part, ...]) -> tuple[Cluster, Mapping[str, StageReport]]:
    """Run the stage of some parts where it is lacking; every node has to get it."""
    cluster = record.cluster
    stages = stages_of(group, cluster.nodes)
    reports = run_stages(ctx, cluster, stages).require()
    nodes = tuple(after(group, node) if node.name in stages else node for node in cluster.nodes)
    return record.change(nodes=nodes), reports


def rekey(ctx: Context, record: Record, part: HostKey) -> Cluster:
    """Return the cluster with the host keys that its machines made themselves, pinned on record.

    The key that travelled in user-data is used once and dies.  Both keys are on record before a machine
    changes, so that one of them fits whenever this is interrupted.
    Raises HostKeyError, Unreachable, InstallFailed.
    """
    cluster = record.cluster
    stages = stages_of((part,), cluster.nodes)
    if not stages:
        return cluster
    reports = run_stages(ctx, cluster, stages).require()
    new = {name: report.values(NEW_KEY)[0] for name, report in reports.items()}

    def pinned(node: Node) -> Node:
        key = new.get(node.name)
        return replace(node, host=replace(node.host, host_keys=(key,))) if key else node

    def both(node: Node) -> Node:
        keys = (*node.host.host_keys[:1], *pinned(node).host.host_keys)  # one that is left out may have none
        return replace(node, host=replace(node.host, host_keys=keys)) if node.name in new else node

    cluster = record.change_nodes(both)
    run_stages(ctx, cluster, {name: part.switch(key) for name, key in new.items()}).require()
    hosts = tuple(pinned(node).host for node in cluster.nodes if node.name in new)
    fan_out(hosts, ctx.transport.connect).require()
    return record.change_nodes(lambda node: after((part,), pinned(node)) if node.name in new else node)


def _install(
    ctx: Context, record: Record, spec: ClusterSpec, shared: Shared
) -> tuple[Shared, tuple[str, ...]]:
    """Install the software; nodes that fail are left out, as far as ``--min-nodes`` allows."""
    lines: list[str] = []
    for _ in range(2):  # an engine that the server node makes is handed on the second time
        cluster, (_code, environment, engine) = shared.cluster, software(shared)
        uv, binary = shared.uv, shared.binary
        if uv is None and any(map(environment.lacks, cluster.nodes)):
            uv = uv_program(ctx.home, uv_pin())
        if binary is None and cluster.engine_sha256 and any(map(engine.lacks, cluster.nodes)):
            binary = _fetch_engine(ctx, cluster, cluster.engine_sha256)  # only the server has it
        shared = replace(shared, uv=uv, binary=binary)
        group = software(shared)
        stages = stages_of(group, cluster.nodes)
        if not stages:
            break
        outcomes = run_stages(ctx, cluster, stages)
        left = survivors(ctx, spec, tuple(node.name for node in cluster.nodes), outcomes.errors)
        left_out = tuple(node for node in cluster.nodes if node.name not in left)
        nodes = tuple(after(group, node) for node in cluster.nodes if node.name in left)
        cluster = record.change(nodes=nodes, left_out=(*cluster.left_out, *left_out))
        shared = replace(shared, cluster=cluster)
        if not cluster.engine_sha256:
            shared = keep_engine(ctx, record, shared, outcomes.values[cluster.server.name])
        lines += [f"{name}: {step}" for name, report in outcomes.values.items() for step in report.changed]
    return shared, tuple(lines)


def keep_engine(ctx: Context, record: Record, shared: Shared, report: StageReport) -> Shared:
    """Fetch the engine that the server node has made, keep it here, and record its digest."""
    (sha256,) = report.values(ENGINE)
    cluster, server = shared.cluster, shared.cluster.server
    path, on_all = cluster.layout.engine(sha256), shared.traits.shared_machine
    nodes = (having(node, path) if on_all or node is server else node for node in cluster.nodes)
    cluster = replace(cluster, engine_sha256=sha256, nodes=tuple(nodes))
    binary, facts = _fetch_engine(ctx, cluster, sha256), facts_of(server)
    EngineCache(ctx.home).store(engine_key(shared.engine), facts.arch, facts.glibc, binary)
    cluster = record.change(engine_sha256=sha256, nodes=cluster.nodes)
    return replace(shared, cluster=cluster, binary=binary)


def _fetch_engine(ctx: Context, cluster: Cluster, sha256: str) -> bytes:
    path = cluster.layout.engine(sha256)
    command = Command(("cat", "--", path), deadline_s=ENGINE_DEADLINE_S)
    binary = ctx.transport.run(cluster.server.host, command).stdout
    if hashlib.sha256(binary).hexdigest() != sha256:
        raise InstallFailed("the engine did not arrive whole from its node", node=cluster.server.name)
    return binary


@dataclass(frozen=True, slots=True)
class StagePlan:
    """One stage of a host, as text."""

    stage: str
    command: str  # the text that would be sent to the host's shell, payload not included


@dataclass(frozen=True, slots=True)
class HostPlan:
    """The stages of one host, in order, and in words what they do."""

    host: str
    label: str
    stages: tuple[StagePlan, ...]
    steps: tuple[str, ...] = ()  # as ``check`` says it


@dataclass(frozen=True, slots=True)
class PlanResult(Result):
    """The result of ``plan``: what ``up`` would do, and the commands for each node, in order."""

    cluster: str
    provider: str
    facts: str  # where the facts come from: state, or the assumed Debian 12 with root and systemd
    hosts: tuple[HostPlan, ...]
    quote: Quote | None = None  # what one machine costs; None where nothing is priced
    creates: tuple[str, ...] = ()  # what would be made in the cloud, ``kind name``, in order
    offer: tuple[str, ...] = ()  # what it would cost and open, and when it would end by itself: sentences


def preview(ctx: Context, plan: Plan) -> PlanResult:
    """Return what ``up`` would do by this plan.  Raises what ``up`` would refuse without asking a host."""
    provider = ctx.provider_for(plan.cluster.provider)
    hosts = planned_hosts(provider, plan)
    known = {node.name: node.facts for node in plan.cluster.nodes}
    found = {host: known.get(host.name) or ctx.store.facts(host) for host in hosts}
    assumed = [host.name for host, fact in found.items() if fact is None]
    assumption = NEW_MACHINE if provider.cloud else DEBIAN_12
    facts: dict[Host, Facts] = {host: fact or assumption for host, fact in found.items()}
    cluster = assign(ctx, plan.seen.spec, plan.cluster, facts)
    shared = shared_of(ctx, plan, cluster)
    refuse(parts(shared), cluster)
    steps = tuple(planned(parts(shared), cluster.nodes))

    def shown(host: Host, stage: Stage) -> StagePlan:
        exports = host.installer_env if stage.installs else ()
        return StagePlan(stage.name, stage_command(stage, cluster.base, exports).line())

    rows, nodes = [], {node.name: node for node in cluster.nodes}
    for host in hosts:
        asked = StagePlan("facts", question(plan.seen, plan.cluster, host, hosts[0]).line())
        lines = (asked, *(shown(host, stages[host.name]) for stages in steps if host.name in stages))
        words = lacking(parts(shared), nodes[host.name])
        rows.append(HostPlan(host.name, host.label or host.address, lines, words))
    origin = f"assumed for {', '.join(assumed)}: Debian 12 with root and systemd"
    sources = [origin if assumed else "from state"]
    if not plan.seen.resolved:
        sources.append("requirements are not resolved in a dry run, so the environment's digest will differ")
    if not shared.cluster.engine_sha256:
        sources.append("the engine is still to be built, so its digest stands as zeros")
    return PlanResult(
        cluster=cluster.name,
        provider=cluster.provider,
        facts="; ".join(sources),
        hosts=tuple(rows),
        quote=cluster.bill.quote if cluster.bill else None,
        creates=tuple(f"{intent.kind} {intent.name}" for intent in plan.create),
        offer=(
            *unknown_sentences(plan),
            *plan.offer,
            *(f"security group, to be repaired: {repair}" for repair in plan.repairs),
        ),
    )


def planned_hosts(provider: Provider, plan: Plan) -> tuple[Host, ...]:
    """Return the living hosts as recorded, then those that ``up`` would make."""
    made = provider.preview(plan.intents)
    pairs = zip((node.host for node in plan.cluster.nodes), made, strict=False)
    living = tuple(replace(host, installer_env=now.installer_env) for host, now in pairs)
    return (*living, *made[len(living) :])
