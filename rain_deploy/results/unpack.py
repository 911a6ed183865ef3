"""Unpacks a node's tar below a directory, while it is sent, and trusts nothing in it.

Plain files and directories are made.  Each is opened relative to the handle of its directory, without
following links.  Everything else is refused by name, and the rest goes on.
"""

import contextlib
import errno
import hashlib
import itertools
import json
import os
import tarfile
import urllib.parse
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple, Self, cast

from rain_deploy.errors import PullFailed, UnsafeResults

SUMS = "sums.json"  # name of the member that maps the path of every other file to [size in bytes, sha256]
_SUMS_LONGEST_BYTES = 100_000_000
_LONGEST_HEADER_BYTES = 1 << 20  # how much may be sent between the contents of two files
_PIECE_BYTES = 1 << 16
_MALFORMED = (tarfile.TarError, ValueError, LookupError, OverflowError, RecursionError)
"""What tarfile raises for bytes that are not a tar."""
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


class CutError(PullFailed):
    """The stream ended too early."""

    def __init__(self) -> None:
        super().__init__("the results were cut off on the way")


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is accepted from a node; ``files`` counts members of any kind."""

    files: int = 200_000
    file_bytes: int = 20 * 10**9
    total_bytes: int = 100 * 10**9


@dataclass(frozen=True, slots=True)
class PulledFile:
    """One file that was written."""

    path: str  # its name below the target
    size_bytes: int
    sha256: str
    origin: str = ""  # its name on the node, if this file system cannot hold that


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
            return _Unpacking(root, limits, top).unpack(_Archive(stream, limits), sums=sums)

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

    def unpack(self, archive: "_Archive", *, sums: bool) -> Unpacked:
        """Write each member to its place or refuse it; ``sums``: compare all with the sender's hashes."""
        try:
            for member, content in archive.members():
                if sums and member.name == SUMS and member.isreg():
                    if member.size > _SUMS_LONGEST_BYTES:
                        raise _too_much(f"{SUMS} of {member.size} bytes")
                    self._sums = b"".join(content)
                elif why := self._objection(member):
                    self._refused[member.name] = why
                else:
                    self._make(member, content)
        except _MALFORMED as error:
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


def _too_much(what: str) -> UnsafeResults:
    return UnsafeResults(f"the results were refused: {what}")


class _Header(tarfile.TarInfo):
    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Raise ReadError for all but a good header; HeaderError, which ends the archive, at its end mark."""
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if len(buf) == tarfile.BLOCKSIZE and not any(buf):
                raise
            raise tarfile.ReadError(str(error)) from error


class _Archive:
    """The members of a tar in a stream: tarfile does the parsing, the limits are ours.

    Memory stays flat whatever is sent.  tarfile reads headers of any size, keeps every member, and takes a
    damaged header for the end of the archive; this forbids all three.  All methods raise UnsafeResults when a
    limit is passed, and one of ``_MALFORMED`` for a stream that is damaged, or cut: then it has ``ended``.
    """

    def __init__(self, stream: BinaryIO, limits: Limits) -> None:
        self._stream = stream
        self._limits = limits
        self._received_bytes = 0
        self._header_bytes = 0
        self.ended = False

    def read(self, size: int) -> bytes:
        """Return the next bytes of the stream; tarfile calls this."""
        data = self._stream.read(size)
        self.ended = not data
        self._received_bytes += len(data)
        self._header_bytes += len(data)
        if self._received_bytes > self._limits.total_bytes + 4096 * self._limits.files:
            raise _too_much(f"more than {self._limits.total_bytes} bytes")
        if self._header_bytes > _LONGEST_HEADER_BYTES + 2 * _PIECE_BYTES:
            raise tarfile.ReadError(f"a header of more than {_LONGEST_HEADER_BYTES} bytes")
        return data

    def members(self) -> Iterator[tuple[tarfile.TarInfo, Iterator[bytes]]]:
        """Yield each member with its content; names that are not UTF-8 hold surrogate escapes."""
        with tarfile.open(
            fileobj=cast("BinaryIO", self), mode="r|", bufsize=_PIECE_BYTES, tarinfo=_Header, encoding="utf-8"
        ) as tar:
            for number, member in enumerate(iter(tar.next, None), 1):
                tar.members.clear()  # type: ignore[attr-defined]
                tar.pax_headers = {}
                if member.issparse() or member.size < 0:
                    raise tarfile.ReadError("a file with holes or of negative size")
                if number > self._limits.files:
                    raise _too_much(f"more than {self._limits.files} files")
                if self._received_bytes + member.size > self._limits.total_bytes:
                    raise _too_much(f"{encode_name(member.name)} of {member.size} bytes")
                content = self._content(tar, member)
                yield member, content
                for _ in content:
                    pass
        while self.read(_PIECE_BYTES):
            self._header_bytes = 0

    def _content(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> Iterator[bytes]:
        self._header_bytes = 0
        if member.isreg() or member.type not in tarfile.SUPPORTED_TYPES:
            file = tar.extractfile(member)
            while file and (piece := file.read(_PIECE_BYTES)):
                self._header_bytes = 0
                yield piece


def encode_name(name: str) -> str:
    """Return the name with ``%XX`` for ``%``, bytes that are not UTF-8, and characters that do not print."""
    return "".join(
        char
        if char.isprintable() and char != "%"
        else "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "surrogateescape"))
        for char in name
    )


def decode_name(text: str) -> str:
    """Return the name that ``encode_name`` was given."""
    return urllib.parse.unquote_to_bytes(text).decode("utf-8", "surrogateescape")
