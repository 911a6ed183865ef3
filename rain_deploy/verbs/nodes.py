"""``ssh`` and ``exec``: a shell on one node, a command on all."""

from __future__ import annotations

from dataclasses import dataclass

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.lookup import find_node, hosts_of, recorded
from rain_deploy.core.cluster import Cluster
from rain_deploy.core.command import Command
from rain_deploy.core.machine import Host
from rain_deploy.core.result import Result
from rain_deploy.errors import RainDeployError, ScriptFailed
from rain_deploy.fleet.fanout import fan_out
from rain_deploy.fleet.reach import meet
from rain_deploy.parts.ssh_config import known_hosts_text, ssh_config_text


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
    """Return the arguments that run the system's ssh to a node with the generated ssh_config."""
    cluster = recorded(ctx, name)
    directory = ctx.home / "clusters" / cluster.id
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    known_hosts = directory / "known_hosts"
    config = directory / "ssh_config"
    known_hosts.write_text(known_hosts_text(cluster.id, hosts_of(cluster)))
    config.write_text(ssh_config_text(cluster.id, hosts_of(cluster), known_hosts))
    command = ("--", Command(argv).line()) if argv else ()
    return ("ssh", "-F", str(config), find_node(cluster, node).name, *command)


def check_reach(ctx: Context, name: str, node: int | None) -> None:
    """Raise HostKeyError or Unreachable if one of them explains why the system's ssh failed."""
    ctx.transport.connect(find_node(recorded(ctx, name), node).host)


def exec_all(ctx: Context, name: str, node: int | None, argv: tuple[str, ...]) -> ExecResult:
    """Run a command on one node, or on all at once, and return every outcome."""
    cluster = recorded(ctx, name)
    hosts = chosen_hosts(cluster, node)
    meet(ctx.transport, hosts)
    outcomes = fan_out(hosts, lambda host: ctx.transport.run(host, Command(argv, deadline_s=None)))

    def line(node: str) -> ExecLine:
        if done := outcomes.values.get(node):
            return ExecLine(node, done.exit_status, done.stdout, done.stderr)
        return ExecLine(node, None, error=outcomes.errors.get(node))

    return ExecResult(cluster=name, argv=argv, nodes=tuple(line(host.name) for host in hosts))


def chosen_hosts(cluster: Cluster, node: int | None) -> tuple[Host, ...]:
    """Return the host of that node, or all hosts if ``node`` is None."""
    return (find_node(cluster, node).host,) if node else hosts_of(cluster)
