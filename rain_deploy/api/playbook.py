"""Run the tasks of Ansible's role ``rain_node``: the parts of ``up``, one part and one host at a time.

Each task runs for one host, in a process of its own, and makes its own plan.  The facts of all hosts are in
their Ansible variables.  Ansible's connection to the host is the transport.
"""

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from rain_deploy.api.call import called
from rain_deploy.cluster.apply import make
from rain_deploy.cluster.context import Context
from rain_deploy.cluster.hosts import ask_facts, assign, question, run_stages
from rain_deploy.cluster.install import keep_engine, planned_hosts, shared_of
from rain_deploy.cluster.plan import Plan, plan_up
from rain_deploy.cluster.seen import Seen, completed, look
from rain_deploy.core.cluster import Cluster, Node
from rain_deploy.core.machine import Host
from rain_deploy.core.spec import ClusterSpec, EnvironmentSpec
from rain_deploy.core.step import Stage
from rain_deploy.errors import HostKeyError, InputError, Unreachable
from rain_deploy.fleet.fanout import SshExecutor, StageReport
from rain_deploy.parts.facts import facts_text, parse_facts
from rain_deploy.parts.listed import parts
from rain_deploy.parts.part import Part, Shared, facts_of, refusals
from rain_deploy.parts.services import (
    Services,
    config_stage,
    proof_step,
    services_step,
)
from rain_deploy.parts.shell import checks_command
from rain_deploy.parts.software import Code, Engine, Environment, node_lock
from rain_deploy.parts.supply.cache import uv_pin, uv_program
from rain_deploy.parts.supply.resolve import asked
from rain_deploy.parts.wall import Wall
from rain_deploy.transport.base import Transport

PARTS: Mapping[str, type[Part]] = {
    "code": Code,
    "environment": Environment,
    "engine": Engine,
    "wall": Wall,
    "services": Services,
}
"""The parts that the role has a task for, in the order of ``up``; our own machines' first parts are not."""
VERB = "ansible"  # who holds the cluster, for messages


@dataclass(frozen=True, slots=True)
class Done:
    """The answer of a task to Ansible."""

    changed: tuple[str, ...] = ()  # a sentence for each thing that was changed, or would be
    facts: str = ""  # what is known of the host now, as text for its variables; empty: nothing new
    lines: tuple[str, ...] = ()  # what else there is to read


@dataclass(frozen=True, slots=True)
class Task:
    """One task of a play, for the host that is ``name``."""

    ctx: Context  # its transport and executor are Ansible's connection, which reaches this host alone
    own: Transport  # rain-deploy's own, by which later commands reach the hosts
    spec: ClusterSpec
    name: str
    names: tuple[str, ...]  # of all nodes that the play is for
    known: Mapping[str, str]  # node name -> what is known of it, as text
    check: bool  # only report what would be changed
    discard_results: bool = False

    # ---- What is planned

    def plan(self, *, ask: bool = False, resolve: bool = False) -> Plan:
        """Return the plan of ``up``.  Machines that rain-deploy makes are never made or deleted by a play.

        Requirements are resolved by ``judge`` alone; the other tasks take what it has kept.
        """
        ctx, spec, wish = self.ctx, self.spec, self.spec.environment
        provider, cluster = ctx.provider_for(spec.provider), ctx.store.cluster(spec.name)
        if not self._owned:
            if not resolve:
                spec = replace(spec, environment=replace(wish, upgrade=False))
            return plan_up(provider, look(ctx, spec, preflight=ask, resolve=resolve))
        kept = ctx.store.environment(cluster.id) if cluster else None
        if cluster is None or not cluster.up or kept is None or wish != EnvironmentSpec():
            message = (
                f"a play creates no machines of provider {spec.provider}, and does not change their packages"
            )
            raise InputError(message, next_step=f"rain-deploy up -c {spec.name}")
        resources = ctx.store.resources(cluster.id)
        spec, now_s = completed(spec, cluster, resources), time.time()
        seen = Seen(spec, cluster, recorded=True, resources=resources, now_s=now_s, environment=kept[1])
        return Plan(seen, cluster)

    def hosts(self, plan: Plan) -> tuple[Host, ...]:
        """Return the hosts of all nodes, the server first."""
        if self._owned:
            return tuple(node.host for node in plan.cluster.nodes)
        return planned_hosts(self.ctx.provider_for(plan.cluster.provider), plan)

    def shared(self, plan: Plan) -> Shared:
        """Return what the parts are made from.  Raises InputError where a host was not looked at."""
        hosts = self.hosts(plan)
        if missing := [host.title for host in hosts if host.name not in self.known]:
            message = f"nothing is known yet of {', '.join(missing)}"
            raise InputError(message, next_step="play for all hosts of the cluster at once")
        found = {host: parse_facts(host, self.known[host.name]) for host in hosts}
        shared = shared_of(self.ctx, plan, assign(self.ctx, plan.seen.spec, plan.cluster, found))
        environment = Environment(shared)
        if not self.check and any(map(environment.lacks, shared.cluster.nodes)):
            return replace(shared, uv=uv_program(self.ctx.home, uv_pin()))
        return shared

    # ---- What the tasks do

    def look(self) -> Done:
        """Look at the host.  Raises what ``up`` refuses of the host alone.

        rain-deploy must reach the same machine as Ansible, because it runs the scripts later.
        """
        plan = self.plan(ask=True)
        hosts = self.hosts(plan)
        host = next(host for host in hosts if host.name == self.name)
        command = question(plan.seen, plan.cluster, host, hosts[0])
        facts = ask_facts(self.ctx.transport, host, command)
        try:
            same = ask_facts(self.own, host, command)
        except (Unreachable, HostKeyError) as error:
            error.message = f"Ansible reaches it, and rain-deploy does not: {error.message}"
            error.next_step = error.next_step or "give its user, key and jump host in ~/.ssh/config"
            raise
        if (facts.machine_id, facts.hostname) != (same.machine_id, same.hostname):
            message = f"{host.title}: Ansible reaches {facts.hostname} there, and rain-deploy {same.hostname}"
            raise InputError(message, node=host.name, next_step="give its address and jump in ~/.ssh/config")
        alone = assign(self.ctx, plan.seen.spec, replace(plan.cluster, nodes=()), {host: facts})
        shared = shared_of(self.ctx, plan, alone)
        self._refuse((Environment(shared), *((Engine(shared),) if host is hosts[0] else ())), alone)
        return Done(facts=facts_text(facts))

    def judge(self) -> Done:
        """Raise what ``up`` refuses of the hosts together.  On the server node, resolve the requirements."""
        plan = self.plan()
        resolving = self.name == self.hosts(plan)[0].name and self._is_asked(plan)
        if resolving and not self.check:
            plan = self.plan(resolve=True)
        shared = self.shared(plan)
        self._refuse(parts(shared), shared.cluster)
        return Done(("the requirements will be resolved",) if resolving and self.check else ())

    def keep(self) -> Done:
        """Record the cluster before anything is installed, so that ``down`` knows where to look.

        One that is up stays usable as it is if this play fails; its new nodes count as left out until then.
        """
        plan = self.plan()
        before, cluster = self.ctx.store.cluster(self.spec.name), self.shared(plan).cluster
        old = {node.name for node in before.every_node} if before else set()
        new = tuple(node for node in cluster.nodes if node.name not in old)
        if not self.check:
            with self.ctx.change(self.spec.name, VERB) as record:
                if before is None:
                    record.save(plan.cluster)
                if not self._owned:
                    make(self.ctx, record, plan)
                if before is None or not before.up:
                    record.save(cluster)
                else:
                    record.change(left_out=(*before.left_out, *new))
        return Done(tuple(f"{node.name} of cluster {cluster.name} is recorded" for node in new))

    def bring(self, part: str) -> Done:
        """Bring the host one of PARTS."""
        shared = self._lasting()
        found = next((each for each in parts(shared) if isinstance(each, PARTS[part])), None)
        node = self.node_of(shared.cluster)
        reason = found.lacks(node) if found else None
        if found is None or not reason:
            return Done()
        stage = config_stage(shared.cluster, node) if part == "services" else found.stage(node)
        if self.check:
            if stage.payload:
                return Done((reason,))
            asking = checks_command(stage, shared.cluster.base)  # facts do not say what is lacking
            lacking = self.ctx.transport.run(node.host, asking).stdout.strip()
            return Done((reason,) if lacking else ())
        if part == "engine" and shared.binary is None:
            message = f"the engine is on {shared.cluster.server.name} alone, and not cached on this machine"
            raise InputError(message, next_step=f"rain-deploy up -c {self.spec.name}")
        report = self.run(shared.cluster, stage)
        if part == "services":  # ``start`` follows, and until then they are lacking
            return Done((reason,))
        return Done(report.changed, facts_text(facts_of(found.done(node))))

    def engine(self) -> Done:
        """Make the engine on the server node where none is known; keep it here, for the other nodes."""
        shared = self._lasting()
        cluster, node, part = shared.cluster, self.node_of(shared.cluster), Engine(shared)
        if cluster.engine_sha256:
            return Done()
        if self.check:
            return Done((part.lacks(node) or "",))
        report = self.run(cluster, part.stage(node))
        with self.ctx.change(self.spec.name, VERB) as record:
            made = keep_engine(self.ctx, record, shared, report)
        return Done(("the Rain engine was made",), facts_text(facts_of(self.node_of(made.cluster))))

    def start(self) -> Done:
        """Start the host's services, or restart them where their configuration has changed."""
        if self.check:  # ``bring`` has reported it
            return Done()
        shared = self._lasting()
        node, services = self.node_of(shared.cluster), Services(shared.cluster, grown=shared.grown)
        report = self.run(shared.cluster, Stage("start", (services_step(shared.cluster, node),)))
        started = tuple(f"started {service}" for service in report.values("started"))
        return Done(started, facts_text(facts_of(services.done(node))))

    def ready(self) -> Done:
        """Wait until every governor is registered in Rain, and record that the cluster can run scripts."""
        before, cluster = self.ctx.store.cluster(self.spec.name), self._lasting().cluster
        if not self.check and not facts_of(cluster.server).active_run:
            self.run(cluster, Stage("start", (proof_step(cluster),)))
        cluster = replace(cluster, up=True)
        if before and _without_facts(before) == _without_facts(cluster):
            return Done()
        if not self.check:
            with self.ctx.change(self.spec.name, VERB) as record:
                record.save(cluster)
                for node in cluster.nodes:
                    self.ctx.store.save_facts(node)
        return Done((f"cluster {cluster.name} is recorded as up",))

    # ---- How

    @property
    def _owned(self) -> bool:
        """True where rain-deploy makes and deletes the machines."""
        return self.ctx.provider_for(self.spec.provider).traits.owned

    def _lasting(self) -> Shared:
        """Return what the parts are made from.  Raises InputError if the cluster was taken down meanwhile."""
        if not self.check and self.ctx.store.cluster(self.spec.name) is None:
            message = f"cluster {self.spec.name} is no longer recorded: it was deleted during this play"
            raise InputError(message, next_step="play again")
        return self.shared(self.plan())

    def _is_asked(self, plan: Plan) -> bool:
        """Return True where other packages are wished for than those that are kept."""
        wish, kept = self.spec.environment, self.ctx.store.environment(plan.cluster.id)
        as_kept = kept is not None and (wish == EnvironmentSpec() or kept[0] == asked(wish, node_lock()))
        return not self._owned and (wish.upgrade or not as_kept)

    def node_of(self, cluster: Cluster) -> Node:
        """Return the node that this host is."""
        return next(node for node in cluster.every_node if node.name == self.name)

    def _refuse(self, every: tuple[Part, ...], cluster: Cluster) -> None:
        for error in refusals(every, cluster.nodes):
            if error.node in {None, self.name}:
                raise error

    def run(self, cluster: Cluster, stage: Stage) -> StageReport:
        """Run a stage on this host."""
        return run_stages(self.ctx, cluster, {self.name: stage}).require()[self.name]


T = TypeVar("T", bound=Task)


@contextlib.contextmanager
def task(
    settings: Mapping[str, Any],
    transport: Transport,
    *,
    name: str,
    names: tuple[str, ...],
    known: Mapping[str, str],
    check: bool,
    kind: type[T],
    discard_results: bool = False,
) -> Iterator[T]:
    """Yield the task of one host.  ``settings``: keywords of ``rain_deploy.up``.  Raises what these do."""
    with called("up", **settings) as call:
        ctx, own = replace(call.ctx, transport=transport, executor=SshExecutor(transport)), call.ctx.transport
        spec = call.cluster_spec(must_be_named=False)
        yield kind(ctx, own, spec, name, names, known, check, discard_results)


def _without_facts(cluster: Cluster) -> Cluster:
    """Return the cluster without what is looked up anew each time, such as free disk space."""
    return cluster.with_nodes(lambda node: replace(node, facts=None))
