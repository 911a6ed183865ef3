"""A reader of a tar that is pushed to it in pieces, in flat memory, whatever the sender made of it.

The standard reader keeps every member, reads headers of any announced size whole and follows them by
recursion; a hostile sender decides all three.  Here only the parsing of one header block is its work.
"""

from __future__ import annotations

import tarfile
from collections.abc import Generator
from dataclasses import dataclass
from typing import Protocol

LONGEST_HEADER_BYTES = 1 << 20
"""Of the extended header of one member."""
_BLOCK = tarfile.BLOCKSIZE
_EXTENDED = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)


class BrokenTarError(Exception):
    """The stream is no tar, or was damaged."""


@dataclass(frozen=True, slots=True)
class Member:
    """What the sender says of a member; its ``name`` is anything, bad UTF-8 as surrogate escapes."""

    name: str
    kind: str
    """``file``, ``directory``, or what it is instead: ``symlink``, ``hard link``, ``device`` …"""
    size_bytes: int
    mode: int


class Receiver(Protocol):
    """Is told of each member in turn: begin, its data (a file's alone), end."""

    def begin(self, member: Member) -> None: ...

    def data(self, piece: memoryview) -> None: ...

    def end(self) -> None: ...


Wants = Generator[int, memoryview, None]


class TarStream:
    """``write`` takes the stream in pieces of any size; what the receiver raises comes out of it."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._machine = self._members()
        self._wanted = next(self._machine)
        self.ended = False
        """True once the end mark was read: the stream was not cut between two members."""

    def write(self, chunk: bytes) -> None:
        """Raises BrokenTarError."""
        view = memoryview(chunk)
        while view and not self.ended:
            piece, view = view[: self._wanted], view[self._wanted :]
            try:
                self._wanted = self._machine.send(piece)
            except StopIteration:
                self.ended = True

    def _members(self) -> Wants:
        extended: dict[str, str] = {}
        while (header := (yield from _exactly(_BLOCK))).count(0) != _BLOCK:
            info = _header(header)
            if info.type in _EXTENDED:
                extended |= _records((yield from _long(info)))
            elif info.type == tarfile.GNUTYPE_LONGNAME:
                name = (yield from _long(info)).rstrip(b"\0")
                extended["path"] = name.decode("utf-8", "surrogateescape")
            elif info.type in {tarfile.GNUTYPE_LONGLINK, tarfile.XGLTYPE}:
                yield from _long(info)
            else:
                yield from self._member(info, extended)
                extended = {}

    def _member(self, info: tarfile.TarInfo, extended: dict[str, str]) -> Wants:
        size_bytes = _size(extended["size"]) if "size" in extended else info.size
        kind = "sparse file" if "sparse" in extended else _kind(info)
        self._receiver.begin(Member(extended.get("path", info.name), kind, size_bytes, info.mode))
        if info.isreg() or info.type not in tarfile.SUPPORTED_TYPES:
            left = size_bytes
            while left:
                piece = yield left
                left -= len(piece)
                self._receiver.data(piece)
            yield from _padding(size_bytes)
        self._receiver.end()


def _exactly(size_bytes: int) -> Generator[int, memoryview, bytes]:
    whole = bytearray()
    while len(whole) < size_bytes:
        whole += yield size_bytes - len(whole)
    return bytes(whole)


def _padding(size_bytes: int) -> Wants:
    yield from _exactly(-size_bytes % _BLOCK)


def _long(info: tarfile.TarInfo) -> Generator[int, memoryview, bytes]:
    """The data of a header that belongs to the next member."""
    if info.size > LONGEST_HEADER_BYTES:
        raise BrokenTarError(f"a header of {info.size} bytes")
    data = yield from _exactly(info.size)
    yield from _padding(info.size)
    return data


def _header(block: bytes) -> tarfile.TarInfo:
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError) as error:
        raise BrokenTarError(str(error)) from error
    if info.size < 0 or info.type == tarfile.GNUTYPE_SPARSE:
        raise BrokenTarError("a member of negative size or with holes")
    return info


def _size(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):  # noqa: PLR2004  digits of 2**63
        raise BrokenTarError("a size that is no number")
    return int(text)


def _records(data: bytes) -> dict[str, str]:
    """What we use of an extended header: lines ``length key=value``, length counting the whole line."""
    found = {}
    while data:
        number, _, _ = data.partition(b" ")
        length = _size(number.decode("ascii", "replace"))
        key, equals, value = data[len(number) + 1 : length - 1].partition(b"=")
        if not equals or data[length - 1 : length] != b"\n":
            raise BrokenTarError("an extended header that does not parse")
        if key in {b"path", b"size"}:
            found[key.decode()] = value.decode("utf-8", "surrogateescape")
        elif key.startswith(b"GNU.sparse"):
            found["sparse"] = ""
        data = data[length:]
    return found


def _kind(info: tarfile.TarInfo) -> str:
    if info.type in {tarfile.REGTYPE, tarfile.AREGTYPE}:
        return "file"
    if info.isdir():
        return "directory"
    kinds = {tarfile.SYMTYPE: "symlink", tarfile.LNKTYPE: "hard link", tarfile.FIFOTYPE: "fifo"}
    return kinds.get(info.type, "device" if info.isdev() else "special file")
