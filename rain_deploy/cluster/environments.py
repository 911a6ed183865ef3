"""Which environment a cluster gets: resolved once, kept in state, reused until the user asks for another."""

from __future__ import annotations

from rain_deploy.cluster.context import Context
from rain_deploy.core.cluster import Cluster
from rain_deploy.core.environment import ResolvedEnvironment
from rain_deploy.core.events import Notice
from rain_deploy.core.spec import ClusterSpec, EnvironmentSpec
from rain_deploy.parts.environment import check_packages, node_lock
from rain_deploy.parts.resolve import asked, resolve


def decide_environment(ctx: Context, spec: ClusterSpec, cluster: Cluster) -> ResolvedEnvironment:
    """The kept environment, unless the user names other contents or ``--upgrade``.

    Raises InputError for what cannot be read or resolved; nothing was changed then.
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
