"""What ``down`` does on a host: end our processes, then remove our files; each looks again afterwards."""

from __future__ import annotations

import ipaddress
import re
import shlex

from rain_deploy.core.cluster import Cluster, Node
from rain_deploy.core.layout import HTTP_PORT, IDLE_PORT, RUN_PORTS
from rain_deploy.core.step import Stage, Step
from rain_deploy.parts.services import layout_of
from rain_deploy.parts.shell import render
from rain_deploy.parts.wall import wall_removal_step


def listening_pattern(address: str, ports: tuple[int, ...]) -> str:
    """An extended regular expression for lines of /proc/net/tcp and tcp6 that listen at address or any."""
    packed = ipaddress.ip_address(address).packed
    words = [packed[i : i + 4] for i in range(0, len(packed), 4)]
    own = "".join(word[::-1].hex().upper() for word in words)
    every = "0" * len(own)
    listed = "|".join(f"{port:04X}" for port in ports)
    return f"^ *[0-9]+: ({own}|{every}):({listed}) [0-9A-F]+:[0-9A-F]+ 0A "


def stop_stage(cluster: Cluster, node: Node) -> Stage:
    """End the services of one node and prove that nothing of them runs or listens."""
    service = f"{cluster.id}/{node.host.index}"
    config = f"{layout_of(cluster).node(node.host.index)}/node.json"
    steps = [Step("processes", act=render("stop.sh.j2", service=service, node_config=config))]
    if re.fullmatch(r"[0-9a-fA-F.:]+", node.cluster_address):
        ports = (node.governor_port,)
        if node is cluster.server:
            ports = (*ports, IDLE_PORT, HTTP_PORT, *RUN_PORTS)
        pattern = shlex.quote(listening_pattern(node.cluster_address, ports))
        look = f"! cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | grep -qE {pattern}"
        said = shlex.quote(f"listening Rain ports on {node.cluster_address} (/proc/net/tcp)")
        steps.append(Step("ports", act=f"data absent {said}", verify=look))
    return Stage("stop", tuple(steps), deadline_s=60.0)


def remove_stage(cluster: Cluster, *, wall: bool) -> Stage:
    """Remove the cluster's packet filter and files on one host.  Caches of engine and environment stay.

    Comes after the services of all nodes have ended: several nodes may be one machine.
    """
    directory = shlex.quote(layout_of(cluster).cluster)
    said = shlex.quote(f"files under {layout_of(cluster).cluster}")
    step = Step("files", act=f"rm -rf -- {directory}\ndata absent {said}", verify=f"[ ! -e {directory} ]")
    walls = (wall_removal_step(cluster.id),) if wall else ()
    return Stage("remove", (*walls, step), deadline_s=120.0)
