"""The verbs that reach nodes directly: a shell, a command on all, files to and from, ports."""

from __future__ import annotations

import contextlib
import io
import posixpath
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

from rain_deploy.core.command import Command
from rain_deploy.core.layout import HTTP_PORT, IDLE_PORT
from rain_deploy.core.model import Cluster, Host
from rain_deploy.errors import InputError, UnsafeResults
from rain_deploy.fleet.fanout import fan_out
from rain_deploy.flows.clusters import find_node, hosts_of, living, recorded, run_states, unfinished
from rain_deploy.flows.context import Context
from rain_deploy.flows.results import CopyResult, ExecLine, ExecResult, Tunnel
from rain_deploy.ops.ssh_config import known_hosts_text, ssh_config_text
from rain_deploy.results.unpack import Unpacker

_PUSH = """\
d=$0; n=$1
case $d in */) mkdir -p -- "$d" ;; esac
if [ -d "$d" ]; then exec tar -xzf - -C "$d"; fi
p=$(dirname -- "$d")
mkdir -p -- "$p" && t=$(mktemp -d -- "$p/.push.XXXXXX") || exit 1
tar -xzf - -C "$t" && mv -T -- "$t/$n" "$d"; rc=$?
rm -rf -- "$t"
exit $rc
"""
"""As scp: into DST where it is a directory or ends with a slash, else under that name, by rename."""
_FETCH = 'cd -- "$(dirname -- "$0")" && exec tar -cf - --hard-dereference -- "./$(basename -- "$0")"'


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


def exec_all(ctx: Context, name: str, node: int | None, argv: tuple[str, ...]) -> ExecResult:
    """Run a command on one node or on all at once; each outcome is told, none hides another."""
    cluster = recorded(ctx, name)
    hosts = _chosen(cluster, node)
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


def push(ctx: Context, name: str, source: Path, destination: str, *, node: int | None = None) -> CopyResult:
    """Copy a file or directory of this machine to nodes, one exec each."""
    started_s = time.monotonic()
    cluster = recorded(ctx, name)
    path = (ctx.cwd / source).resolve()
    buffer = io.BytesIO()
    try:
        with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as archive:
            archive.add(path, arcname=path.name)
            members = [member for member in archive.getmembers() if member.isfile()]
    except OSError as error:
        raise InputError(f"cannot read {source}: {error.strerror}") from error
    command = Command(("sh", "-c", _PUSH, destination, path.name), stdin=buffer.getvalue(), deadline_s=3600)
    hosts = _chosen(cluster, node)
    fan_out(hosts, lambda host: _checked(ctx, host, command, f"push to {destination}")).require()
    return CopyResult(
        cluster=name,
        nodes=tuple(host.name for host in hosts),
        source=str(source),
        destination=destination,
        files=len(members),
        bytes=sum(member.size for member in members),
        seconds=time.monotonic() - started_s,
    )


def fetch(ctx: Context, name: str, source: str, destination: Path, *, node: int | None = None) -> CopyResult:
    """Copy a file or directory of nodes here: of one node to DST, of several to DST/node-N."""
    started_s = time.monotonic()
    cluster = recorded(ctx, name)
    hosts = _chosen(cluster, node)
    target = ctx.cwd / destination

    def one(host: Host) -> tuple[int, int]:
        command = Command(("sh", "-c", _FETCH, posixpath.normpath(source)), deadline_s=3600)
        unpacker = Unpacker(target / host.name if len(hosts) > 1 else target, sums=False)
        try:
            result = ctx.transport.run(host, command, on_stdout=unpacker.write)
            _require_zero(host, result.exit_status, result.stderr, f"fetch of {source}")
            done = unpacker.close()
        finally:
            unpacker.abandon()
        if done.refused:
            raise UnsafeResults(f"not fetched: {'; '.join(done.refused)}", node=host.name)
        return len(done.files), sum(file.size_bytes for file in done.files)

    counts = fan_out(hosts, one).require().values()
    return CopyResult(
        cluster=name,
        nodes=tuple(host.name for host in hosts),
        source=source,
        destination=str(destination),
        files=sum(files for files, _ in counts),
        bytes=sum(size for _, size in counts),
        seconds=time.monotonic() - started_s,
    )


def _checked(ctx: Context, host: Host, command: Command, what: str) -> None:
    result = ctx.transport.run(host, command)
    _require_zero(host, result.exit_status, result.stderr, what)


def _require_zero(host: Host, exit_status: int, stderr: bytes, what: str) -> None:
    if exit_status != 0:
        reason = stderr.decode(errors="replace").strip()[-500:]
        raise InputError(f"{what} failed (exit {exit_status}): {reason}", node=host.name)


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
