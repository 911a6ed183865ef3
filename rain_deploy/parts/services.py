"""Our code and our services on nodes: how they get there, and what starts, asks and stops them."""

from __future__ import annotations

import functools
import hashlib
import ipaddress
import json
import re
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from rain_deploy.core.cluster import Cluster, Node
from rain_deploy.core.layout import HTTP_PORT, IDLE_PORT, RUN_PORTS, Layout
from rain_deploy.core.step import Command, PayloadFile, Stage, Step
from rain_deploy.node.wire import ClusterConfig, Member, NodeConfig, to_json
from rain_deploy.parts.part import Part, Shared, facts_of, having
from rain_deploy.parts.shell import PACKAGE, step
from rain_deploy.parts.wall import wall_removal_step

PROBE_DEADLINE_S = 60
"""How long the governors may take to register after ``up`` started them."""


class CodeBundle(NamedTuple):
    """Files relative to ``layout.code(digest)``."""

    digest: str
    files: tuple[PayloadFile, ...]


@functools.cache
def code_bundle() -> CodeBundle:
    """Return the node code of this installation: node/, the companion, and the launcher."""
    node, companion = PACKAGE / "node", PACKAGE / "companion"
    places = [("__main__.py", node / "launch.py")]
    places += [(f"node/{path.relative_to(node)}", path) for path in sorted(node.rglob("*.py"))]
    places += [(f"site/rain_deploy_companion/{path.name}", path) for path in sorted(companion.glob("*.py"))]
    files = tuple(PayloadFile(place, path.read_bytes()) for place, path in places)
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.path} {len(file.data)}\n".encode() + file.data)
    return CodeBundle(digest.hexdigest()[:16], files)


@dataclass(frozen=True, slots=True)
class Code(Part):
    """The node code, placed by its digest."""

    shared: Shared
    stage_name = "install"

    @property
    def _main(self) -> str:
        return f"{self.shared.layout.code(code_bundle().digest)}/__main__.py"

    def lacks(self, node: Node) -> str | None:
        return None if self._main in facts_of(node).have else "the node code will be sent"

    def stage(self, node: Node) -> Stage:
        """Place the bundle by rename: nodes that share a machine may do it at once."""
        del node
        digest, files = code_bundle()
        directory = self.shared.layout.code(digest)
        steps = (step("node code", "code.sh.j2", directory=directory, makes=self._main),)
        return Stage(self.stage_name, steps, tuple(PayloadFile(f"code/{f.path}", f.data) for f in files))

    def done(self, node: Node) -> Node:
        return having(node, self._main)


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
        names = " and ".join(self._names(node))
        return f"{names} will be configured and started" if node.name in self._stale else None

    def stage(self, node: Node) -> Stage:
        return start_stage(self._cluster, node, probe=not facts_of(self._cluster.server).active_run)

    def done(self, node: Node) -> Node:
        facts = facts_of(node)
        running = tuple(dict.fromkeys((*facts.running, *self._names(node))))
        sha256 = hashlib.sha256(_node_config(self._cluster, node)).hexdigest()
        return replace(node, facts=replace(facts, node_config_sha256=sha256, running=running))

    def _names(self, node: Node) -> tuple[str, ...]:
        return ("governor", "supervisor") if node.name == self._cluster.server.name else ("governor",)


def layout_of(cluster: Cluster) -> Layout:
    """Return the paths of this cluster on its nodes."""
    return Layout(cluster.base, cluster.id)


def node_argv(cluster: Cluster, verb: str, *args: str) -> tuple[str, ...]:
    """Return the argument vector of a verb of our node code."""
    layout = layout_of(cluster)
    python = f"{layout.environment(cluster.env_digest)}/bin/python"
    return (python, layout.code(cluster.code_digest), verb, *args)


def node_command(cluster: Cluster, verb: str, *args: str, deadline_s: float | None = 60.0) -> Command:
    """Return a verb of our node code as a command."""
    return Command(node_argv(cluster, verb, *args), deadline_s=deadline_s)


def start_stage(cluster: Cluster, node: Node, *, probe: bool) -> Stage:
    """Return the stage that configures and starts one node.

    With ``probe``, the server's stage waits, through Rain's own client, until all governors are registered.
    """
    layout, server, count = layout_of(cluster), cluster.server, len(cluster.nodes)
    node_dir = layout.node(node.host.index)
    payload = [PayloadFile("node.json", _node_config(cluster, node))]
    steps = [_placed(payload[0], node_dir)]
    ensure = node_argv(cluster, "ensure", node_dir)
    if node.name == server.name:
        members = (
            Member(name=each.name, address=each.cluster_address, governor_port=each.governor_port)
            for each in cluster.nodes
        )
        payload.append(PayloadFile("cluster.json", _json(ClusterConfig(nodes=tuple(members)))))
        steps.append(_placed(payload[1], layout.server))
        ensure = (*ensure, "--supervisor", layout.cluster)
    started = f'started=$({shlex.join(ensure)})\nfor s in $started; do data started "$s"; done'
    steps.append(Step("services", act=started))
    if node.name == server.name and probe:
        words = (server.cluster_address, str(IDLE_PORT), "--expect", str(count))
        ask = node_argv(cluster, "probe", *words, "--deadline", str(PROBE_DEADLINE_S))
        steps.append(Step(f"{count} governor{'s' * (count > 1)} registered", act=shlex.join(ask)))
    return Stage("start", tuple(steps), tuple(payload), deadline_s=PROBE_DEADLINE_S + 60)


def _placed(file: PayloadFile, directory: str) -> Step:
    """Return the step that puts a small file of the payload into ``directory`` if it differs."""
    makes, sha256 = f"{directory}/{file.path}", hashlib.sha256(file.data).hexdigest()
    return step(file.path, "file.sh.j2", makes=makes, sha256=sha256, source=file.path)


def _node_config(cluster: Cluster, node: Node) -> bytes:
    """Return node.json of one node."""
    layout, index = layout_of(cluster), node.host.index
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
    return _json(config)


def _json(message: NodeConfig | ClusterConfig) -> bytes:
    """Return a file's content, one key a line: shell text on the nodes reads it too."""
    return json.dumps(to_json(message), indent=1, sort_keys=True).encode()


def stop_stage(cluster: Cluster, node: Node) -> Stage:
    """Return the stage that ends the services of one node and proves that nothing of them runs or listens."""
    service = f"{cluster.id}/{node.host.index}"
    config = f"{layout_of(cluster).node(node.host.index)}/node.json"
    steps = [step("processes", "stop.sh.j2", service=service, node_config=config)]
    if re.fullmatch(r"[0-9a-fA-F.:]+", node.cluster_address):
        of_server = (IDLE_PORT, HTTP_PORT, *RUN_PORTS) if node is cluster.server else ()
        listed = "|".join(f"{port:04X}" for port in (node.governor_port, *of_server))
        packed = ipaddress.ip_address(node.cluster_address).packed
        own = "".join(packed[i : i + 4][::-1].hex().upper() for i in range(0, len(packed), 4))
        pattern = f"^ *[0-9]+: ({own}|{'0' * len(own)}):({listed}) [0-9A-F]+:[0-9A-F]+ 0A "
        steps.append(step("ports", "ports.sh.j2", address=node.cluster_address, pattern=pattern))
    return Stage("stop", tuple(steps), deadline_s=60.0)


def remove_stage(cluster: Cluster, *, wall: bool) -> Stage:
    """Return the stage that removes the cluster's packet filter and files from one host; caches stay.

    It comes after the services of all nodes have ended: several nodes may be one machine.
    """
    files = step("files", "remove.sh.j2", directory=layout_of(cluster).cluster)
    walls = (wall_removal_step(cluster.id),) if wall else ()
    return Stage("remove", (*walls, files), deadline_s=120.0)
