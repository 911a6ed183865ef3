"""Our services on nodes: their configuration, what starts and stops them, and the runs that they get."""

import hashlib
import ipaddress
import os
import re
import shlex
from dataclasses import replace
from pathlib import Path

from rain_deploy.core.cluster import Cluster, Node
from rain_deploy.core.layout import HTTP_PORT, IDLE_PORT, RUN_PORTS, Layout
from rain_deploy.core.run import RunRecord, Shipment
from rain_deploy.core.spec import NODE_PYTHON_TEXT, RunSpec
from rain_deploy.core.step import Command, PayloadFile, Stage, Step
from rain_deploy.node.wire import RESTARTS, ClusterConfig, Member, NodeConfig, RunDescription, to_json
from rain_deploy.parts.part import Part, facts_of
from rain_deploy.parts.shell import json_file, step
from rain_deploy.parts.wall import wall_removal_step

PROBE_DEADLINE_S = 60  # how long the governors may take to register after ``up`` started them


class Services(Part):
    """Governor; on the server node, supervisor and the proof through Rain that all governors are there."""

    stage_name = "start"

    def __init__(self, cluster: Cluster, *, grown: bool) -> None:
        """``grown``: the cluster got another number of nodes, which the server has to learn."""
        self._cluster = cluster
        self._stale = {node.name for node in cluster.nodes if self.done(node) != node}
        if self._stale or grown:  # the server's stage has the proof
            self._stale.add(cluster.server.name)

    def lacks(self, node: Node) -> str | None:
        names = " and ".join(self._names(node)).replace("supervisor", "runner")  # as users know it
        return f"{names} will be configured and started" if node.name in self._stale else None

    def stage(self, node: Node) -> Stage:
        return start_stage(self._cluster, node, probe=not facts_of(self._cluster.server).active_run)

    def done(self, node: Node) -> Node:
        facts = facts_of(node)
        running = tuple(dict.fromkeys((*facts.running, *self._names(node))))
        sha256 = hashlib.sha256(_node_config(self._cluster, node).data).hexdigest()
        return replace(node, facts=replace(facts, node_config_sha256=sha256, running=running))

    def _names(self, node: Node) -> tuple[str, ...]:
        return ("governor", "supervisor") if node.name == self._cluster.server.name else ("governor",)


def node_argv(cluster: Cluster, verb: str, *args: str, node: Node | None = None) -> tuple[str, ...]:
    """Return the argument vector of a verb of our node code; the server node's if ``node`` is None.

    The host's own Python runs it, without packages, so that damage to the environment cannot keep results
    back or hide what runs.
    """
    facts = (node or cluster.server).facts
    python = (facts and facts.python) or _environment_python(cluster)
    return (python, "-I", "-S", cluster.layout.code(cluster.code_digest), verb, *args)


def _environment_python(cluster: Cluster) -> str:
    return f"{cluster.layout.environment(cluster.env_digest)}/bin/python"


def node_command(
    cluster: Cluster,
    verb: str,
    *args: str,
    node: Node | None = None,
    deadline_s: float | None = 60.0,
    stdin: bytes | None = None,
) -> Command:
    """Return a verb of our node code as a command."""
    return Command(node_argv(cluster, verb, *args, node=node), stdin, deadline_s)


def start_stage(cluster: Cluster, node: Node, *, probe: bool) -> Stage:
    """Return the stage that starts one node; with ``probe``, the server's waits for all governors in Rain."""
    proof = (proof_step(cluster),) if node.name == cluster.server.name and probe else ()
    config = config_stage(cluster, node)
    return replace(config, steps=(*config.steps, services_step(cluster, node), *proof))


def config_stage(cluster: Cluster, node: Node) -> Stage:
    """Return the stage that places the configuration of a node's services, and starts nothing."""
    layout = cluster.layout
    payload = [_node_config(cluster, node)]
    steps = [_placed(payload[0], layout.node(node.host.index))]
    if node.name == cluster.server.name:
        members = (
            Member(name=each.name, address=each.cluster_address, governor_port=each.governor_port)
            for each in cluster.nodes
        )
        payload.append(json_file("cluster.json", to_json(ClusterConfig(nodes=tuple(members)))))
        steps.append(_placed(payload[1], layout.server))
    return Stage("start", tuple(steps), tuple(payload), deadline_s=PROBE_DEADLINE_S + 60)


def services_step(cluster: Cluster, node: Node) -> Step:
    """Return the step that starts what does not run, or not as configured; it reports each as ``started``."""
    supervisor = ("--supervisor", cluster.layout.cluster) if node.name == cluster.server.name else ()
    ensure = node_argv(cluster, "ensure", cluster.layout.node(node.host.index), *supervisor, node=node)
    started = f'started=$({shlex.join(ensure)})\nfor s in $started; do data started "$s"; done'
    return Step("services", act=started)


def proof_step(cluster: Cluster) -> Step:
    """Return the step of the server node that waits until all governors are registered in Rain."""
    count = len(cluster.nodes)
    words = (cluster.server.cluster_address, str(IDLE_PORT), "--expect", str(count))
    code = cluster.layout.code(cluster.code_digest)
    # It asks through Rain's client, which is in the environment.
    ask = (_environment_python(cluster), code, "probe", *words, "--deadline", str(PROBE_DEADLINE_S))
    return Step(f"{count} governor{'s' * (count > 1)} registered", act=shlex.join(ask))


def _placed(file: PayloadFile, directory: str) -> Step:
    """Return the step that puts a small file of the payload into ``directory`` if it differs."""
    makes, sha256 = f"{directory}/{file.path}", hashlib.sha256(file.data).hexdigest()
    return step(file.path, "file.sh.j2", makes=makes, sha256=sha256, source=file.path)


def _node_config(cluster: Cluster, node: Node) -> PayloadFile:
    layout, index = cluster.layout, node.host.index
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
    return json_file("node.json", to_json(config))


def stop_stage(cluster: Cluster, node: Node) -> Stage:
    """Return the stage that ends the services of one node and proves that nothing of them runs or listens."""
    service = f"{cluster.id}/{node.host.index}"
    config = f"{cluster.layout.node(node.host.index)}/node.json"
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
    """Return the stage that removes wall and files, but no cache, from a host on which no node runs."""
    files = step("files", "remove.sh.j2", directory=cluster.layout.cluster)
    walls = (wall_removal_step(cluster.id),) if wall else ()
    return Stage("remove", (*walls, files), deadline_s=120.0)


def ship_stage(
    layout: Layout,
    run: RunRecord,
    spec: RunSpec,
    shipment: Shipment,
    files: tuple[PayloadFile, ...],
    *,
    live: tuple[str, ...] = (),
    nodes: tuple[str, ...] = (),
    env_digest: str = "",
) -> Stage:
    """Return the stage that brings the run to a node; it is the same for every node.

    ``files`` is the content of ``shipment``, with paths relative to its root.  ``live`` are the ids of the
    cluster's runs that are not finished; the variables of all others are removed.  ``nodes`` are the nodes
    that get the run, and ``env_digest`` names their environment.  The step fails where the run directory
    exists with other content.
    """
    described = RunDescription(
        run=run.id,
        sequence=run.sequence,
        port=run.port,
        script=shipment.script,
        cwd=shipment.cwd,
        args=run.args,
        timeout_s=spec.timeout_s,
        cap=spec.cap,
        min_nodes=spec.min_nodes,
        companion=spec.companion,
        restarts=RESTARTS if spec.companion else 0,  # without it, the script behaves as on bare Rain
        fresh=spec.fresh,
        fail_fast=spec.fail_fast,
        then_off=spec.then_off,
        live=live,
        nodes=nodes,
        imports=shipment.imports,
        packages=f"{layout.environment(env_digest)}/lib/python{NODE_PYTHON_TEXT}/site-packages",
    )
    placed = (
        json_file("run.json", to_json(described)),
        json_file("shipped.json", {file.path: file.sha256 for file in shipment.files}),
        json_file("env.json", dict(spec.env), 0o600),
        *(PayloadFile(f"files/{file.path}", file.data, file.mode) for file in files),
    )
    directories = b"".join(os.fsencode(f"./{name}") + b"\0" for name in (".", *shipment.directories))
    return Stage(
        "ship",
        (step(f"run {run.id}", "run.sh.j2"),),
        payload=(
            PayloadFile("sums", b"".join(map(_sum_line, placed))),
            PayloadFile("directories", directories),
            *(PayloadFile(f"run/{file.path}", file.data, file.mode) for file in placed),
        ),
        variables=(("R", layout.run(run.id)), ("LIVE", " ".join((run.id, *live)))),
    )


def withdraw_stage(layout: Layout, run: str) -> Stage:
    """Return the stage that deletes the variables of a run that does not run: they may be secrets."""
    delete = Step(
        f"values of --env of run {run}", act='rm -f -- "$R/env.json"', verify='[ ! -e "$R/env.json" ]'
    )
    return Stage("delete", (delete,), variables=(("R", layout.run(run)),), deadline_s=20.0)


def _sum_line(file: PayloadFile) -> bytes:
    """Return a line for ``sha256sum -c``; a name with a newline or a backslash is escaped and marked."""
    name = os.fsencode(file.path)
    escaped = name.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
    mark = b"\\" if escaped != name else b""
    return mark + hashlib.sha256(file.data).hexdigest().encode() + b"  " + escaped + b"\n"
