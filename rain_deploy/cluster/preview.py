"""``up --dry-run``: show the plan that ``up`` would carry out, and what would run on which node."""

from __future__ import annotations

from dataclasses import dataclass, replace

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.hosts import assign, question
from rain_deploy.cluster.install import refuse, shared_of
from rain_deploy.cluster.lookup import hosts_of
from rain_deploy.cluster.plan import Plan
from rain_deploy.core.cluster import Quote
from rain_deploy.core.events import Result
from rain_deploy.core.machine import Facts, Host
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
    """The result of ``plan``: what ``up`` would do, and the commands for each node, in order."""

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


UNRESOLVED = "requirements are not resolved in a dry run, so the environment's digest will differ"
UNBUILT = "the engine is still to be built, so its digest stands as zeros"


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

    rows = []
    for host in hosts:
        asked = StagePlan("facts", question(plan.cluster, host, hosts[0]).line())
        lines = (asked, *(shown(host, stages[host.name]) for stages in steps if host.name in stages))
        rows.append(HostPlan(host.name, host.label or host.address, lines))
    origin = f"assumed for {', '.join(assumed)}: Debian 12 with root and systemd" if assumed else "from state"
    unresolved = "" if plan.seen.resolved else UNRESOLVED
    unbuilt = "" if shared.cluster.engine_sha256 else UNBUILT
    return PlanResult(
        cluster=cluster.name,
        provider=cluster.provider,
        facts="; ".join(filter(None, (origin, unresolved, unbuilt))),
        hosts=tuple(rows),
        quote=cluster.bill.quote if cluster.bill else None,
        creates=tuple(f"{intent.kind} {intent.name}" for intent in plan.create),
        offer=plan.offer,
    )


def planned_hosts(provider: Provider, plan: Plan) -> tuple[Host, ...]:
    """Return the living hosts as recorded, then those that ``up`` would make."""
    made = provider.preview(plan.intents)
    pairs = zip(hosts_of(plan.cluster), made, strict=False)
    living = tuple(replace(host, installer_env=now.installer_env) for host, now in pairs)
    return (*living, *made[len(living) :])
