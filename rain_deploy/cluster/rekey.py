"""New host keys for machines that we made: the key that travelled in user-data is used once and dies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.stages import run_stages
from rain_deploy.core.cluster import Cluster
from rain_deploy.fleet.fanout import fan_out
from rain_deploy.parts.host_key import NEW_KEY, HostKey
from rain_deploy.parts.part import after, stages_of


def rekey(ctx: Context, cluster: Cluster, part: HostKey) -> Cluster:
    """Return the cluster with the host keys that its machines made themselves, pinned on record.

    Both keys are on record before a machine changes, so that one of them fits whenever this is interrupted.
    Raises HostKeyError, Unreachable, InstallFailed.
    """
    stages = stages_of((part,), cluster.nodes)
    if not stages:
        return cluster
    reports = run_stages(ctx, cluster, part.stage_name, stages)
    new = {name: report.values(NEW_KEY)[0] for name, report in reports.items()}
    old = {node.name: node.host.host_keys[0] for node in cluster.nodes}
    cluster = _with_keys(cluster, {name: (old[name], key) for name, key in new.items()})
    ctx.store.save_cluster(cluster)
    switches = {name: part.switch(key) for name, key in new.items()}
    run_stages(ctx, cluster, "switch host key", switches)
    cluster = _with_keys(cluster, {name: (key,) for name, key in new.items()})
    hosts = tuple(node.host for node in cluster.nodes if node.name in new)
    fan_out(hosts, ctx.transport.connect).require()
    nodes = tuple(after((part,), node) if node.name in new else node for node in cluster.nodes)
    cluster = replace(cluster, nodes=nodes)
    ctx.store.save_cluster(cluster)
    return cluster


def _with_keys(cluster: Cluster, keys: Mapping[str, tuple[str, ...]]) -> Cluster:
    nodes = tuple(
        replace(node, host=replace(node.host, host_keys=keys.get(node.name, node.host.host_keys)))
        for node in cluster.nodes
    )
    return replace(cluster, nodes=nodes)
