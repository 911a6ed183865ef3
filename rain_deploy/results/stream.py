"""Reads a tar while a node sends it: tarfile does the parsing, the limits are ours.

Memory stays flat whatever is sent.  tarfile reads headers of any size, keeps every member, and takes a
damaged header for the end of the archive; ``Archive`` forbids all three.
"""

from __future__ import annotations

import tarfile
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Self, cast

from rain_deploy.errors import PullFailed, UnsafeResults

_LONGEST_HEADER_BYTES = 1 << 20
"""How much may be sent between the contents of two files."""
_PIECE_BYTES = 1 << 16
MALFORMED = (tarfile.TarError, ValueError, LookupError, OverflowError, RecursionError)
"""What tarfile raises for bytes that are not a tar."""


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


def too_much(what: str) -> UnsafeResults:
    """Return the error for a limit that was passed."""
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


class Archive:
    """The members of a tar in a stream.

    All methods raise UnsafeResults when a limit is passed, and one of ``MALFORMED`` for a stream that is
    damaged, or cut: then it has ``ended``.
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
            raise too_much(f"more than {self._limits.total_bytes} bytes")
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
                    raise too_much(f"more than {self._limits.files} files")
                if self._received_bytes + member.size > self._limits.total_bytes:
                    raise too_much(f"{encode_name(member.name)} of {member.size} bytes")
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
