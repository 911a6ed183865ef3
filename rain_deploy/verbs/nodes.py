"""Reach nodes: ``ssh``, ``exec``, and Rain's ports on loopback here (``tunnel``, ``dashboard``)."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.lookup import find_node, living, recorded
from rain_deploy.core.cluster import Cluster
from rain_deploy.core.events import Result
from rain_deploy.core.layout import HTTP_PORT, IDLE_PORT
from rain_deploy.core.machine import Host
from rain_deploy.core.step import Command
from rain_deploy.errors import RainDeployError, ScriptFailed
from rain_deploy.fleet.fanout import connect_all, fan_out
from rain_deploy.parts.access import known_hosts_text, ssh_config_text
from rain_deploy.runs.states import run_states, unfinished


@dataclass(frozen=True, slots=True)
class ExecLine:
    """The result of ``exec`` on one node: an exit status or an error."""

    node: str
    exit_status: int | None
    stdout: bytes = b""
    stderr: bytes = b""
    error: RainDeployError | None = None


@dataclass(frozen=True, slots=True)
class ExecResult(Result):
    """The results of all nodes, in order."""

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


def ssh_argv(ctx: Context, name: str, node: int | None, argv: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Write an ssh_config for the cluster, and return the arguments that run the system's ssh to a node."""
    cluster = recorded(ctx, name)
    config, _ = write_ssh_config(ctx, cluster)
    command = ("--", Command(argv).line()) if argv else ()
    return ("ssh", "-F", str(config), find_node(cluster, node).name, *command)


def write_ssh_config(ctx: Context, cluster: Cluster) -> tuple[Path, Path]:
    """Write what the system's ssh needs to reach the nodes; return the ssh_config and the known_hosts."""
    hosts, directory = chosen_hosts(cluster, None), ctx.home / "clusters" / cluster.id
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    known_hosts, config = directory / "known_hosts", directory / "ssh_config"
    known_hosts.write_text(known_hosts_text(cluster.id, hosts))
    config.write_text(ssh_config_text(cluster.id, hosts, known_hosts))
    return config, known_hosts


def check_reach(ctx: Context, name: str, node: int | None) -> None:
    """Raise HostKeyError or Unreachable if one of them explains why the system's ssh failed."""
    ctx.transport.connect(find_node(recorded(ctx, name), node).host)


def exec_all(ctx: Context, name: str, node: int | None, argv: tuple[str, ...]) -> ExecResult:
    """Run a command on one node, or on all at once, and return every outcome."""
    cluster = recorded(ctx, name)
    hosts = chosen_hosts(cluster, node)
    connect_all(ctx.transport, hosts)
    outcomes = fan_out(hosts, lambda host: ctx.transport.run(host, Command(argv, deadline_s=None)))
    lines = {node: ExecLine(node, None, error=error) for node, error in outcomes.errors.items()}
    for each, done in outcomes.values.items():
        lines[each] = ExecLine(each, done.exit_status, done.stdout, done.stderr)
    return ExecResult(cluster=name, argv=argv, nodes=tuple(lines[host.name] for host in hosts))


def chosen_hosts(cluster: Cluster, node: int | None) -> tuple[Host, ...]:
    """Return the host of that node, or all hosts if ``node`` is None."""
    return (find_node(cluster, node).host,) if node else tuple(each.host for each in cluster.nodes)


@dataclass(frozen=True, slots=True)
class Tunnel(Result):
    """An open port on loopback of this machine; it closes when the verb ends."""

    cluster: str
    port: int
    target: str  # where it leads, like ``node-1 127.0.0.1:7210``
    url: str = ""  # the address of the dashboard, if this is one


def tunnel(ctx: Context, name: str, port: int = 0) -> contextlib.AbstractContextManager[Tunnel]:
    """Open Rain's client port on loopback: of the server of the active run, or else of the idle server."""
    cluster = living(ctx, name)
    active = unfinished(run_states(ctx, cluster))
    ports = {record.id: record.port for record in ctx.store.runs(cluster.name)}
    client_port = next((ports[run] for run in active if run in ports), IDLE_PORT)
    return _forwarded(ctx, cluster, client_port, port)


def dashboard(ctx: Context, name: str, port: int = 0) -> contextlib.AbstractContextManager[Tunnel]:
    """Open Rain's dashboard on loopback.  Any user of this machine can reach it while it is open."""
    return _forwarded(ctx, living(ctx, name), HTTP_PORT, port)


@contextlib.contextmanager
def _forwarded(ctx: Context, cluster: Cluster, remote_port: int, local_port: int) -> Iterator[Tunnel]:
    host, address = cluster.server.host, cluster.server.cluster_address
    forward = ctx.transport.forward(host, address, remote_port, local_port=local_port)
    with contextlib.closing(forward):
        port, target = forward.local_port, f"{host.name} {address}:{remote_port}"
        url = f"http://127.0.0.1:{port}/" if remote_port == HTTP_PORT else ""
        yield Tunnel(cluster.name, port, target, url)
