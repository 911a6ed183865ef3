"""The second half of ``up``: software on every node, then services, each a stage over one exec per host."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.machines import survivors
from rain_deploy.cluster.stages import run_stages, try_stages
from rain_deploy.core.cluster import Cluster, Node
from rain_deploy.core.command import Command
from rain_deploy.core.environment import ResolvedEnvironment
from rain_deploy.core.machine import Facts
from rain_deploy.core.spec import ClusterSpec, EngineSpec
from rain_deploy.core.step import PayloadFile, Stage, Step
from rain_deploy.errors import InputError, InstallFailed
from rain_deploy.parts.cache import EngineCache
from rain_deploy.parts.code import code_bundle, code_step
from rain_deploy.parts.engine import engine_key, engine_steps, install_command
from rain_deploy.parts.environment import environment_digest, environment_steps
from rain_deploy.parts.services import layout_of
from rain_deploy.parts.uv import uv_pin, uv_program
from rain_deploy.providers.base import Provider

ENGINE_DEADLINE_S = 300.0
INSTALL_DEADLINE_S = 3600.0
"""A first build on a slow machine, with its downloads."""


def refuse_what_cannot_be_installed(cluster: Cluster, environment: ResolvedEnvironment) -> None:
    """Raises InputError before anything is changed on any node."""
    facts = facts_of(cluster)
    for node in cluster.nodes:
        fact = facts[node.name]
        if fact.arch != "x86_64":
            raise InputError(f"it is {fact.arch}; nodes are x86-64 Linux", node=node.name)
        if (environment.apt or environment.setup) and not fact.root:
            raise InputError(
                f"`apt` and `setup` need root, and {fact.user} has neither root nor passwordless sudo there",
                node=node.name,
                next_step="leave apt and setup out, or use an account with root",
            )


def _may_build(provider: Provider, server: Node, facts: Facts) -> None:
    if facts.missing_tools and not (provider.traits.installs_packages and facts.root):
        raise InstallFailed(
            f"no Rain engine is cached, and its build lacks {', '.join(facts.missing_tools)}",
            node=server.name,
            next_step=f"sudo {install_command(facts.missing_tools)}",
        )
    if not facts.python:
        raise InstallFailed("there is no Python 3.11", node=server.name, next_step="install Python 3.11")


@dataclass(frozen=True, slots=True)
class Needs:
    """What is to be had on every node."""

    environment: ResolvedEnvironment
    engine: EngineSpec
    binary: bytes | None
    """The engine, where it is cached here."""
    uv: bytes | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """What an installation will do, as values: a dry run prints it, ``install`` does it."""

    cluster: Cluster
    """With digests of what it will have; no ``engine_sha256`` where the server node makes the engine."""
    stages: Mapping[str, Stage]
    """By node, for those that lack something."""
    needs: Needs


def prepare(
    ctx: Context, spec: ClusterSpec, cluster: Cluster, environment: ResolvedEnvironment, *, fetch: bool
) -> Prepared:
    """Decide who lacks what.  ``fetch`` False (dry run): nothing is brought from a network."""
    facts = facts_of(cluster)
    server = facts[cluster.server.name]
    found = EngineCache(ctx.home).find(engine_key(spec.engine), server.arch, _oldest_glibc(facts))
    sha256 = cluster.engine_sha256
    if not sha256 or layout_of(cluster).engine(sha256) not in server.have:
        sha256 = found[0] if found else ""
    cluster = replace(
        cluster,
        env_digest=environment_digest(environment),
        code_digest=code_bundle().digest,
        engine_sha256=sha256,
    )
    lacking = [node for node in cluster.nodes if not _has_all(cluster, facts[node.name])]
    binary = found[1] if found and found[0] == sha256 else None
    if binary is None and fetch:
        binary = _from_server(ctx, cluster, facts)
    needs = Needs(
        environment,
        spec.engine,
        binary=binary,
        uv=uv_program(ctx.home, uv_pin()) if lacking and fetch else None,
    )
    return Prepared(cluster, {n.name: _stage(cluster, n, facts[n.name], needs) for n in lacking}, needs)


def install(
    ctx: Context,
    provider: Provider,
    spec: ClusterSpec,
    cluster: Cluster,
    environment: ResolvedEnvironment,
) -> tuple[Cluster, tuple[str, ...]]:
    """Engine, environment and node code on every node that lacks one of them.

    Returns the cluster with what it now has, and a sentence for each thing that was changed.
    """
    prepared = prepare(ctx, spec, cluster, environment, fetch=True)
    cluster = prepared.cluster
    facts = facts_of(cluster)
    server = facts[cluster.server.name]
    if not cluster.engine_sha256:
        _may_build(provider, cluster.server, server)
    outcomes = try_stages(ctx, cluster, "install", prepared.stages)
    left = survivors(ctx, spec, tuple(node.name for node in cluster.nodes), outcomes)
    left_out = tuple(node for node in cluster.nodes if node.name not in left)
    cluster = replace(
        cluster,
        nodes=tuple(node for node in cluster.nodes if node.name in left),
        left_out=(*cluster.left_out, *left_out),
    )
    reports = outcomes.values
    if not cluster.engine_sha256:
        (sha256,) = reports[cluster.server.name].values("engine")
        cluster = replace(cluster, engine_sha256=sha256)
        binary = _fetch_engine(ctx, cluster)
        EngineCache(ctx.home).store(engine_key(spec.engine), server.arch, server.glibc, binary)
        if not provider.traits.shared_machine:
            _hand_on(ctx, cluster, facts, replace(prepared.needs, binary=binary))
    lines = tuple(f"{name}: {step}" for name, report in reports.items() for step in report.changed)
    return _with_all(cluster), lines


def facts_of(cluster: Cluster) -> dict[str, Facts]:
    """Facts of every node, by name; of a cluster whose hosts were looked at."""
    return {node.name: node.facts for node in cluster.nodes if node.facts}


def _all_of(cluster: Cluster) -> tuple[str, ...]:
    layout = layout_of(cluster)
    return (
        layout.engine(cluster.engine_sha256),
        f"{layout.environment(cluster.env_digest)}/.ok",
        f"{layout.code(cluster.code_digest)}/__main__.py",
    )


def _has_all(cluster: Cluster, facts: Facts) -> bool:
    return set(_all_of(cluster)) <= set(facts.have)


def _with_all(cluster: Cluster) -> Cluster:
    """The cluster with facts that know what was installed."""
    nodes = []
    for node in cluster.nodes:
        facts = node.facts
        have = tuple(dict.fromkeys((*(facts.have if facts else ()), *_all_of(cluster))))
        nodes.append(replace(node, facts=replace(facts, have=have) if facts else None))
    return replace(cluster, nodes=tuple(nodes))


def _stage(cluster: Cluster, node: Node, facts: Facts, needs: Needs) -> Stage:
    """Code, engine and environment; the server node makes the engine when it is not known yet."""
    layout = layout_of(cluster)
    code, code_payload = code_step(layout, code_bundle())
    environment, environment_payload = environment_steps(layout, facts, needs.environment, uv=needs.uv)
    engine: tuple[Step, ...] = ()
    engine_payload: tuple[PayloadFile, ...] = ()
    if cluster.engine_sha256 or node is cluster.server:
        engine, engine_payload = engine_steps(
            layout, facts, needs.engine, sha256=cluster.engine_sha256 or None, binary=needs.binary
        )
    return Stage(
        "install",
        (code, *_one_row(engine, environment)),
        (*code_payload, *engine_payload, *environment_payload),
        deadline_s=INSTALL_DEADLINE_S,
        installs=True,
    )


def _one_row(engine: tuple[Step, ...], environment: tuple[Step, ...]) -> tuple[Step, ...]:
    """Both in one row, so that the engine's build and the environment's run at the same time."""
    first = (*engine[:-1], *environment[:-1])
    return (*(replace(step, parallel=False) for step in first), *engine[-1:], *environment[-1:])


def _hand_on(ctx: Context, cluster: Cluster, facts: dict[str, Facts], needs: Needs) -> None:
    """The engine that the server node made, to the others."""
    layout = layout_of(cluster)
    stages = {}
    for node in cluster.nodes[1:]:
        steps, payload = engine_steps(
            layout,
            facts[node.name],
            needs.engine,
            sha256=cluster.engine_sha256,
            binary=needs.binary,
        )
        stages[node.name] = Stage("engine", steps, payload)
    run_stages(ctx, cluster, "engine", stages)


def _from_server(ctx: Context, cluster: Cluster, facts: dict[str, Facts]) -> bytes | None:
    """The engine for nodes that lack it, where only the server node has it."""
    path = layout_of(cluster).engine(cluster.engine_sha256)
    lacking = [name for name, fact in facts.items() if path not in fact.have]
    return _fetch_engine(ctx, cluster) if lacking and cluster.engine_sha256 else None


def _fetch_engine(ctx: Context, cluster: Cluster) -> bytes:
    path = layout_of(cluster).engine(cluster.engine_sha256)
    command = Command(("cat", "--", path), deadline_s=ENGINE_DEADLINE_S)
    binary = ctx.transport.run(cluster.server.host, command).stdout
    if hashlib.sha256(binary).hexdigest() != cluster.engine_sha256:
        raise InstallFailed("the engine that was built did not arrive whole", node=cluster.server.name)
    return binary


def _oldest_glibc(facts: dict[str, Facts]) -> str:
    return min((fact.glibc for fact in facts.values()), key=lambda v: [int(n) for n in v.split(".") if n])
