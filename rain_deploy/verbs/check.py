"""``check``: what ``up`` would install or refuse, looked up without changing anything."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.hosts import ask_facts, assign, question
from rain_deploy.cluster.install import planned_hosts, shared_of
from rain_deploy.cluster.plan import Plan, plan_up
from rain_deploy.cluster.seen import look, viewed
from rain_deploy.core.events import Result
from rain_deploy.core.machine import Facts, Host
from rain_deploy.core.spec import ClusterSpec
from rain_deploy.core.text import count
from rain_deploy.errors import InputError, RainDeployError
from rain_deploy.fleet.fanout import fan_out
from rain_deploy.parts.listed import parts
from rain_deploy.parts.part import lacking, refusals


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
    """Return findings in the order in which ``up`` would meet them; what it would refuse has an error."""
    provider = ctx.provider_for(spec.provider)
    try:
        with viewed(ctx, spec.provider):
            plan = plan_up(provider, look(ctx, spec, resolve=False))
        hosts = () if provider.cloud else planned_hosts(provider, plan)  # rented machines do not exist yet
    except RainDeployError as error:
        return CheckResult(spec.provider, (_refused(spec.provider, error),))
    account, accepted = plan.seen.account, CheckLine("credentials", "ok", "accepted; the clock here is right")
    if account and account.silent:
        accepted = _refused("credentials", account.silent)
    findings = (
        *((accepted,) if account else ()),
        *(CheckLine(spec.provider, "ok", sentence) for sentence in (*plan.seen.sentences, *plan.offer)),
        *_wall(plan),
        *(_hosts(ctx, plan, hosts) if hosts else ()),
    )
    return CheckResult(spec.provider, findings)


def _wall(plan: Plan) -> Iterator[CheckLine]:
    """Yield who reaches the machines, unless the offer says it, and what ``up`` would repair."""
    reach = plan.seen.reach
    for sentence in reach.opens if reach and not plan.offer else ():
        yield CheckLine("security group", "ok", sentence)
    for repair in plan.repairs:
        yield CheckLine("security group", "change", repair)


def _hosts(ctx: Context, plan: Plan, hosts: tuple[Host, ...]) -> Iterator[CheckLine]:
    """Yield what is found on machines that exist.  Of one that all nodes share, one node is shown."""
    shared = ctx.provider_for(plan.cluster.provider).traits.shared_machine
    asked, transport = (hosts[:1], ctx.local) if shared else (hosts, ctx.transport)
    outcomes = fan_out(
        asked, lambda host: ask_facts(transport, host, question(plan.seen, plan.cluster, host, hosts[0]))
    )
    for host in asked:
        if failed := outcomes.errors.get(host.name):
            yield _refused(_subject(host), failed)
            continue
        facts = outcomes.values[host.name]
        rights = "root" if facts.uid == 0 else "sudo" if facts.sudo else "no root"
        memory = f"{facts.memory_bytes >> 20} MiB of memory"
        found = f"{count(facts.cpus, 'CPU')}, {memory}, glibc {facts.glibc}, {rights}"
        yield CheckLine(_subject(host), "ok", found)
    if not outcomes.errors:
        one = outcomes.values[asked[0].name]
        every = {host: outcomes.values.get(host.name, one) for host in hosts}
        recorded = {node.name: node.facts for node in plan.cluster.nodes if shared}
        for host, facts in every.items():  # what is recorded of a node is not asked of the machine
            if known := recorded.get(host.name):
                running, config = known.running, known.node_config_sha256
                every[host] = replace(facts, node_config_sha256=config, running=running)
        yield from _parts(ctx, plan, every, len(asked))


def _parts(ctx: Context, plan: Plan, facts: Mapping[Host, Facts], shown: int) -> Iterator[CheckLine]:
    """Yield what each node would get or be refused, from the very list that ``up`` works through."""
    try:
        cluster = assign(ctx, plan.seen.spec, plan.cluster, facts)
    except RainDeployError as error:
        yield _refused(plan.cluster.provider, error)
        return
    yield CheckLine(plan.cluster.provider, "ok", f"everything will be placed below {cluster.base}")
    every = parts(shared_of(ctx, plan, cluster))
    subjects = {host.name: _subject(host) for host in facts}
    for node in cluster.nodes:
        reasons = lacking(every, node)
        for reason in reasons:
            yield CheckLine(subjects[node.name], "change", reason)
        if not reasons:
            yield CheckLine(subjects[node.name], "ok", "nothing is missing")
    for refused in refusals(every, cluster.nodes[:shown]):  # a machine that they share is refused once
        yield _refused(subjects.get(refused.node or "", plan.cluster.provider), refused)


def _refused(subject: str, error: RainDeployError) -> CheckLine:
    return CheckLine(subject, "refused", error.message, error)


def _subject(host: Host) -> str:
    return f"{host.name} {host.label}".strip()
