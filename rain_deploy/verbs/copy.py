"""``push`` and ``fetch``: files to and from nodes."""

from __future__ import annotations

import io
import os
import posixpath
import tarfile
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.lookup import find_node, recorded
from rain_deploy.core.command import Command
from rain_deploy.core.machine import Host
from rain_deploy.core.result import Result
from rain_deploy.errors import (
    InputError,
    UnsafeResults,
)
from rain_deploy.fleet.fanout import fan_out
from rain_deploy.fleet.reach import meet
from rain_deploy.results.unpack import Unpacker
from rain_deploy.verbs.nodes import _chosen


@dataclass(frozen=True, slots=True)
class CopyResult(Result):
    """``push`` and ``fetch``."""

    cluster: str
    nodes: tuple[str, ...]
    source: str
    destination: str
    files: int
    bytes: int
    seconds: float


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
