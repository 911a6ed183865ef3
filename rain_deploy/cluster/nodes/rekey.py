"""New host keys for machines that we made: the key that travelled in user-data is used once and dies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.nodes.stages import run_stages
from rain_deploy.core.cluster import Cluster, Node
from rain_deploy.fleet.fanout import fan_out
from rain_deploy.parts.machine import NEW_KEY, HostKey
from rain_deploy.parts.part import after, stages_of
from rain_deploy.state.store import Record


def rekey(ctx: Context, record: Record, part: HostKey) -> Cluster:
    """Return the cluster with the host keys that its machines made themselves, pinned on record.

    Both keys are on record before a machine changes, so that one of them fits whenever this is interrupted.
    Raises HostKeyError, Unreachable, InstallFailed.
    """
    cluster = record.cluster
    stages = stages_of((part,), cluster.nodes)
    if not stages:
        return cluster
    reports = run_stages(ctx, cluster, part.stage_name, stages)
    new = {name: report.values(NEW_KEY)[0] for name, report in reports.items()}
    old = {node.name: node.host.host_keys[0] for node in cluster.nodes}
    cluster = record.change_nodes(_keyed({name: (old[name], key) for name, key in new.items()}))
    run_stages(ctx, cluster, "switch host key", {name: part.switch(key) for name, key in new.items()})
    pinned = _keyed({name: (key,) for name, key in new.items()})
    hosts = tuple(pinned(node).host for node in cluster.nodes if node.name in new)
    fan_out(hosts, ctx.transport.connect).require()
    return record.change_nodes(lambda node: after((part,), pinned(node)) if node.name in new else node)


def _keyed(keys: Mapping[str, tuple[str, ...]]) -> Callable[[Node], Node]:
    def keyed(node: Node) -> Node:
        host_keys = keys.get(node.name, node.host.host_keys)
        return replace(node, host=replace(node.host, host_keys=host_keys))

    return keyed
