"""Unpacks a node's tar below a directory and trusts nothing in it.

Plain files and directories are made.  Each is opened relative to the handle of its directory, without
following links.  Everything else is refused by name, and the rest goes on.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from rain_deploy.errors import PullFailed
from rain_deploy.results.stream import MALFORMED, Archive, CutError, Limits, encode_name, too_much

SUMS = "sums.json"
"""Name of the member that maps the path of every other file to [size in bytes, sha256]."""
_SUMS_LONGEST_BYTES = 100_000_000
_IMPOSSIBLE = {errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG}
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_KINDS = {
    tarfile.SYMTYPE: "symlink",
    tarfile.LNKTYPE: "hard link",
    tarfile.FIFOTYPE: "fifo",
    tarfile.CHRTYPE: "device",
    tarfile.BLKTYPE: "device",
}


@dataclass(frozen=True, slots=True)
class PulledFile:
    """One file that was written."""

    path: str
    """Its name below the target."""
    size_bytes: int
    sha256: str
    origin: str = ""
    """Its name on the node, if this file system cannot hold that."""


class Unpacked(NamedTuple):
    """The files of a complete stream, and the names that were refused: encoded for print, with the reason."""

    files: tuple[PulledFile, ...]
    refused: tuple[str, ...]


def receive(
    send: Callable[[Callable[[bytes], None]], None],
    target: Path,
    limits: Limits | None = None,
    *,
    top: frozenset[str] | None = None,
    sums: bool = True,
) -> Unpacked:
    """Unpack below ``target``, while it is sent, the tar that ``send`` hands to its sink.

    ``target`` is made if it is missing.  Existing files are never overwritten.  ``top`` lists the names that
    are accepted at the top level, None accepts any.  With ``sums``, the files must match the hashes in the
    member sums.json, so a cut or damaged stream is never taken for the whole.

    Raises PullFailed (damaged stream; CutError if it was cut), UnsafeResults (a limit passed), OSError, and
    what ``send`` raises.  ``send`` runs on the calling thread, and is stopped when the unpacking fails.
    """
    limits = limits or Limits()
    target.mkdir(parents=True, exist_ok=True)
    here, there = os.pipe()

    def unpack() -> Unpacked:
        with os.fdopen(here, "rb") as stream, contextlib.ExitStack() as stack:
            root = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, root)
            return _Unpacking(root, limits, top).unpack(Archive(stream, limits), sums=sums)

    with ThreadPoolExecutor(1) as pool:
        unpacked = pool.submit(unpack)
        with contextlib.suppress(BrokenPipeError), os.fdopen(there, "wb") as pipe:

            def sink(chunk: bytes) -> None:
                pipe.write(chunk)

            send(sink)
        return unpacked.result()


class _Unpacking:
    def __init__(self, root: int, limits: Limits, top: frozenset[str] | None) -> None:
        self._root = root
        self._limits = limits
        self._top = top
        self._files: dict[str, PulledFile] = {}
        self._refused: dict[str, str] = {}
        self._sums: bytes | None = None

    def unpack(self, archive: Archive, *, sums: bool) -> Unpacked:
        """Write each member to its place or refuse it; ``sums``: compare all with the sender's hashes."""
        try:
            for member, content in archive.members():
                if sums and member.name == SUMS and member.isreg():
                    if member.size > _SUMS_LONGEST_BYTES:
                        raise too_much(f"{SUMS} of {member.size} bytes")
                    self._sums = b"".join(content)
                elif why := self._objection(member):
                    self._refused[member.name] = why
                else:
                    self._make(member, content)
        except MALFORMED as error:
            if archive.ended:
                raise CutError from error
            raise PullFailed(f"what the node sent is damaged: {error}") from error
        if sums:
            self._check_sums()
        refused = (f"{encode_name(name)} ({why})" for name, why in self._refused.items())
        return Unpacked(tuple(self._files.values()), tuple(refused))

    def _objection(self, member: tarfile.TarInfo) -> str:
        """Return why this member is refused, or an empty string."""
        parts = _parts(member.name)
        leads_out = ".." in parts or "\0" in member.name or not (parts or member.isdir())
        objections = {
            _KINDS.get(member.type, "special file"): not (member.isreg() or member.isdir()),
            "absolute path": member.name.startswith("/"),
            "path that leads out": leads_out,
            f"{member.size} bytes": member.size > self._limits.file_bytes,
            "sent twice": "/".join(parts) in self._files,
            "not a part of results": self._top is not None and bool(parts) and parts[0] not in self._top,
        }
        return next((why for why, holds in objections.items() if holds), "")

    def _make(self, member: tarfile.TarInfo, content: Iterable[bytes]) -> None:
        parts = _parts(member.name)
        try:
            with self._directory(parts if member.isdir() else parts[:-1]) as parent:
                if member.isdir():
                    return
                stored, descriptor = _new_file(parts[-1], parent, 0o755 if member.mode & 0o100 else 0o644)
            digest = hashlib.sha256()
            with os.fdopen(descriptor, "wb") as file:
                for piece in content:
                    digest.update(piece)
                    file.write(piece)
        except OSError as error:
            if error.errno not in _IMPOSSIBLE:
                raise
            self._refused[member.name] = f"no place for it here: {error.strerror}"
        else:
            name, path = "/".join(parts), "/".join([*parts[:-1], stored])
            origin = name if path != name else ""
            self._files[name] = PulledFile(path, member.size, digest.hexdigest(), origin)

    @contextlib.contextmanager
    def _directory(self, parts: list[str]) -> Iterator[int]:
        """Yield a handle of the directory, which is made if it is missing."""
        handle = os.dup(self._root)
        try:
            for part in parts:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, 0o755, dir_fd=handle)
                inner = os.open(part, _DIRECTORY, dir_fd=handle)
                os.close(handle)
                handle = inner
            yield handle
        finally:
            os.close(handle)

    def _check_sums(self) -> None:
        if self._sums is None:
            raise CutError
        refused = self._refused.keys() - self._files.keys()
        try:
            announced = {
                "/".join(_parts(name)): (int(size), str(hexed))
                for sent, (size, hexed) in json.loads(self._sums).items()
                if (name := os.fsdecode(os.fsencode(sent))) not in refused
            }
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise PullFailed(f"the node's {SUMS} cannot be parsed: {error}") from error
        for name, sent in announced.items():
            file = self._files.get(name)
            if file is None:
                raise PullFailed(f"{encode_name(name)} was announced but did not arrive")
            if sent != (file.size_bytes, file.sha256):
                raise PullFailed(f"{encode_name(name)} was damaged on the way: its hash differs")
        for name in self._files.keys() - announced.keys():
            raise PullFailed(f"{encode_name(name)} arrived without its hash")


def _new_file(leaf: str, parent: int, mode: int) -> tuple[str, int]:
    """Return name and descriptor of a new file.

    It gets another name where this file system cannot hold ``leaf``: not beside a name that differs only in
    case, or not at all.
    """
    others = (f"{encode_name(leaf)}~{number}" for number in itertools.count(2))
    for name in itertools.chain([leaf], others):
        try:
            return name, os.open(name, _NEW_FILE, mode, dir_fd=parent)
        except OSError as error:
            if error.errno not in {errno.EEXIST, errno.EILSEQ}:
                raise
    raise AssertionError


def _parts(name: str) -> list[str]:
    return [part for part in name.split("/") if part not in {"", "."}]
