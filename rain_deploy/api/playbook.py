"""What the tasks of Ansible's role ``rain_node`` do: the parts of ``up``, one part and one host at a time.

Each task runs for one host, in a process of its own, and plans anew.  What was found of the hosts before is
in their variables.  Ansible's connection to the host is the transport.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from rain_deploy.api.call import called
from rain_deploy.cluster.apply import make
from rain_deploy.cluster.context import Context
from rain_deploy.cluster.destroy import forget
from rain_deploy.cluster.hosts import ask_facts, assign, question, run_stages
from rain_deploy.cluster.install import keep_engine, planned_hosts, shared_of
from rain_deploy.cluster.plan import Plan, plan_up
from rain_deploy.cluster.seen import Seen, completed, look
from rain_deploy.core.cluster import Cluster, Node
from rain_deploy.core.machine import Host
from rain_deploy.core.spec import ClusterSpec
from rain_deploy.core.step import Stage
from rain_deploy.errors import InputError
from rain_deploy.fleet.fanout import SshExecutor, StageReport
from rain_deploy.parts.facts import facts_text, parse_facts
from rain_deploy.parts.listed import parts
from rain_deploy.parts.part import Part, Shared, facts_of, refusals
from rain_deploy.parts.services import (
    Services,
    config_stage,
    proof_step,
    remove_stage,
    services_step,
    stop_stage,
)
from rain_deploy.parts.shell import checks_command
from rain_deploy.parts.software import Code, Engine, Environment
from rain_deploy.parts.supply.cache import uv_pin, uv_program
from rain_deploy.parts.wall import Wall
from rain_deploy.runs.finish import end_records, pull_all
from rain_deploy.transport.base import Transport

PARTS: Mapping[str, type[Part]] = {
    "code": Code,
    "environment": Environment,
    "engine": Engine,
    "wall": Wall,
    "services": Services,
}
"""The parts that the role has a task for, in the order of ``up``; our own machines' first parts are not."""


@dataclass(frozen=True, slots=True)
class Done:
    """What a task tells Ansible."""

    changed: tuple[str, ...] = ()  # a sentence for each thing that was changed, or would be
    facts: str = ""  # what is known of the host now, as text for its variables; empty: nothing new
    lines: tuple[str, ...] = ()  # what else there is to read


@dataclass(frozen=True, slots=True)
class Task:
    """One task of a play, for the host that is ``name``."""

    ctx: Context
    spec: ClusterSpec
    name: str
    known: Mapping[str, str]  # node name -> what is known of it, as text
    check: bool  # change nothing, and tell what would be changed
    options: Mapping[str, bool]

    # ---- What is planned

    def plan(self, *, ask: bool = False, resolve: bool = False) -> Plan:
        """Return the plan of ``up``.  Machines that rain-deploy makes are never made or deleted by a play."""
        ctx, spec = self.ctx, self.spec
        provider, cluster = ctx.provider_for(spec.provider), ctx.store.cluster(spec.name)
        if not provider.traits.owned:
            return plan_up(provider, look(ctx, spec, preflight=ask, resolve=resolve))
        kept = ctx.store.environment(cluster.id) if cluster else None
        if cluster is None or not cluster.up or kept is None:
            message = (
                f"cluster {spec.name} is not up, and a play makes no machines of provider {spec.provider}"
            )
            raise InputError(message, next_step=f"rain-deploy up -c {spec.name}")
        resources = ctx.store.resources(cluster.id)
        spec = completed(spec, cluster, resources)
        return Plan(
            Seen(spec, cluster, recorded=True, resources=resources, now_s=time.time(), environment=kept[1]),
            cluster,
        )

    def hosts(self, plan: Plan) -> tuple[Host, ...]:
        """Return the hosts of all nodes, the server first."""
        provider = self.ctx.provider_for(plan.cluster.provider)
        if provider.traits.owned:
            return tuple(node.host for node in plan.cluster.nodes)
        return planned_hosts(provider, plan)

    def shared(self, plan: Plan) -> Shared:
        """Return what the parts are made from."""
        hosts = self.hosts(plan)
        if missing := [host.title for host in hosts if host.name not in self.known]:
            message = f"nothing is known yet of {', '.join(missing)}"
            raise InputError(message, next_step="play for all hosts of the cluster at once, without --limit")
        found = {host: parse_facts(host, self.known[host.name]) for host in hosts}
        shared = shared_of(self.ctx, plan, assign(self.ctx, plan.seen.spec, plan.cluster, found))
        environment = Environment(shared)
        if not self.check and any(map(environment.lacks, shared.cluster.nodes)):
            return replace(shared, uv=uv_program(self.ctx.home, uv_pin()))
        return shared

    def node(self, cluster: Cluster) -> Node:
        return next(node for node in cluster.every_node if node.name == self.name)

    # ---- What the tasks do

    def look(self) -> Done:
        """Look at the host.  Raises what ``up`` refuses of the host alone."""
        plan = self.plan(ask=True)
        hosts = self.hosts(plan)
        host = next(host for host in hosts if host.name == self.name)
        facts = ask_facts(self.ctx.transport, host, question(plan.cluster, host, hosts[0]))
        alone = assign(self.ctx, plan.seen.spec, replace(plan.cluster, nodes=()), {host: facts})
        shared = shared_of(self.ctx, plan, alone)
        self._refuse((Environment(shared), *((Engine(shared),) if host is hosts[0] else ())), alone)
        return Done(facts=facts_text(facts))

    def judge(self) -> Done:
        """Raise what ``up`` refuses of the hosts together."""
        shared = self.shared(self.plan(resolve=self.name == self._server))
        self._refuse(parts(shared), shared.cluster)
        return Done()

    def keep(self, *, up: bool = False) -> Done:
        """Record the cluster, so that rain-deploy knows it; ``up``: from now on it can run scripts."""
        with self.ctx.change(self.spec.name, "ansible") as record:
            plan = self.plan(resolve=True)
            before = record.cluster if record.known else None
            if before is None and self.check:
                return Done((f"cluster {self.spec.name} will be recorded",))
            if before is None:
                record.save(plan.cluster)
            if not self.check and not self.ctx.provider_for(plan.cluster.provider).traits.owned:
                make(self.ctx, record, plan)
            cluster = self.shared(plan).cluster
            cluster = replace(cluster, up=up or cluster.up)
            if before and _without_facts(before) == _without_facts(cluster):
                return Done()
            if not self.check:
                record.save(cluster)
                for node in cluster.nodes:
                    self.ctx.store.save_facts(node)
        return Done((f"cluster {cluster.name} is recorded as {'up' if cluster.up else 'not up yet'}",))

    def ready(self) -> Done:
        return self.keep(up=True)

    def bring(self, part: str) -> Done:
        """Bring the host one of PARTS."""
        shared = self.shared(self.plan())
        found = next((each for each in parts(shared) if isinstance(each, PARTS[part])), None)
        node = self.node(shared.cluster)
        reason = found.lacks(node) if found else None
        if found is None or not reason:
            return Done()
        stage = config_stage(shared.cluster, node) if part == "services" else found.stage(node)
        if not stage.payload:  # its checks alone tell what is lacking
            reason = reason if self._lacking(shared, stage) else None
        if self.check or not reason:
            return Done((reason,) if reason else ())
        if part == "engine" and shared.binary is None:
            message = f"the engine is on {shared.cluster.server.name} alone, and not cached on this machine"
            raise InputError(message, next_step=f"rain-deploy up -c {self.spec.name}")
        report = self._run(shared.cluster, stage)
        if part == "services":  # its processes follow, and until then they are lacking
            return Done((reason,))
        return Done(report.changed, facts_text(facts_of(found.done(node))))

    def engine(self) -> Done:
        """Make the engine on the server node where none is known; keep it here, for the other nodes."""
        shared = self.shared(self.plan())
        cluster, node = shared.cluster, self.node(shared.cluster)
        part = Engine(shared)
        if cluster.engine_sha256:
            return Done()
        if self.check:
            return Done((part.lacks(node) or "",))
        report = self._run(cluster, part.stage(node))
        with self.ctx.change(self.spec.name, "ansible") as record:
            made = keep_engine(self.ctx, record, shared, report)
        return Done(("the Rain engine was made",), facts_text(facts_of(self.node(made.cluster))))

    def start(self) -> Done:
        """Start the host's services, or restart them where their configuration has changed."""
        if self.check:  # the task before has told what will be started
            return Done()
        shared = self.shared(self.plan())
        node = self.node(shared.cluster)
        report = self._run(shared.cluster, Stage("start", (services_step(shared.cluster, node),)))
        services = Services(shared.cluster, grown=shared.grown)
        started = tuple(f"started {service}" for service in report.values("started"))
        return Done(started, facts_text(facts_of(services.done(node))))

    def prove(self) -> Done:
        """Wait until every governor is registered in Rain; while a run is active, nothing is asked."""
        cluster = self.shared(self.plan()).cluster
        if not self.check and not facts_of(cluster.server).active_run:
            self._run(cluster, Stage("start", (proof_step(cluster),)))
        return Done()

    # ---- The way back

    def results(self) -> Done:
        """Pull the results that are not here yet.  Raises UsageError while a run is active, PullFailed."""
        if self._recorded is None or self.options.get("discard_results") or self.check:
            return Done()
        with self.ctx.change(self.spec.name, "ansible") as record:
            pulled = pull_all(self.ctx, record, None) if record.cluster.up else ()
        return Done(tuple(f"pulled {run}" for run in pulled))

    def stop(self) -> Done:
        """End all services of the host, and prove it."""
        return self._ended(stop_stage, "its processes are ended")

    def remove(self) -> Done:
        """Remove files and packet filter of the host; caches stay."""

        def stage(cluster: Cluster, _node: Node) -> Stage:
            wall = self.ctx.provider_for(cluster.provider).traits.needs_wall
            return remove_stage(cluster, wall=wall)

        return self._ended(stage, "its files and packet filter table are removed")

    def forget(self) -> Done:
        """Forget the cluster: nothing of it is left on any host."""
        if self._recorded is None or self.check:
            return Done(("the cluster is forgotten",) if self._recorded else ())
        with self.ctx.change(self.spec.name, "ansible") as record:
            cluster = record.cluster.whole
            _, verified = forget(self.ctx, record)
            end_records(self.ctx, cluster)
        return Done(("the cluster is forgotten",), lines=(verified,))

    # ---- How

    @property
    def _recorded(self) -> Cluster | None:
        cluster = self.ctx.store.cluster(self.spec.name)
        if cluster and self.ctx.provider_for(cluster.provider).traits.owned:
            message = (
                f"cluster {cluster.name} is of provider {cluster.provider}, whose machines a play leaves"
            )
            raise InputError(message, next_step=f"rain-deploy down -c {cluster.name}")
        return cluster

    @property
    def _server(self) -> str:
        return self.hosts(self.plan())[0].name

    def _refuse(self, every: tuple[Part, ...], cluster: Cluster) -> None:
        for error in refusals(every, cluster.nodes):
            if error.node in {None, self.name}:
                raise error

    def _run(self, cluster: Cluster, stage: Stage) -> StageReport:
        return run_stages(self.ctx, cluster, {self.name: stage}).require()[self.name]

    def _lacking(self, shared: Shared, stage: Stage) -> bool:
        host = self.node(shared.cluster).host
        return bool(self.ctx.transport.run(host, checks_command(stage, shared.cluster.base)).stdout.strip())

    def _ended(self, stage: Callable[[Cluster, Node], Stage], what: str) -> Done:
        cluster = self._recorded
        if cluster is None or self.check:
            return Done((what,) if cluster else ())
        cluster = cluster.whole
        report = self._run(cluster, stage(cluster, self.node(cluster)))
        return Done((what,), lines=tuple(f"{self.name}: no {line}" for line in report.values("absent")))


@contextlib.contextmanager
def task(
    settings: Mapping[str, Any],
    transport: Transport,
    *,
    name: str,
    known: Mapping[str, str],
    check: bool,
    options: Mapping[str, bool],
) -> Iterator[Task]:
    """Yield the task of one host.  ``settings``: keywords of ``rain_deploy.up``.  Raises what these do."""
    with called("up", **settings) as call:
        ctx = replace(call.ctx, transport=transport, executor=SshExecutor(transport))
        yield Task(ctx, call.cluster_spec(must_be_named=False), name, known, check, options)


def _without_facts(cluster: Cluster) -> Cluster:
    """Return the cluster without what is looked up anew each time, such as free disk space."""
    return cluster.with_nodes(lambda node: replace(node, facts=None))
