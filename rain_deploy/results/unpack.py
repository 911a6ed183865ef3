"""Unpacks a node's tar below a directory, believing nothing in it.

Plain files and directories are made, each opened relative to its directory's handle and without
following links; everything else is refused by name and the rest goes on.  What was received is compared
with the hashes in the last member, so a cut or damaged stream is never taken for the whole.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import os
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rain_deploy.errors import PullFailed, UnsafeResults
from rain_deploy.results.names import encode_name
from rain_deploy.results.tarstream import BrokenTarError, Member, TarStream

SUMS = "sums.json"
"""Name of the last member: {path: [size in bytes, sha256]} of all others."""
_SUMS_LONGEST_BYTES = 100_000_000
_FULL = {errno.ENOSPC, errno.EDQUOT}
_IMPOSSIBLE = {errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EEXIST, errno.EILSEQ}
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class CutError(PullFailed):
    """The stream ended before its last member."""

    def __init__(self) -> None:
        super().__init__("the results were cut off on their way")


@dataclass(frozen=True, slots=True)
class Limits:
    """What is accepted from a node."""

    files: int = 200_000
    """Members of any kind."""
    file_bytes: int = 20 * 10**9
    total_bytes: int = 100 * 10**9


@dataclass(frozen=True, slots=True)
class PulledFile:
    """A file as it lies here."""

    path: str
    """Below the target, as it is named here."""
    size_bytes: int
    sha256: str
    origin: str = ""
    """Its name on the node, where that could not be kept."""


@dataclass(frozen=True, slots=True)
class Unpacked:
    """What came of a whole stream."""

    files: tuple[PulledFile, ...]
    refused: tuple[str, ...]
    """Names, encoded for print, with the reason."""


@dataclass(slots=True)
class _Open:
    """The member being received; without ``descriptor`` its data is dropped."""

    name: str
    stored: str = ""
    descriptor: int | None = None
    size_bytes: int = 0
    hash: hashlib._Hash = field(default_factory=hashlib.sha256)


class Unpacker:
    """Takes the stream by ``write`` and lays its files below ``target``, made if it is missing.

    What lies there already is never written over.  ``top``: the only names accepted at the top level,
    None for any.  ``sums`` false: the sender is an ordinary tar that ends without hashes.

    All methods raise PullFailed (disk full, target not writable, damaged stream; CutError for one that was
    cut) and UnsafeResults (a limit passed).
    """

    def __init__(
        self,
        target: Path,
        limits: Limits | None = None,
        *,
        top: frozenset[str] | None = None,
        sums: bool = True,
    ) -> None:
        self._limits = limits or Limits()
        self._top = top
        self._target = target
        self._expect_sums = sums
        with self._translated():
            target.mkdir(parents=True, exist_ok=True)
            self._root = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._stream = TarStream(self)
        self._now: _Open | None = None
        self._files: dict[str, PulledFile] = {}
        self._folded: set[str] = set()
        self._refused: dict[str, str] = {}
        self._members = 0
        self._received_bytes = 0
        self._sums: bytearray | None = None

    def write(self, chunk: bytes) -> None:
        self._received_bytes += len(chunk)
        overhead_bytes = 4096 * self._limits.files
        if self._received_bytes > self._limits.total_bytes + overhead_bytes:
            raise _too_much(f"more than {self._limits.total_bytes} bytes")
        with self._translated():
            self._stream.write(chunk)

    def abandon(self) -> None:
        """Let go of all handles; what was made stays for the caller to remove.  Safe to call twice."""
        if self._now and self._now.descriptor is not None:
            os.close(self._now.descriptor)
        self._now = None
        if self._root >= 0:
            os.close(self._root)
            self._root = -1

    def close(self) -> Unpacked:
        """Compare with the sender's hashes and hand over what was made."""
        self.abandon()
        if not self._stream.ended or (self._expect_sums and self._sums is None):
            raise CutError
        if self._sums is not None:
            self._compare(_sums(bytes(self._sums)))
        refused = (f"{encode_name(name)} ({why})" for name, why in self._refused.items())
        return Unpacked(tuple(self._files.values()), tuple(refused))

    def _compare(self, sums: dict[str, tuple[int, str]]) -> None:
        refused = self._refused.keys() - self._files.keys()
        announced = {"/".join(_parts(name)): sent for name, sent in sums.items() if name not in refused}
        for name, sent in announced.items():
            file = self._files.get(name)
            if file is None:
                raise PullFailed(f"{encode_name(name)} was announced and did not come")
            if sent != (file.size_bytes, file.sha256):
                raise PullFailed(f"{encode_name(name)} was damaged on its way: its hash differs")
        for name in self._files.keys() - announced.keys():
            raise PullFailed(f"{encode_name(name)} came without its hash")

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except BrokenTarError as error:
            raise PullFailed(f"what the node sent is damaged: {error}") from error
        except OSError as error:
            full = "the disk is full at" if error.errno in _FULL else "cannot write below"
            raise PullFailed(f"{full} {self._target}: {error.strerror}") from error

    # ---- Receiver

    def begin(self, member: Member) -> None:
        """Open the place of a member, or decide that it gets none."""
        self._members += 1
        if self._members > self._limits.files:
            raise _too_much(f"more than {self._limits.files} files")
        if self._received_bytes + member.size_bytes > self._limits.total_bytes:
            raise _too_much(f"{encode_name(member.name)} of {member.size_bytes} bytes")
        self._now = _Open("/".join(_parts(member.name)))
        if self._sums is not None:
            self._refuse(member.name, "after the end")
        elif self._expect_sums and member.name == SUMS and member.kind == "file":
            if member.size_bytes > _SUMS_LONGEST_BYTES:
                raise _too_much(f"{SUMS} of {member.size_bytes} bytes")
            self._sums = bytearray()
            self._now.stored = SUMS
        elif why := self._objection(member):
            self._refuse(member.name, why)
        else:
            self._make(self._now, member)

    def data(self, piece: memoryview) -> None:
        now = self._now
        assert now is not None
        if now.descriptor is None:
            if now.stored == SUMS and self._sums is not None:
                self._sums += piece
            return
        now.hash.update(piece)
        now.size_bytes += len(piece)
        while piece:
            piece = piece[os.write(now.descriptor, piece) :]

    def end(self) -> None:
        now = self._now
        assert now is not None
        self._now = None
        if now.descriptor is not None:
            os.close(now.descriptor)
            origin = now.name if now.stored != now.name else ""
            self._folded.add(_fold(now.name))
            self._files[now.name] = PulledFile(now.stored, now.size_bytes, now.hash.hexdigest(), origin)

    # ---- placing

    def _refuse(self, name: str, why: str) -> None:
        self._refused[name] = why

    def _objection(self, member: Member) -> str:
        """Why this member is not made here; empty when it is."""
        parts = _parts(member.name)
        leads_out = ".." in parts or "\0" in member.name or (not parts and member.kind == "file")
        no_part = self._top is not None and bool(parts) and parts[0] not in self._top
        objections = {
            member.kind: member.kind not in {"file", "directory"},
            "absolute path": member.name.startswith("/"),
            "path that leads out": leads_out,
            f"{member.size_bytes} bytes": member.size_bytes > self._limits.file_bytes,
            "sent twice": "/".join(parts) in self._files,
            "no part of results": no_part,
        }
        return next((why for why, holds in objections.items() if holds), "")

    def _make(self, now: _Open, member: Member) -> None:
        parts = _parts(member.name)
        *above, leaf = parts if member.kind == "file" else [*parts, ""]
        try:
            parent = self._directory(above)
            try:
                if member.kind == "file":
                    mode = 0o755 if member.mode & 0o100 else 0o644
                    twin = _fold(now.name) in self._folded
                    stored, now.descriptor = _new_file(leaf, parent, mode, twin=twin)
                    now.stored = "/".join([*above, stored])
            finally:
                os.close(parent)
        except OSError as error:
            if error.errno not in _IMPOSSIBLE:
                raise
            self._refuse(member.name, f"no place for it here: {error.strerror}")

    def _directory(self, parts: list[str]) -> int:
        """A handle of the directory, made where it is missing."""
        handle = os.dup(self._root)
        for part in parts:
            try:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, 0o755, dir_fd=handle)
                inner = os.open(part, _DIRECTORY, dir_fd=handle)
            finally:
                os.close(handle)
            handle = inner
        return handle


def _new_file(leaf: str, parent: int, mode: int, *, twin: bool) -> tuple[str, int]:
    """Name and descriptor; another name where this file system cannot hold it, or not beside its twin."""
    others = (f"{encode_name(leaf)}~{number}" for number in itertools.count(2))
    name = leaf
    while True:
        try:
            return name, os.open(name, _NEW_FILE, mode, dir_fd=parent)
        except OSError as error:
            if error.errno != errno.EILSEQ and not (error.errno == errno.EEXIST and (twin or name != leaf)):
                raise
            name = next(others)


def _fold(name: str) -> str:
    """Equal for names that some file system takes for one."""
    return unicodedata.normalize("NFC", name.casefold())


def _parts(name: str) -> list[str]:
    return [part for part in name.split("/") if part not in {"", "."}]


def _too_much(what: str) -> UnsafeResults:
    return UnsafeResults(f"the results were refused: {what}")


def _sums(data: bytes) -> dict[str, tuple[int, str]]:
    try:
        entries = json.loads(data).items()
        return {os.fsdecode(os.fsencode(name)): (int(size), str(hexed)) for name, (size, hexed) in entries}
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise PullFailed(f"{SUMS} of the node does not parse: {error}") from error
