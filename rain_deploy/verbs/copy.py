"""``push`` and ``fetch``: files to and from nodes."""

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.lookup import find_node, recorded
from rain_deploy.core.events import Result
from rain_deploy.core.machine import Host
from rain_deploy.core.step import Command
from rain_deploy.errors import InputError, PullFailed, UnsafeResults
from rain_deploy.fleet.fanout import fan_out, meet
from rain_deploy.parts.access import fetch_command, push_command
from rain_deploy.results.unpack import receive
from rain_deploy.verbs.nodes import chosen_hosts


@dataclass(frozen=True, slots=True)
class CopyResult(Result):
    """What ``push`` or ``fetch`` copied."""

    cluster: str
    nodes: tuple[str, ...]
    source: str
    destination: str
    files: int
    bytes: int
    seconds: float


def push(ctx: Context, name: str, source: Path, destination: str, *, node: int | None = None) -> CopyResult:
    """Copy a file or directory of this machine to nodes, as ``scp -r`` does.

    It goes into the destination if that is a directory or ends with a slash, otherwise under that name.
    Links are followed, missing directories are made, and files of the same name are replaced.
    """
    started_s = time.monotonic()
    hosts = chosen_hosts(recorded(ctx, name), node)
    command, sizes = push_command(Path(os.path.normpath(ctx.cwd / source)), destination)
    meet(ctx.transport, hosts)
    what = f"push to {destination} failed"
    fan_out(hosts, lambda host: ctx.transport.run(host, command).require(InputError, what)).require()
    names, seconds = tuple(host.name for host in hosts), time.monotonic() - started_s
    return CopyResult(name, names, str(source), destination, len(sizes), sum(sizes), seconds)


def fetch(ctx: Context, name: str, source: str, destination: Path, *, node: int | None = None) -> CopyResult:
    """Copy a file or directory of one node to this machine, as ``scp -r`` does.

    Without ``node`` it comes from the server node.  It is placed as ``push`` places it, and only when all
    of it has arrived.
    """
    started_s = time.monotonic()
    host = find_node(recorded(ctx, name), node).host
    command, leaf = fetch_command(source)
    target = ctx.cwd / destination
    place = target / leaf if target.is_dir() else target
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent, prefix=".fetch-") as draft:
            sizes = _received(ctx, host, command, Path(draft), f"fetch of {source}")
            _settle(Path(draft) / leaf, place)
    except OSError as error:
        raise InputError(f"cannot write {error.filename2 or error.filename}: {error.strerror}") from error
    seconds = time.monotonic() - started_s
    return CopyResult(name, (host.name,), source, str(destination), len(sizes), sum(sizes), seconds)


def _received(ctx: Context, host: Host, command: Command, draft: Path, what: str) -> tuple[int, ...]:
    """Unpack what the node sends, and return the sizes of the files."""

    def send(sink: Callable[[bytes], None]) -> None:
        ctx.transport.run(host, command, on_stdout=sink).require(InputError, f"{what} failed", host.name)

    try:
        done = receive(send, draft, sums=False)
    except OSError as error:
        raise PullFailed(f"{what} failed: cannot write below {draft.parent}: {error.strerror}") from error
    if done.refused:
        raise UnsafeResults(f"not fetched: {'; '.join(done.refused)}", node=host.name)
    return tuple(file.size_bytes for file in done.files)


def _settle(source: Path, place: Path) -> None:
    """Move what was received to its place; a directory is merged with one that exists."""
    if source.is_dir() and place.is_dir():
        for child in source.iterdir():
            _settle(child, place / child.name)
    else:
        source.replace(place)
