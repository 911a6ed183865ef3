"""Unpacks a node's tar below a directory, while it is sent, and trusts nothing in it.

Plain files, directories and links that stay inside are made.  Each is opened relative to the handle of its
directory, without following links.  Everything else is refused by name, and the rest continues.
"""

import contextlib
import errno
import hashlib
import itertools
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from rain_deploy.errors import PullFailed
from rain_deploy.node.wire import Limits
from rain_deploy.results.archive import LEFT, MALFORMED, PIECE_BYTES, SUMS, Archive, Content, too_much
from rain_deploy.results.names import encode_name

_LONGEST_BYTES = {SUMS: 100_000_000, LEFT: 16_000_000}  # a node's list of what stays has half of that at most
_ZEROS = bytes(PIECE_BYTES)
_IMPOSSIBLE = {errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG}
_NO_LINKS = {*_IMPOSSIBLE, errno.EEXIST, errno.EPERM, errno.EOPNOTSUPP, errno.EILSEQ}
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_KINDS = {
    tarfile.SYMTYPE: "link that leads out",
    tarfile.LNKTYPE: "hard link",
    tarfile.FIFOTYPE: "fifo",
    tarfile.CHRTYPE: "device",
    tarfile.BLKTYPE: "device",
}


class CutError(PullFailed):
    """The stream ended too early."""

    def __init__(self) -> None:
        super().__init__("the results were cut off on the way")


NO_LIMITS = Limits(files=10**12, file_bytes=10**18, total_bytes=10**18)


@dataclass(frozen=True, slots=True)
class PulledFile:
    """One file that was written."""

    path: str  # its name below the target
    size_bytes: int
    sha256: str
    origin: str = ""  # its name on the node, if this file system cannot hold that


class Unpacked(NamedTuple):
    """The contents of a complete stream: files, links (name and target), and why names were refused."""

    files: tuple[PulledFile, ...]
    links: dict[str, str]
    refused: dict[str, str]


def receive(
    send: Callable[[Callable[[bytes], None]], None],
    target: Path,
    limits: Limits | None = None,
    *,
    top: frozenset[str] | None = None,
    sums: bool = True,
    links: bool = True,
) -> Unpacked:
    """Unpack below ``target``, while it is sent, the tar that ``send`` hands to its sink.

    ``target`` is made if it is missing.  Existing files are never overwritten.  ``top`` lists the names that
    are accepted at the top level, None accepts any.  With ``sums``, the files must match the hashes in the
    member sums.json, so a cut or damaged stream is never taken for the whole; without, none is computed.
    Without ``links``, every link is refused: what stays inside ``target`` may lead out of where it goes next.

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
            return _Unpacking(root, limits, top, sums=sums, links=links).unpack(Archive(stream, limits))

    with ThreadPoolExecutor(1) as pool:
        unpacked = pool.submit(unpack)
        with contextlib.suppress(BrokenPipeError), os.fdopen(there, "wb") as pipe:

            def sink(chunk: bytes) -> None:
                pipe.write(chunk)

            send(sink)
        return unpacked.result()


class _Unpacking:
    def __init__(
        self, root: int, limits: Limits, top: frozenset[str] | None, *, sums: bool, links: bool
    ) -> None:
        self._root = root
        self._limits = limits
        self._top = top
        self._with_sums = sums
        self._with_links = links
        self._files: dict[str, PulledFile] = {}
        self._sent: dict[str, str] = {}  # hashes of what was sent of files
        self._links: dict[str, str] = {}
        self._refused: dict[str, str] = {}
        self._sums: bytes | None = None

    def unpack(self, archive: Archive) -> Unpacked:
        """Write each member to its place or refuse it, and compare all with the sender's hashes."""
        try:
            for member, content in archive.members():
                if self._with_sums:
                    _check_own(member, content)
                if self._with_sums and member.name == SUMS and member.isreg():
                    self._sums = b"".join(piece for _, piece in content)
                elif why := self._objection(member, content):
                    self._refused[member.name] = why
                else:
                    self._make(member, content)
        except MALFORMED as error:
            if archive.ended:
                raise CutError from error
            raise PullFailed(f"what the node sent is damaged: {error}") from error
        if self._with_sums:
            self._check_sums()
        return Unpacked(tuple(self._files.values()), self._links, self._refused)

    def _objection(self, member: tarfile.TarInfo, content: Content) -> str:
        """Return why this member is refused, or an empty string."""
        parts = _parts(member.name)
        leads_out = ".." in parts or "\0" in member.name or not (parts or member.isdir())
        kept = member.isreg() or member.isdir() or (member.issym() and _stays_inside(parts, member.linkname))
        objections = {
            "link": member.issym() and not self._with_links,
            _KINDS.get(member.type, "special file"): not kept,
            "absolute path": member.name.startswith("/"),
            "path that leads out": leads_out,
            f"{content.stored_bytes} bytes": content.stored_bytes > self._limits.file_bytes,
            "sent twice": "/".join(parts) in self._files or "/".join(parts) in self._links,
            "not a part of results": self._top is not None and bool(parts) and parts[0] not in self._top,
        }
        return next((why for why, holds in objections.items() if holds), "")

    def _make(self, member: tarfile.TarInfo, content: Content) -> None:
        parts = _parts(member.name)
        name = "/".join(parts)
        try:
            with self._directory(parts if member.isdir() else parts[:-1]) as parent:
                if member.isdir():
                    return
                if member.issym():
                    os.symlink(member.linkname, parts[-1], dir_fd=parent)
                    self._links[name] = member.linkname
                    return
                stored, descriptor = _new_file(parts[-1], parent, 0o755 if member.mode & 0o100 else 0o644)
            with os.fdopen(descriptor, "wb") as file:
                digest, self._sent[name] = _written(content, file, hashed=self._with_sums)
        except OSError as error:
            if error.errno not in (_NO_LINKS if member.issym() else _IMPOSSIBLE):
                raise
            self._refused[member.name] = f"no place for it here: {error.strerror}"
        else:
            path = "/".join([*parts[:-1], stored])
            origin = name if path != name else ""
            self._files[name] = PulledFile(path, content.length_bytes, digest, origin)

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
        arrived = {name: (file.size_bytes, self._sent[name]) for name, file in self._files.items()}
        for name, target in self._links.items():
            data = os.fsencode(target)
            arrived[name] = (len(data), hashlib.sha256(data).hexdigest())
        for name, sent in announced.items():
            if name not in arrived:
                raise PullFailed(f"{encode_name(name)} was announced but did not arrive")
            if sent != arrived[name]:
                raise PullFailed(f"{encode_name(name)} was damaged on the way: its hash differs")
        for name in arrived.keys() - announced.keys():
            raise PullFailed(f"{encode_name(name)} arrived without its hash")


def _check_own(member: tarfile.TarInfo, content: Content) -> None:
    """Raise UnsafeResults if this is one of the two files about the others and cannot be read at once."""
    longest = _LONGEST_BYTES.get(member.name, content.length_bytes)
    if content.length_bytes > longest:
        raise too_much(f"{member.name} of {content.length_bytes} bytes")
    if member.name in _LONGEST_BYTES and content.stored_bytes < content.length_bytes:
        raise too_much(f"{member.name} with holes")


def _written(content: Content, file: BinaryIO, *, hashed: bool) -> tuple[str, str]:
    """Write a file, with its holes; return its hash, and the hash of what was sent."""
    whole = sent = hashlib.sha256()
    if content.head:
        sent = hashlib.sha256(content.head)
    position = 0
    for offset, piece in content:
        file.seek(offset)
        file.write(piece)
        if hashed:
            _hash_zeros(whole, offset - position)
            whole.update(piece)
            if content.head:
                sent.update(piece)
        position = offset + len(piece)
    file.truncate(content.length_bytes)
    if hashed:
        _hash_zeros(whole, content.length_bytes - position)
    return whole.hexdigest(), sent.hexdigest()


def _hash_zeros(digest: "hashlib._Hash", count: int) -> None:
    for start in range(0, count, PIECE_BYTES):
        digest.update(_ZEROS[: count - start])


def _stays_inside(parts: list[str], target: str) -> bool:
    """Return whether a link's target cannot lead out: it goes up at its start only, and not too far."""
    steps = _parts(target)
    up = len(steps) - len(list(itertools.dropwhile(lambda step: step == "..", steps)))
    return (
        bool(target)
        and target[0] != "/"
        and "\0" not in target
        and ".." not in steps[up:]
        and up < len(parts)
    )


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
