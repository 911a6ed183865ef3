"""The verbs that reach nodes directly: a shell, a command on all, files to and from, ports."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.lookup import find_node, hosts_of, living, recorded
from rain_deploy.core.cluster import Cluster
from rain_deploy.core.command import Command
from rain_deploy.core.layout import HTTP_PORT, IDLE_PORT
from rain_deploy.core.machine import Host
from rain_deploy.core.result import Result
from rain_deploy.errors import (
    RainDeployError,
    ScriptFailed,
)
from rain_deploy.fleet.fanout import fan_out
from rain_deploy.fleet.reach import meet
from rain_deploy.parts.ssh_config import known_hosts_text, ssh_config_text
from rain_deploy.runs.states import run_states, unfinished


@dataclass(frozen=True, slots=True)
class ExecLine:
    """One node's part of ``exec``: an exit status or an error."""

    node: str
    exit_status: int | None
    stdout: bytes = b""
    stderr: bytes = b""
    error: RainDeployError | None = None


@dataclass(frozen=True, slots=True)
class ExecResult(Result):
    """``exec``: every node's part, in order."""

    cluster: str
    argv: tuple[str, ...]
    nodes: tuple[ExecLine, ...]

    @property
    def problem(self) -> RainDeployError | None:
        errors = [line.error for line in self.nodes if line.error]
        if errors:
            return max(errors, key=lambda error: error.exit_code)
        failed = [f"{line.node}: exit {line.exit_status}" for line in self.nodes if line.exit_status]
        return ScriptFailed(f"the command failed on {'; '.join(failed)}") if failed else None


@dataclass(frozen=True, slots=True)
class Tunnel(Result):
    """An open port on loopback here; the flow that yields it closes it."""

    cluster: str
    port: int
    target: str
    """What it leads to, ``node-1 127.0.0.1:7210``."""
    url: str = ""
    """Of the dashboard."""


def ssh_argv(ctx: Context, name: str, node: int | None, argv: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Argument vector of the system's own ssh to a node, by the cluster's generated configuration."""
    cluster = recorded(ctx, name)
    chosen = find_node(cluster, node)
    directory = ctx.home / "clusters" / cluster.id
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    known_hosts = directory / "known_hosts"
    config = directory / "ssh_config"
    known_hosts.write_text(known_hosts_text(cluster.id, hosts_of(cluster)))
    config.write_text(ssh_config_text(cluster.id, hosts_of(cluster), known_hosts))
    command = (Command(argv).line(),) if argv else ()
    return ("ssh", "-F", str(config), chosen.name, *(("--", *command) if command else ()))


def check_reach(ctx: Context, name: str, node: int | None) -> None:
    """Why the system's ssh may have failed at a node: raises HostKeyError or Unreachable, if it is one."""
    ctx.transport.connect(find_node(recorded(ctx, name), node).host)


def exec_all(ctx: Context, name: str, node: int | None, argv: tuple[str, ...]) -> ExecResult:
    """Run a command on one node or on all at once; each outcome is told, none hides another."""
    cluster = recorded(ctx, name)
    hosts = _chosen(cluster, node)
    meet(ctx.transport, hosts)
    outcomes = fan_out(hosts, lambda host: ctx.transport.run(host, Command(argv, deadline_s=None)))
    lines = []
    for host in hosts:
        result, error = outcomes.values.get(host.name), outcomes.errors.get(host.name)
        lines.append(
            ExecLine(host.name, result.exit_status, result.stdout, result.stderr)
            if result
            else ExecLine(host.name, None, error=error)
        )
    return ExecResult(cluster=name, argv=argv, nodes=tuple(lines))


def _chosen(cluster: Cluster, node: int | None) -> tuple[Host, ...]:
    return (find_node(cluster, node).host,) if node else hosts_of(cluster)


@contextlib.contextmanager
def tunnel(ctx: Context, name: str, port: int = 0) -> Iterator[Tunnel]:
    """Rain's client port on loopback here, of the active run's server or of the idle one."""
    cluster = living(ctx, name)
    with _forwarded(ctx, cluster, _client_port(ctx, cluster), port) as open_port:
        yield open_port


@contextlib.contextmanager
def dashboard(ctx: Context, name: str, port: int = 0) -> Iterator[Tunnel]:
    """Rain's dashboard on loopback here.  Any user of this machine can reach it while it is open."""
    cluster = living(ctx, name)
    with _forwarded(ctx, cluster, HTTP_PORT, port) as open_port:
        yield open_port


def _client_port(ctx: Context, cluster: Cluster) -> int:
    active = unfinished(run_states(ctx, cluster))
    ports = {record.id: record.port for record in ctx.store.runs(cluster.name)}
    return next((ports[run] for run in active if run in ports), IDLE_PORT)


@contextlib.contextmanager
def _forwarded(ctx: Context, cluster: Cluster, remote_port: int, local_port: int) -> Iterator[Tunnel]:
    server = cluster.server
    forward = ctx.transport.forward(server.host, server.cluster_address, remote_port, local_port=local_port)
    with contextlib.closing(forward):
        yield Tunnel(
            cluster=cluster.name,
            port=forward.local_port,
            target=f"{server.name} {server.cluster_address}:{remote_port}",
            url=f"http://127.0.0.1:{forward.local_port}/" if remote_port == HTTP_PORT else "",
        )
