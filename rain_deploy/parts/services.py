"""Our services on nodes: their configuration, and the commands that start, ask and stop them."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

from rain_deploy.core.cluster import Cluster, Node
from rain_deploy.core.layout import HTTP_PORT, IDLE_PORT, RUN_PORTS, Layout
from rain_deploy.core.step import Command, PayloadFile, Stage, Step
from rain_deploy.node.wire import ClusterConfig, Member, NodeConfig, to_json
from rain_deploy.parts.part import Part, facts_of
from rain_deploy.parts.shell import file_step, render
from rain_deploy.parts.wall import wall_removal_step

PROBE_DEADLINE_S = 60
"""How long the governors may take to register after ``up`` started them."""


class Services(Part):
    """Governor and, on the server node, supervisor; with the proof through Rain that all governors are there.

    Whenever any node is not as it should be, the server's stage runs too, because it has the proof.
    """

    stage_name = "start"

    def __init__(self, cluster: Cluster, *, grown: bool) -> None:
        """``grown``: the cluster got another number of nodes, which the server has to learn."""
        self._cluster = cluster
        self._stale = {node.name for node in cluster.nodes if self.done(node) != node}
        if self._stale or grown:
            self._stale.add(cluster.server.name)

    def lacks(self, node: Node) -> str | None:
        if node.name not in self._stale:
            return None
        return f"{' and '.join(self._names(node))} will be configured and started"

    def stage(self, node: Node) -> Stage:
        active = facts_of(self._cluster.server).active_run
        return start_stage(self._cluster, node, probe=not active)

    def done(self, node: Node) -> Node:
        facts = facts_of(node)
        running = tuple(dict.fromkeys((*facts.running, *self._names(node))))
        sha256 = node_config_sha256(self._cluster, node)
        return replace(node, facts=replace(facts, node_config_sha256=sha256, running=running))

    def _names(self, node: Node) -> tuple[str, ...]:
        return ("governor", "supervisor") if node.name == self._cluster.server.name else ("governor",)


def layout_of(cluster: Cluster) -> Layout:
    """Return the paths of this cluster on its nodes."""
    return Layout(cluster.base, cluster.id)


def node_config(cluster: Cluster, node: Node) -> bytes:
    """Return node.json of one node."""
    layout = layout_of(cluster)
    index = node.host.index
    config = NodeConfig(
        node_dir=Path(layout.node(index)),
        cluster_dir=Path(layout.cluster),
        name=node.name,
        service=f"{cluster.id}/{index}",
        env=Path(layout.environment(cluster.env_digest)),
        engine=Path(layout.engine(cluster.engine_sha256)),
        code=Path(layout.code(cluster.code_digest)),
        address=node.cluster_address,
        governor_port=node.governor_port,
        server_address=cluster.server.cluster_address,
        idle_port=IDLE_PORT,
        http_port=HTTP_PORT,
        cpus=node.cpus,
        server=index == cluster.server.host.index,
    )
    return _text(config)


def node_config_sha256(cluster: Cluster, node: Node) -> str:
    """Return the digest of node.json that the facts of an up-to-date node have."""
    return hashlib.sha256(node_config(cluster, node)).hexdigest()


def cluster_config(cluster: Cluster) -> bytes:
    """Return cluster.json of the server node."""
    members = (
        Member(name=node.name, address=node.cluster_address, governor_port=node.governor_port)
        for node in cluster.nodes
    )
    return _text(ClusterConfig(nodes=tuple(members)))


def _text(message: NodeConfig | ClusterConfig) -> bytes:
    """Return a file's content, one key a line: shell text on the nodes reads it too."""
    return json.dumps(to_json(message), indent=1, sort_keys=True).encode()


def node_argv(cluster: Cluster, verb: str, *args: str) -> tuple[str, ...]:
    """Return the argument vector of a verb of our node code."""
    layout = layout_of(cluster)
    python = f"{layout.environment(cluster.env_digest)}/bin/python"
    return (python, layout.code(cluster.code_digest), verb, *args)


def node_command(cluster: Cluster, verb: str, *args: str, deadline_s: float | None = 60.0) -> Command:
    """Return a verb of our node code as a command."""
    return Command(node_argv(cluster, verb, *args), deadline_s=deadline_s)


def start_stage(cluster: Cluster, node: Node, *, probe: bool) -> Stage:
    """Return the stage that configures and starts one node; the server's has the proof through Rain."""
    layout, is_server = layout_of(cluster), node.name == cluster.server.name
    node_dir = layout.node(node.host.index)
    payload = [PayloadFile("node.json", node_config(cluster, node))]
    steps = [file_step(payload[0], f"{node_dir}/node.json")]
    ensure = node_argv(cluster, "ensure", node_dir)
    if is_server:
        payload.append(PayloadFile("cluster.json", cluster_config(cluster)))
        steps.append(file_step(payload[1], f"{layout.server}/cluster.json"))
        ensure = (*ensure, "--supervisor", layout.cluster)
    started = f'started=$({shlex.join(ensure)})\nfor s in $started; do data started "$s"; done'
    steps.append(Step(name="services", act=started))
    if is_server and probe:
        steps.append(probe_step(cluster))
    return Stage("start", tuple(steps), tuple(payload), deadline_s=PROBE_DEADLINE_S + 60)


def probe_step(cluster: Cluster) -> Step:
    """Return the step that waits, through Rain's own client, until all governors are registered."""
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


def listening_pattern(address: str, ports: tuple[int, ...]) -> str:
    """Return a pattern (ERE) for lines of /proc/net/tcp and tcp6 that listen at the address or at any."""
    packed = ipaddress.ip_address(address).packed
    words = [packed[i : i + 4] for i in range(0, len(packed), 4)]
    own = "".join(word[::-1].hex().upper() for word in words)
    every = "0" * len(own)
    listed = "|".join(f"{port:04X}" for port in ports)
    return f"^ *[0-9]+: ({own}|{every}):({listed}) [0-9A-F]+:[0-9A-F]+ 0A "


def stop_stage(cluster: Cluster, node: Node) -> Stage:
    """Return the stage that ends the services of one node and proves that nothing of them runs or listens."""
    service = f"{cluster.id}/{node.host.index}"
    config = f"{layout_of(cluster).node(node.host.index)}/node.json"
    steps = [Step("processes", act=render("stop.sh.j2", service=service, node_config=config))]
    if re.fullmatch(r"[0-9a-fA-F.:]+", node.cluster_address):
        ports = (node.governor_port,)
        if node is cluster.server:
            ports = (*ports, IDLE_PORT, HTTP_PORT, *RUN_PORTS)
        pattern = shlex.quote(listening_pattern(node.cluster_address, ports))
        look = f"! cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | grep -qE {pattern}"
        absent = shlex.quote(f"listening Rain ports on {node.cluster_address} (/proc/net/tcp)")
        steps.append(Step("ports", act=f"data absent {absent}", verify=look))
    return Stage("stop", tuple(steps), deadline_s=60.0)


def remove_stage(cluster: Cluster, *, wall: bool) -> Stage:
    """Return the stage that removes the cluster's packet filter and files from one host; caches stay.

    It comes after the services of all nodes have ended: several nodes may be one machine.
    """
    directory = shlex.quote(layout_of(cluster).cluster)
    absent = shlex.quote(f"files under {layout_of(cluster).cluster}")
    step = Step("files", act=f"rm -rf -- {directory}\ndata absent {absent}", verify=f"[ ! -e {directory} ]")
    walls = (wall_removal_step(cluster.id),) if wall else ()
    return Stage("remove", (*walls, step), deadline_s=120.0)
