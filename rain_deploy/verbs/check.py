"""``check``: what ``up`` would install or refuse, looked up without changing anything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.machines import assign, new_cluster, question, remembering, wanted_nodes
from rain_deploy.cluster.offering import machines_of, quoted_cluster, sentences
from rain_deploy.cluster.starting import wall_stages
from rain_deploy.core.cluster import Cluster
from rain_deploy.core.machine import Facts, Host
from rain_deploy.core.result import Result
from rain_deploy.core.spec import ClusterSpec
from rain_deploy.errors import (
    InputError,
    RainDeployError,
)
from rain_deploy.fleet.reach import gather_facts
from rain_deploy.parts.cache import EngineCache
from rain_deploy.parts.engine import build_packages, engine_key, install_command
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


DISK_BYTES = 6 << 30
"""An environment with TensorFlow, the engine's build, and room for work."""


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
            findings += _host(ctx, provider, spec, host, outcomes.values[host.name])
    if not outcomes.errors:
        one = outcomes.values[seen[0].name]
        looked = {host: outcomes.values.get(host.name, one) for host in hosts}
        findings += _together(ctx, provider, spec, cluster, looked)
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


def _host(
    ctx: Context, provider: Provider, spec: ClusterSpec, host: Host, facts: Facts
) -> Iterator[CheckLine]:
    subject = _subject(host)
    rights = "root" if facts.uid == 0 else "sudo" if facts.sudo else "no root"
    told = f"{facts.cpus} CPUs, {facts.memory_bytes >> 20} MiB of memory, glibc {facts.glibc}, {rights}"
    if facts.arch != "x86_64":
        yield CheckLine(subject, "refused", f"it is {facts.arch}; nodes are x86-64 Linux")
    yield CheckLine(subject, "ok", told)
    if not facts.python:
        yield CheckLine(subject, "change", "no Python 3.11: uv would bring one")
    if facts.disk_free_bytes < DISK_BYTES:
        yield CheckLine(
            subject,
            "refused",
            f"{facts.disk_free_bytes >> 20} MiB of disk are free; {DISK_BYTES >> 20} are needed",
        )
    if not any(path.endswith("/.ok") for path in facts.have):
        yield CheckLine(subject, "change", "the Python environment would be installed (2 GB of disk)")
    if host.index == 1:
        yield _engine(ctx, provider, spec, subject, facts)


def _engine(ctx: Context, provider: Provider, spec: ClusterSpec, subject: str, facts: Facts) -> CheckLine:
    if any(path.endswith("/rain") for path in facts.have):
        return CheckLine(subject, "ok", "the Rain engine is there")
    if EngineCache(ctx.home).find(engine_key(spec.engine), facts.arch, facts.glibc):
        return CheckLine(subject, "change", "the Rain engine would be sent from the cache here")
    if spec.engine.url:
        return CheckLine(subject, "change", f"the Rain engine would be downloaded from {spec.engine.url}")
    if not facts.missing_tools:
        return CheckLine(subject, "change", "the Rain engine would be built (3 to 5 minutes)")
    if provider.traits.installs_packages and facts.root:
        names = ", ".join(build_packages(facts.missing_tools))
        return CheckLine(subject, "change", f"{names} would be installed, and the Rain engine built")
    text = f"the build of the Rain engine lacks {', '.join(facts.missing_tools)}"
    error = InputError(text, node=subject, next_step=f"sudo {install_command(facts.missing_tools)}")
    return CheckLine(subject, "refused", text, error)


def _together(
    ctx: Context,
    provider: Provider,
    spec: ClusterSpec,
    cluster: Cluster,
    looked: Mapping[Host, Facts],
) -> Iterator[CheckLine]:
    """What depends on all hosts at once: one directory for all, and who reaches the Rain ports."""
    try:
        cluster = assign(ctx, provider, spec, cluster, looked)
        walls = wall_stages(provider, cluster, spec.machines.trust_networks)
    except RainDeployError as error:
        yield CheckLine(spec.provider, "refused", error.message, error)
        return
    yield CheckLine(spec.provider, "ok", f"everything of ours would lie under {cluster.base}")
    if walls:
        yield CheckLine(spec.provider, "change", "a packet filter table of ours would close the Rain ports")
