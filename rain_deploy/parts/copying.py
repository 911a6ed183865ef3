"""The commands that copy files to and from a node and place them as ``scp -r`` does."""

from __future__ import annotations

import io
import posixpath
import tarfile
from pathlib import Path

from rain_deploy.core.step import Command
from rain_deploy.errors import InputError
from rain_deploy.parts.shell import render

COPY_DEADLINE_S = 3600.0


def push_command(source: Path, destination: str) -> tuple[Command, tuple[int, ...]]:
    """Return the command that puts ``source`` there, and the sizes of its files.

    Raises InputError if it cannot be read.
    """
    buffer = io.BytesIO()
    try:
        with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1, dereference=True) as archive:
            archive.add(source, arcname=source.name)
            sizes = tuple(member.size for member in archive.getmembers() if member.isfile())
    except OSError as error:
        raise InputError(f"cannot read {error.filename or source}: {error.strerror}") from error
    place = _relative(destination)
    above = posixpath.dirname(place.rstrip("/")) or "/"
    script = render("push.sh.j2", destination=place, above=above, leaf=source.name)
    return Command(("sh", "-c", script), stdin=buffer.getvalue(), deadline_s=COPY_DEADLINE_S), sizes


def fetch_command(source: str) -> tuple[Command, str]:
    """Return the command that writes ``source`` to stdout as a tar, and its name in that tar."""
    above, leaf = posixpath.split(posixpath.normpath(_relative(source)))
    script = render("fetch.sh.j2", above=above or ".", leaf=leaf)
    return Command(("sh", "-c", script), deadline_s=COPY_DEADLINE_S), leaf


def _relative(path: str) -> str:
    """Return a path that no program on the node takes for an option or for ``cd -``."""
    return path if path.startswith("/") else f"./{path}"
