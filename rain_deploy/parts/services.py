"""Our services on nodes: their configuration, and the commands that start, ask and end them."""

from __future__ import annotations

import hashlib
import json
import shlex

from rain_deploy.core.cluster import Cluster, Node
from rain_deploy.core.command import Command
from rain_deploy.core.layout import HTTP_PORT, IDLE_PORT, Layout
from rain_deploy.core.step import PayloadFile, Stage, Step
from rain_deploy.parts.steps import file_step

PROBE_DEADLINE_S = 60
"""For all governors to register after ``up`` started them."""


def layout_of(cluster: Cluster) -> Layout:
    """Paths of this cluster on its nodes."""
    return Layout(cluster.base, cluster.id)


def node_config(cluster: Cluster, node: Node) -> bytes:
    """node.json of one node: all that node code is told."""
    layout = layout_of(cluster)
    index = node.host.index
    config = {
        "cluster": cluster.id,
        "node": index,
        "name": node.name,
        "service": f"{cluster.id}/{index}",
        "env": layout.environment(cluster.env_digest),
        "engine": layout.engine(cluster.engine_sha256),
        "code": layout.code(cluster.code_digest),
        "node_dir": layout.node(index),
        "cluster_dir": layout.cluster,
        "address": node.cluster_address,
        "governor_port": node.governor_port,
        "server_address": cluster.server.cluster_address,
        "idle_port": IDLE_PORT,
        "http_port": HTTP_PORT,
        "cpus": node.cpus,
        "server": index == cluster.server.host.index,
    }
    return json.dumps(config, indent=1, sort_keys=True).encode()


def node_config_sha256(cluster: Cluster, node: Node) -> str:
    """What the facts of an up-to-date node report."""
    return hashlib.sha256(node_config(cluster, node)).hexdigest()


def cluster_config(cluster: Cluster) -> bytes:
    """cluster.json of the server node: whom its supervisor waits for."""
    nodes = [
        {
            "node": node.host.index,
            "name": node.name,
            "address": node.cluster_address,
            "governor_port": node.governor_port,
        }
        for node in cluster.nodes
    ]
    return json.dumps({"nodes": nodes}, indent=1).encode()


def node_argv(cluster: Cluster, verb: str, *args: str) -> tuple[str, ...]:
    """Argument vector of a verb of our node code."""
    layout = layout_of(cluster)
    python = f"{layout.environment(cluster.env_digest)}/bin/python"
    return (python, layout.code(cluster.code_digest), verb, *args)


def node_command(cluster: Cluster, verb: str, *args: str, deadline_s: float | None = 60.0) -> Command:
    """A verb of our node code as a command."""
    return Command(node_argv(cluster, verb, *args), deadline_s=deadline_s)


def start_stage(cluster: Cluster, node: Node, *, probe: bool) -> Stage:
    """Configuration and services of one node; on the server also the proof through Rain itself."""
    layout = layout_of(cluster)
    node_dir = layout.node(node.host.index)
    payload = [PayloadFile("node.json", node_config(cluster, node))]
    steps = [file_step("node.json", f"{node_dir}/node.json")]
    ensure = node_argv(cluster, "ensure", node_dir)
    if node is cluster.server:
        payload.append(PayloadFile("cluster.json", cluster_config(cluster)))
        steps.append(file_step("cluster.json", f"{layout.server}/cluster.json"))
        ensure = (*ensure, "--supervisor", layout.cluster)
    started = f'started=$({shlex.join(ensure)})\nfor s in $started; do data started "$s"; done'
    steps.append(Step(name="services", act=started))
    if node is cluster.server and probe:
        steps.append(probe_step(cluster))
    return Stage("start", tuple(steps), tuple(payload), deadline_s=PROBE_DEADLINE_S + 60)


def probe_step(cluster: Cluster) -> Step:
    """All governors are registered at the idle server, seen through Rain's own client."""
    argv = node_argv(
        cluster,
        "probe",
        cluster.server.cluster_address,
        str(IDLE_PORT),
        "--expect",
        str(len(cluster.nodes)),
        "--deadline",
        str(PROBE_DEADLINE_S),
    )
    count = len(cluster.nodes)
    return Step(name=f"{count} governor{'s' * (count > 1)} registered", act=shlex.join(argv))
