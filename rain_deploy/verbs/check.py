"""``check``: what ``up`` would install or refuse, looked up without changing anything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.install import shared_of
from rain_deploy.cluster.machines import assign, new_cluster, question, remembering, wanted_nodes
from rain_deploy.cluster.offering import machines_of, quoted_cluster, sentences
from rain_deploy.cluster.resolution import known_environment
from rain_deploy.core.cluster import Cluster
from rain_deploy.core.machine import Facts, Host
from rain_deploy.core.result import Result
from rain_deploy.core.spec import ClusterSpec
from rain_deploy.errors import (
    InputError,
    RainDeployError,
)
from rain_deploy.fleet.reach import gather_facts
from rain_deploy.parts.listed import parts
from rain_deploy.parts.part import lacking, refusals
from rain_deploy.providers.base import Provider
from rain_deploy.verbs.plan import planned_hosts


@dataclass(frozen=True, slots=True)
class CheckLine:
    """One finding: ``state`` is ``ok``, ``change`` (``up`` would do it) or ``refused`` (with ``error``)."""

    subject: str
    state: str
    text: str
    error: RainDeployError | None = None


@dataclass(frozen=True, slots=True)
class CheckResult(Result):
    """``check``: what ``up`` would find, change or refuse."""

    provider: str
    findings: tuple[CheckLine, ...]

    @property
    def problem(self) -> RainDeployError | None:
        errors = [line.error for line in self.findings if line.error]
        if errors:
            return max(errors, key=lambda error: error.exit_code)
        refused = [f"{line.subject}: {line.text}" for line in self.findings if line.state == "refused"]
        return InputError(f"up would refuse: {'; '.join(refused)}") if refused else None


def check(ctx: Context, spec: ClusterSpec) -> CheckResult:
    """Findings in the order in which ``up`` would meet them; one that ``up`` would refuse has an error."""
    provider = ctx.provider_for(spec.provider)
    cluster = ctx.store.cluster(spec.name) or new_cluster(ctx, spec)
    spec = remembering(spec, cluster)
    if provider.cloud is not None:
        return CheckResult(spec.provider, tuple(_cloud(ctx, provider, spec, cluster)))
    try:
        nodes = wanted_nodes(spec, cluster)
        told = provider.preflight(spec)
        hosts = planned_hosts(provider, spec, cluster, nodes)
    except RainDeployError as error:
        return CheckResult(spec.provider, (CheckLine(spec.provider, "refused", error.message, error),))
    findings = [CheckLine(spec.provider, "ok", sentence) for sentence in told]
    seen = hosts[:1] if provider.traits.shared_machine else hosts
    outcomes = gather_facts(
        ctx.here if provider.traits.shared_machine else ctx.transport,
        seen,
        lambda host: question(cluster, host, hosts[0]),
    )
    for host in seen:
        failed = outcomes.errors.get(host.name)
        if failed:
            findings.append(CheckLine(_subject(host), "refused", failed.message, failed))
        else:
            findings.append(_host(host, outcomes.values[host.name]))
    if not outcomes.errors:
        one = outcomes.values[seen[0].name]
        looked = {host: outcomes.values.get(host.name, one) for host in hosts}
        findings += _parts(ctx, provider, spec, cluster, looked)
    return CheckResult(spec.provider, tuple(findings))


def _cloud(ctx: Context, provider: Provider, spec: ClusterSpec, cluster: Cluster) -> Iterator[CheckLine]:
    """What the cloud would sell, to whom; machines that do not exist yet cannot be asked."""
    living = ctx.store.resources(cluster.id)
    try:
        nodes = wanted_nodes(spec, cluster, living)
        told = provider.preflight(spec)
        more = max(0, nodes - machines_of(living))
        quoted = quoted_cluster(provider, spec, cluster, nodes=nodes, more=more)
    except RainDeployError as error:
        yield CheckLine(spec.provider, "refused", error.message, error)
        return
    yield CheckLine("credentials", "ok", "accepted, and the clock here is right")
    for sentence in (*told, *sentences(ctx, spec, quoted, nodes=nodes, more=more)):
        yield CheckLine(spec.provider, "ok", sentence)


def _subject(host: Host) -> str:
    return f"{host.name} {host.label}".strip()


def _host(host: Host, facts: Facts) -> CheckLine:
    rights = "root" if facts.uid == 0 else "sudo" if facts.sudo else "no root"
    memory = f"{facts.memory_bytes >> 20} MiB of memory"
    text = f"{facts.cpus} CPUs, {memory}, glibc {facts.glibc}, {rights}"
    return CheckLine(_subject(host), "ok", text)


def _parts(
    ctx: Context,
    provider: Provider,
    spec: ClusterSpec,
    cluster: Cluster,
    looked: Mapping[Host, Facts],
) -> Iterator[CheckLine]:
    """Yield what each node would get or be refused, from the very list that ``up`` works through."""
    try:
        grown = len(looked) != len(cluster.nodes)
        environment, _ = known_environment(ctx, spec, cluster)
        cluster = assign(ctx, provider, spec, cluster, looked)
    except RainDeployError as error:
        yield CheckLine(spec.provider, "refused", error.message, error)
        return
    yield CheckLine(spec.provider, "ok", f"everything of ours would lie under {cluster.base}")
    shared = shared_of(ctx, provider, spec, cluster, environment, grown=grown)
    every = parts(shared)
    subjects = {host.name: _subject(host) for host in looked}
    nodes = cluster.nodes[:1] if provider.traits.shared_machine else cluster.nodes
    for node in nodes:
        reasons = lacking(every, node)
        for reason in reasons:
            yield CheckLine(subjects[node.name], "change", reason)
        if not reasons:
            yield CheckLine(subjects[node.name], "ok", "nothing is lacking")
    for refused in refusals(every, nodes):
        subject = subjects.get(refused.node or "", spec.provider)
        yield CheckLine(subject, "refused", refused.message, refused)
