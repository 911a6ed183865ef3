"""``up --dry-run``: what would run on which node, in order, made as ``up`` makes it; opens no socket."""

from __future__ import annotations

from dataclasses import dataclass, replace

from rain_deploy.cluster.account import in_account
from rain_deploy.cluster.context import Context
from rain_deploy.cluster.install import refuse, shared_of
from rain_deploy.cluster.lookup import hosts_of
from rain_deploy.cluster.machines import assign, new_cluster, question, remembering, wanted_nodes
from rain_deploy.cluster.offering import machines_of, quoted_cluster, sentences
from rain_deploy.cluster.removing import surplus
from rain_deploy.cluster.resolution import known_environment
from rain_deploy.core.bill import Quote
from rain_deploy.core.cluster import Cluster
from rain_deploy.core.machine import Facts, Host, Resource
from rain_deploy.core.result import Result
from rain_deploy.core.spec import ClusterSpec
from rain_deploy.core.step import Stage
from rain_deploy.parts.facts import DEBIAN_12, NEW_MACHINE
from rain_deploy.parts.listed import parts
from rain_deploy.parts.part import planned
from rain_deploy.parts.shell import stage_command
from rain_deploy.providers.base import Provider


@dataclass(frozen=True, slots=True)
class StagePlan:
    """One stage of a host, as text."""

    stage: str
    command: str
    """The text that would be sent to the host's shell, payload not included."""


@dataclass(frozen=True, slots=True)
class HostPlan:
    """The stages of one host, in order."""

    host: str
    label: str
    stages: tuple[StagePlan, ...]


@dataclass(frozen=True, slots=True)
class PlanResult(Result):
    """``up --dry-run``: what would run on which node, in order."""

    cluster: str
    provider: str
    facts: str
    """Where the facts come from: state, or the assumed Debian 12 with root and systemd."""
    hosts: tuple[HostPlan, ...]
    quote: Quote | None = None
    """What one machine costs; None where nothing is priced."""
    creates: tuple[str, ...] = ()
    """What would be made in the cloud, ``kind name``, in order."""
    offer: tuple[str, ...] = ()
    """What it would cost and open, and when it would end by itself: sentences."""


UNRESOLVED = "; requirements are not resolved in a dry run, so the environment's digest will differ"


def plan(ctx: Context, spec: ClusterSpec) -> PlanResult:
    """The commands of every node.  Raises what ``up`` would refuse without asking a network."""
    provider = ctx.provider_for(spec.provider)
    before = ctx.store.cluster(spec.name)
    cluster = before or new_cluster(ctx, spec)
    spec = remembering(spec, cluster)
    living = ctx.store.resources(cluster.id) if before else ()
    nodes = wanted_nodes(spec, cluster, living)
    if provider.cloud is not None:
        above = surplus(cluster, living, nodes)
        living = tuple(ref for ref in in_account(provider.cloud, cluster, living) if ref not in above)
    told, creates, cluster = _offered(ctx, provider, spec, cluster, nodes=nodes, living=living)
    hosts = planned_hosts(provider, spec, cluster, nodes)
    known = {node.name: node.facts for node in cluster.nodes}
    found = {host.name: known.get(host.name) or ctx.store.facts(host) for host in hosts}
    assumed = [name for name, fact in found.items() if fact is None]
    assumption = NEW_MACHINE if provider.cloud else DEBIAN_12
    looked: dict[Host, Facts] = {host: found[host.name] or assumption for host in hosts}
    first = [question(cluster, host, hosts[0]) for host in hosts]
    environment, complete = known_environment(ctx, spec, cluster)
    differing = "" if complete else UNRESOLVED
    grown = len(hosts) != len(cluster.nodes)
    new = frozenset(host.name for host in hosts if not cluster.up or host.name not in known)
    cluster = assign(ctx, provider, spec, cluster, looked)
    shared = shared_of(ctx, provider, spec, cluster, environment, new=new, grown=grown)
    refuse(shared)
    if not shared.cluster.engine_sha256:
        differing += "; the engine is still to be built, so its digest stands as zeros"
    steps = tuple(planned(parts(shared), cluster.nodes))
    rows = []
    for host, asked in zip(hosts, first, strict=True):
        stages = [stages[host.name] for stages in steps if host.name in stages]
        lines = (StagePlan("facts", asked.line()), *(_line(cluster, host, stage) for stage in stages))
        rows.append(HostPlan(host.name, host.label or host.address, lines))
    origin = f"assumed for {', '.join(assumed)}: Debian 12 with root and systemd" if assumed else "from state"
    return PlanResult(
        cluster=spec.name,
        provider=spec.provider,
        facts=origin + differing,
        hosts=tuple(rows),
        quote=cluster.bill.quote if cluster.bill else None,
        creates=creates,
        offer=told,
    )


def _offered(
    ctx: Context,
    provider: Provider,
    spec: ClusterSpec,
    cluster: Cluster,
    *,
    nodes: int,
    living: tuple[Resource, ...],
) -> tuple[tuple[str, ...], tuple[str, ...], Cluster]:
    """What would be paid for, in sentences; what would be made; the cluster as quoted."""
    if provider.cloud is None:
        return (), (), cluster
    made = {(resource.kind, resource.name) for resource in living if resource.ref}
    quoted = quoted_cluster(provider, spec, cluster, nodes=nodes, more=nodes - machines_of(living))
    missing = (i for i in provider.intents(spec, quoted, nodes) if (i.kind, i.name) not in made)
    creates = tuple(f"{intent.kind} {intent.name}" for intent in missing)
    more = nodes - machines_of(living)
    return sentences(ctx, spec, quoted, nodes=nodes, more=more), creates, quoted


def planned_hosts(provider: Provider, spec: ClusterSpec, cluster: Cluster, nodes: int) -> tuple[Host, ...]:
    """The living hosts as recorded, then those that ``up`` would make."""
    seen = provider.preview(provider.intents(spec, cluster, nodes))
    living = tuple(
        replace(host, installer_env=now.installer_env)
        for host, now in zip(hosts_of(cluster), seen, strict=False)
    )
    return (*living, *seen[len(living) :])


def _line(cluster: Cluster, host: Host, stage: Stage) -> StagePlan:
    exports = host.installer_env if stage.installs else ()
    return StagePlan(stage.name, stage_command(stage, cluster.base, exports).line())
