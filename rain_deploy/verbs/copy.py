"""``push`` and ``fetch``: files to and from nodes."""

import errno
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.lookup import find_node, recorded
from rain_deploy.core.events import Notice, Result
from rain_deploy.core.machine import Host
from rain_deploy.core.step import Command, CommandResult
from rain_deploy.errors import InputError, PullFailed, UnsafeResults
from rain_deploy.fleet.fanout import connect_all, fan_out
from rain_deploy.parts.access import TAR_FAILED, fetch_command, push_command
from rain_deploy.results.names import encode_name
from rain_deploy.results.unpack import NO_LIMITS, receive
from rain_deploy.state.drafts import draft_next_to
from rain_deploy.verbs.nodes import chosen_hosts

_CHANGED = "file changed as we read it"  # as tar says it


@dataclass(frozen=True, slots=True)
class CopyResult(Result):
    """The files that ``push`` or ``fetch`` copied."""

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
    Links are followed, missing directories are made, and files of the same name are replaced.  Raises
    InputError for what cannot be read, once everything else is there.
    """
    started_s = time.monotonic()
    hosts = chosen_hosts(recorded(ctx, name), node)
    command, sizes, left = push_command(Path(os.path.normpath(ctx.cwd / source)), destination)
    connect_all(ctx.transport, hosts)
    what = f"push to {destination} failed"
    fan_out(hosts, lambda host: ctx.transport.run(host, command).require(InputError, what)).require()
    if left:
        message = f"push of {source}: {_of(left)} not copied, everything else is on the nodes"
        raise InputError(message, details="\n".join(left))
    names, seconds = tuple(host.name for host in hosts), time.monotonic() - started_s
    return CopyResult(name, names, str(source), destination, len(sizes), sum(sizes), seconds)


def fetch(ctx: Context, name: str, source: str, destination: Path, *, node: int | None = None) -> CopyResult:
    """Copy a file or directory of one node to this machine, as ``scp -r`` does.

    Without ``node`` it comes from the server node.  It is placed as ``push`` places it, and only when all
    that could be sent has arrived.  Raises UnsafeResults for the rest, once everything else is here.
    """
    started_s = time.monotonic()
    host = find_node(recorded(ctx, name), node).host
    command, leaf = fetch_command(source)
    target = ctx.cwd / destination
    place = target / leaf if target.is_dir() else target
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with draft_next_to(ctx.home, place) as draft:
            sizes, left = _received(ctx, host, command, draft, f"fetch of {source}")
            _settle(draft / leaf, place)
    except OSError as error:
        raise InputError(f"cannot write {error.filename2 or error.filename}: {error.strerror}") from error
    if left:
        message = f"fetch of {source}: {_of(left)} not copied, everything else is in {place}"
        raise UnsafeResults(message, node=host.name, details="\n".join(left))
    seconds = time.monotonic() - started_s
    return CopyResult(name, (host.name,), source, str(destination), len(sizes), sum(sizes), seconds)


def _received(
    ctx: Context, host: Host, command: Command, draft: Path, what: str
) -> tuple[tuple[int, ...], list[str]]:
    """Unpack what the node sends; return the sizes of the files, and what was not sent or was refused."""
    ended: list[CommandResult] = []

    def send(sink: Callable[[bytes], None]) -> None:
        ended.append(ctx.transport.run(host, command, on_stdout=sink))
        if ended[0].exit_status not in range(TAR_FAILED):
            ended[0].require(InputError, f"{what} failed", host.name)

    try:
        got = receive(send, draft, NO_LIMITS, sums=False, links=False)
    except OSError as error:
        raise PullFailed(f"{what} failed: cannot write below {draft.parent}: {error.strerror}") from error
    if not any(draft.iterdir()):
        raise InputError(f"{what} failed", node=host.name, details=ended[0].complaint)
    said = [line.partition(": ")[2] for line in ended[0].stderr.decode(errors="replace").splitlines()]
    for line in (line for line in said if line.endswith(_CHANGED)):
        ctx.emit(Notice(f"{host.name}: {line}"))
    unsent = [line for line in said if not line.endswith(_CHANGED) and not line.startswith("Exiting with")]
    refused = (f"{encode_name(name)}: {why}" for name, why in got.refused.items())
    return tuple(file.size_bytes for file in got.files), [*unsent, *refused]


def _of(left: Sequence[str]) -> str:
    return "1 entry was" if len(left) == 1 else f"{len(left)} entries were"


def _settle(source: Path, place: Path) -> None:
    """Move what was received to its place; a directory is merged with one that exists.

    Raises OSError where a directory would go through a link: what an earlier fetch brought may have made it.
    """
    if source.is_dir() and place.is_symlink():
        raise OSError(errno.ENOTDIR, "there is a link, which fetch does not follow", str(place))
    if source.is_dir() and place.is_dir():
        for child in source.iterdir():
            _settle(child, place / child.name)
    else:
        source.replace(place)
