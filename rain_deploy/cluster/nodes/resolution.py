"""Which environment a cluster gets: resolved once, kept in state, reused until the user asks for another."""

from __future__ import annotations

from rain_deploy.cluster.context import Context
from rain_deploy.core.cluster import Cluster
from rain_deploy.core.events import Notice
from rain_deploy.core.spec import ClusterSpec, EnvironmentSpec, ResolvedEnvironment
from rain_deploy.parts.environment import check_packages, node_lock
from rain_deploy.parts.supply.resolve import asked, resolve, unresolved


def decide_environment(ctx: Context, spec: ClusterSpec, cluster: Cluster) -> ResolvedEnvironment:
    """Return the kept environment, unless the user names other contents or ``--upgrade``.

    Raises InputError, before anything is changed, for what cannot be read or resolved.
    """
    wanted = spec.environment
    check_packages(wanted.apt)
    kept = ctx.store.environment(cluster.id)
    named = wanted != EnvironmentSpec(upgrade=wanted.upgrade)
    if kept and not named and not wanted.upgrade:
        return kept[1]
    question = asked(wanted, node_lock())
    if kept and kept[0] == question and not wanted.upgrade:
        return kept[1]
    if wanted.requirements or wanted.packages or wanted.wheels:
        ctx.emit(Notice("resolving the requirements"))
    environment = resolve(wanted, node_lock())
    ctx.store.save_environment(cluster.id, question, environment)
    return environment


def known_environment(ctx: Context, spec: ClusterSpec, cluster: Cluster) -> tuple[ResolvedEnvironment, bool]:
    """Return the environment as far as it is known without the network, and True if that is all of it.

    Without a kept one it is our own set, with the user's ``apt`` and ``setup`` but not their requirements.
    """
    wanted = spec.environment
    check_packages(wanted.apt)
    kept = ctx.store.environment(cluster.id)
    if kept and not wanted.upgrade:
        return kept[1], True
    complete = not (wanted.upgrade or wanted.requirements or wanted.packages or wanted.wheels)
    return unresolved(wanted, node_lock()), complete
