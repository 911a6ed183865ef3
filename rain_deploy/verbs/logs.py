"""``logs``: what a run's script printed; what a node's services, installation or first boot printed."""

from __future__ import annotations

import enum
import shlex
from dataclasses import dataclass

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.lookup import find_node, recorded
from rain_deploy.cluster.stages import install_log
from rain_deploy.cluster.wake import awake
from rain_deploy.core.cluster import Cluster, Node
from rain_deploy.core.command import Command
from rain_deploy.core.result import Result
from rain_deploy.errors import InputError
from rain_deploy.parts.services import layout_of
from rain_deploy.runs.files import holder, pulled_file, remote_file
from rain_deploy.runs.follow import follow as follow_run
from rain_deploy.runs.states import find_run

_BOOT_LOG = """
log=/var/log/cloud-init-output.log
none() { echo "$1: there is no log of a first boot" >&2; exit 0; }
[ -z "${RAIN_DEPLOY_MACHINE:-}" ] || none "light machines do not boot"
[ -e "$log" ] || none "$log is not there"
[ -r "$log" ] || sudo="sudo -n"
${sudo:-} tail -n 5000 -- "$log"
"""
"""A light machine has its own directory in its environment; the log belongs to the machine below it."""


class NodeLog(enum.StrEnum):
    """A log of a node."""

    SERVICES = "governor"
    """Of the governor, its keeper, and on the server node also of the server's."""
    INSTALL = "install"
    BOOT = "boot"


@dataclass(frozen=True, slots=True)
class LogsResult(Result):
    """``logs``: with ``follow`` the text went through ScriptOutput events and the fields are empty."""

    cluster: str
    source: str
    """``script``, ``governor``, ``boot`` or ``install``."""
    run: str = ""
    node: str = ""
    stdout: bytes = b""
    stderr: bytes = b""


def script_log(ctx: Context, name: str, run: str | None = None, *, follow: bool = False) -> LogsResult:
    """Return what the script printed so far; with ``follow`` emit it until the run ends."""
    record = find_run(ctx, name, run)
    cluster = holder(ctx, record)
    if cluster and follow:
        follow_run(ctx, cluster, record)
        return LogsResult(cluster=name, source="script", run=record.id)
    out, err = (
        remote_file(ctx, cluster, record, log) if cluster else pulled_file(record, log)
        for log in ("stdout.log", "stderr.log")
    )
    return LogsResult(cluster=name, source="script", run=record.id, stdout=out, stderr=err)


def node_log(ctx: Context, name: str, number: int | None, log: NodeLog) -> LogsResult:
    """Return a log of a node; the server node when no number is given."""
    cluster = recorded(ctx, name)
    node = find_node(cluster, number)
    if log == NodeLog.INSTALL:
        path = install_log(ctx, cluster)
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        mine = b"".join(line for line in lines if line.startswith(f"{node.name} |".encode()))
        return LogsResult(cluster=name, source=log, node=node.name, stdout=mine)
    if log == NodeLog.BOOT and cluster.bill is None:
        raise InputError(f"the machines of {name} were not booted by rain-deploy: there is no log of that")
    cluster = awake(ctx, cluster, (node,))
    node = find_node(cluster, number)  # it may have another address now
    script = _BOOT_LOG if log == NodeLog.BOOT else _services_script(cluster, node)
    result = ctx.transport.run(node.host, Command(("sh", "-c", script)))
    err = result.stderr if log == NodeLog.BOOT else b""
    return LogsResult(cluster=name, source=log, node=node.name, stdout=result.stdout, stderr=err)


def _services_script(cluster: Cluster, node: Node) -> str:
    """Return shell text that prints the end of each log of our services."""
    layout = layout_of(cluster)
    places = f"{shlex.quote(layout.node(node.host.index))}/*/*.log {shlex.quote(layout.server)}/*.log"
    return f'for f in {places}; do [ ! -f "$f" ] || {{ echo "==> $f <=="; tail -n 500 -- "$f"; }}; done'
