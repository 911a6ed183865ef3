"""The user's own way to nodes: a configuration for the system's ssh, and copies as ``scp -r`` makes them."""

import contextlib
import io
import posixpath
import tarfile
from collections.abc import Iterator
from pathlib import Path

from rain_deploy.core.machine import Host, Jump
from rain_deploy.core.step import Command
from rain_deploy.errors import InputError
from rain_deploy.parts.shell import render

COPY_DEADLINE_S = 24 * 3600.0
TAR_FAILED = 3
"""Exit status from which on ``fetch_command`` wrote no tar; below, the tar has all that could be read."""


def ssh_config_text(cluster_id: str, hosts: tuple[Host, ...], known_hosts_file: Path) -> str:
    """Return text for ``ssh -F FILE node-1``; ``known_hosts_file`` has what ``known_hosts_text`` returns."""
    machines = [(*machine, host) for host in hosts for machine in _ways(cluster_id, host)]
    values = {"cluster_id": cluster_id, "known_hosts_file": known_hosts_file}
    return render("ssh_config.j2", **values, machines=machines, quoted=quoted)


def quoted(path: Path) -> str:
    """Return a path as one word of ssh_config, in which ``%`` starts a token."""
    text = str(path).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{text}"'


def known_hosts_text(cluster_id: str, hosts: tuple[Host, ...]) -> str:
    """Return lines ``alias keytype base64``: a key belongs to its machine, whose address may change."""
    ways = (way for host in hosts for way in _ways(cluster_id, host))
    return "".join(f"{alias} {key}\n" for _name, alias, way in ways for key in way.host_keys)


def host_key_alias(cluster_id: str, host: Host) -> str:
    """Return the name under which the keys of a node's machine are in its cluster's known_hosts."""
    return f"rain-deploy-{cluster_id}-{host.name}"


def _ways(cluster_id: str, host: Host) -> Iterator[tuple[str, str, Host | Jump]]:
    """Yield (name, alias of its keys, itself) of the host and of each hop on the way to it."""
    alias = host_key_alias(cluster_id, host)
    yield host.name, alias, host
    for number, jump in enumerate(host.jumps, start=1):
        yield f"{host.name}-jump-{number}", f"{alias}-jump-{number}", jump


def push_command(source: Path, destination: str) -> tuple[Command, tuple[int, ...], tuple[str, ...]]:
    """Return the command that puts ``source`` there, the sizes of its files, and what cannot be sent.

    Raises InputError if nothing can be sent.
    """
    buffer = io.BytesIO()
    try:
        with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1, dereference=True) as archive:
            left = tuple(_added(archive, source, source.name))
            sizes = tuple(member.size for member in archive.getmembers() if member.isfile())
            if left and not archive.getmembers():
                raise InputError(f"cannot read {source.parent / left[0]}")
    except OSError as error:
        raise InputError(f"cannot read {error.filename or source}: {error.strerror}") from error
    place = _relative(destination)
    above = posixpath.dirname(place.rstrip("/")) or "/"
    script = render("push.sh.j2", destination=place, above=above, leaf=source.name)
    return Command(("sh", "-c", script), stdin=buffer.getvalue(), deadline_s=COPY_DEADLINE_S), sizes, left


def _added(
    archive: tarfile.TarFile, path: Path, name: str, above: frozenset[tuple[int, int]] = frozenset()
) -> Iterator[str]:
    """Add a file or a directory; yield what of it cannot be added, with why.  Links are followed.

    ``above`` are the directories that it is in.  Raises OSError for a file that shrinks meanwhile.
    """
    with contextlib.ExitStack() as opened:
        file, inner = None, list[Path]()
        try:
            facts = path.stat()
            info = archive.gettarinfo(path, name)
            if info.isreg():
                file = opened.enter_context(path.open("rb"))
            elif info.isdir():
                inner = sorted(path.iterdir())
        except OSError as error:
            dangling = path.is_symlink() and isinstance(error, FileNotFoundError)
            yield f"{name}: {'it is a link that leads nowhere' if dangling else error.strerror}"
            return
        if not (info.isreg() or info.isdir()):
            yield f"{name}: it is neither a file nor a directory"
            return
        if (this := (facts.st_dev, facts.st_ino)) in above:
            yield f"{name}: it is a link to a directory that it is in"
            return
        archive.addfile(info, file)
    for each in inner:
        yield from _added(archive, each, f"{name}/{each.name}", above | {this})


def fetch_command(source: str) -> tuple[Command, str]:
    """Return the command that writes ``source`` to stdout as a tar, and its name in that tar."""
    above, leaf = posixpath.split(posixpath.normpath(_relative(source)))
    script = render("fetch.sh.j2", above=above or ".", leaf=leaf)
    return Command(("sh", "-c", script), deadline_s=COPY_DEADLINE_S), leaf


def _relative(path: str) -> str:
    """Return a path that no program on the node takes for an option or for ``cd -``."""
    return path if path.startswith("/") else f"./{path}"
