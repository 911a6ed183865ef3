"""The verbs that reach nodes directly: a shell, a command on all, files to and from, ports."""

from __future__ import annotations

import contextlib
import io
import os
import posixpath
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from rain_deploy.core.command import Command
from rain_deploy.core.layout import HTTP_PORT, IDLE_PORT
from rain_deploy.core.model import Cluster, Host
from rain_deploy.errors import InputError, UnsafeResults
from rain_deploy.fleet.fanout import fan_out
from rain_deploy.fleet.reach import meet
from rain_deploy.flows.clusters import find_node, hosts_of, living, recorded, run_states, unfinished
from rain_deploy.flows.context import Context
from rain_deploy.flows.results import CopyResult, ExecLine, ExecResult, Tunnel
from rain_deploy.ops.ssh_config import known_hosts_text, ssh_config_text
from rain_deploy.results.unpack import Unpacker

_PUSH = """\
d=$0; above=$1; n=$2
case $d in */) mkdir -p -- "$d" || exit 1 ;; esac
if [ -d "$d" ]; then exec tar -xzf - --no-same-owner -C "$d"; fi
mkdir -p -- "$above" && t=$(mktemp -d -- "$above/.push.XXXXXX") || exit 1
tar -xzf - --no-same-owner -C "$t" && mv -T -- "$t/$n" "$d"; rc=$?
rm -rf -- "$t"
exit $rc
"""
"""Into the destination where it is a directory or ends with a slash, else under that name, by rename."""
_FETCH = 'cd -- "$0" && exec tar -chf - --no-unquote --hard-dereference -- "./$1"'
COPY_DEADLINE_S = 3600.0


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


def push(ctx: Context, name: str, source: Path, destination: str, *, node: int | None = None) -> CopyResult:
    """Copy a file or directory of this machine to nodes, one exec each.

    As scp -r: into the destination where that is a directory there or ends with a slash, else under that
    name; links are followed, directories that are missing are made, files of the same name replaced.
    """
    started_s = time.monotonic()
    cluster = recorded(ctx, name)
    hosts = _chosen(cluster, node)
    path = Path(os.path.normpath(ctx.cwd / source))
    content, sizes = _packed(path)
    place = _relative(destination)
    above = posixpath.dirname(place.rstrip("/")) or "/"
    argv = ("sh", "-c", _PUSH, place, above, path.name)
    command = Command(argv, stdin=content, deadline_s=COPY_DEADLINE_S)
    meet(ctx.transport, hosts)
    fan_out(hosts, lambda host: _checked(ctx, host, command, f"push to {destination}")).require()
    return CopyResult(
        cluster=name,
        nodes=tuple(host.name for host in hosts),
        source=str(source),
        destination=destination,
        files=len(sizes),
        bytes=sum(sizes),
        seconds=time.monotonic() - started_s,
    )


def _packed(path: Path) -> tuple[bytes, tuple[int, ...]]:
    """A gzipped tar of ``path`` under its own name, and the sizes of its files."""
    buffer = io.BytesIO()
    try:
        with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1, dereference=True) as archive:
            archive.add(path, arcname=path.name)
            sizes = tuple(member.size for member in archive.getmembers() if member.isfile())
    except OSError as error:
        raise InputError(f"cannot read {error.filename or path}: {error.strerror}") from error
    return buffer.getvalue(), sizes


def fetch(ctx: Context, name: str, source: str, destination: Path, *, node: int | None = None) -> CopyResult:
    """Copy a file or directory of one node here; the server node where none is named.

    As scp -r: into the destination where that is a directory, else under that name; links are followed,
    directories that are missing are made, files of the same name replaced.  Nothing is there before all is.
    """
    started_s = time.monotonic()
    host = find_node(recorded(ctx, name), node).host
    target = ctx.cwd / destination
    above, leaf = posixpath.split(posixpath.normpath(_relative(source)))
    command = Command(("sh", "-c", _FETCH, above or ".", leaf), deadline_s=COPY_DEADLINE_S)
    place = target / leaf if target.is_dir() else target
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent, prefix=".fetch-") as draft:
            sizes = _received(ctx, host, command, Path(draft), f"fetch of {source}")
            _settle(Path(draft) / leaf, place)
    except OSError as error:
        raise InputError(f"cannot write {error.filename2 or error.filename}: {error.strerror}") from error
    return CopyResult(
        cluster=name,
        nodes=(host.name,),
        source=source,
        destination=str(destination),
        files=len(sizes),
        bytes=sum(sizes),
        seconds=time.monotonic() - started_s,
    )


def _received(ctx: Context, host: Host, command: Command, draft: Path, what: str) -> tuple[int, ...]:
    """Unpack what the node sends; the sizes of its files.  Raises InputError, UnsafeResults, PullFailed."""
    unpacker = Unpacker(draft, sums=False)
    try:
        result = ctx.transport.run(host, command, on_stdout=unpacker.write)
        _require_zero(host, result.exit_status, result.stderr, what)
        done = unpacker.close()
    finally:
        unpacker.abandon()
    if done.refused:
        raise UnsafeResults(f"not fetched: {'; '.join(done.refused)}", node=host.name)
    return tuple(file.size_bytes for file in done.files)


def _settle(source: Path, place: Path) -> None:
    """Move what was received to its place; directories of both become one.  Raises OSError."""
    if source.is_dir() and place.is_dir():
        for child in source.iterdir():
            _settle(child, place / child.name)
    else:
        source.replace(place)


def _relative(path: str) -> str:
    """A path on a node that no program takes for an option or for ``cd -``."""
    return path if path.startswith("/") else f"./{path}"


def _checked(ctx: Context, host: Host, command: Command, what: str) -> None:
    result = ctx.transport.run(host, command)
    _require_zero(host, result.exit_status, result.stderr, what)


def _require_zero(host: Host, exit_status: int, stderr: bytes, what: str) -> None:
    if exit_status != 0:
        reason = stderr.decode(errors="replace").strip()[-500:]
        raise InputError(f"{what} failed (exit {exit_status})", node=host.name, details=reason)


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
