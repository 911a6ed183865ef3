"""New host keys for machines that we made: the key that travelled in user-data is used once and dies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.stages import run_stages
from rain_deploy.core.cluster import Cluster, Node
from rain_deploy.fleet.fanout import fan_out
from rain_deploy.parts.host_key import NEW_KEY, SSH_DIRECTORY, new_host_key_stage, switch_host_key_stage


def replace_host_keys(ctx: Context, cluster: Cluster, *, directory: str = SSH_DIRECTORY) -> Cluster:
    """The cluster with the keys that its machines made themselves, pinned on record.

    Both keys are on record before a machine changes, so that one of them fits whenever this is broken off.
    Machines that we did not make are left alone.  Raises HostKeyError, Unreachable, InstallFailed.
    """
    names = [node.name for node in cluster.nodes if _is_due(node)]
    if not names:
        return cluster
    stage = new_host_key_stage(directory)
    reports = run_stages(ctx, cluster, stage.name, dict.fromkeys(names, stage))
    new = {name: report.values(NEW_KEY)[0] for name, report in reports.items()}
    both = {node.name: (node.host.host_keys[0], new[node.name]) for node in cluster.nodes if node.name in new}
    cluster = _with_keys(cluster, both)
    ctx.store.save_cluster(cluster)
    stages = {name: switch_host_key_stage(key, directory) for name, key in new.items()}
    run_stages(ctx, cluster, "switch host key", stages)
    cluster = _with_keys(cluster, {name: (key,) for name, key in new.items()})
    hosts = tuple(node.host for node in cluster.nodes if node.name in new)
    fan_out(hosts, ctx.transport.connect).require()
    ctx.store.save_cluster(cluster)
    return cluster


def _is_due(node: Node) -> bool:
    """A machine whose mark says that it is ours, with its first key, or where a switch was broken off."""
    facts = node.facts
    if facts is None or not (facts.marked and facts.root and facts.systemd):
        return False
    return facts.one_time_host_key or len(node.host.host_keys) > 1


def _with_keys(cluster: Cluster, keys: Mapping[str, tuple[str, ...]]) -> Cluster:
    nodes = tuple(
        replace(node, host=replace(node.host, host_keys=keys.get(node.name, node.host.host_keys)))
        for node in cluster.nodes
    )
    return replace(cluster, nodes=nodes)
