"""Reads the members of a tar in a stream, within limits; trusts nothing in it."""

import tarfile
from collections.abc import Callable, Iterator
from typing import BinaryIO, Self, cast

from rain_deploy.errors import UnsafeResults
from rain_deploy.node.wire import Limits, map_of_parts
from rain_deploy.results.names import encode_name

LEFT = "left.json"  # name of the member that says what stays on the node
SUMS = "sums.json"  # name of the member that maps each path to [size in bytes, sha256] of the content
_OWN_FILES = 2  # these two are not counted
_LONGEST_HEADER_BYTES = 1 << 20  # how much may be sent between the contents of two files
PIECE_BYTES = 1 << 16
MALFORMED = (tarfile.TarError, ValueError, LookupError, OverflowError, RecursionError)
"""Exceptions of tarfile for bytes that are not a tar."""


def too_much(what: str) -> UnsafeResults:
    """Return the error for a stream that passes a limit; the node must send less."""
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
    """The members of a tar in a stream: tarfile does the parsing, the limits are ours.

    Memory stays flat whatever is sent.  tarfile reads headers of any size, keeps every member, and takes a
    damaged header for the end of the archive; this forbids all three.  All methods raise UnsafeResults when a
    limit is passed, and one of ``MALFORMED`` for a stream that is damaged, or cut: then it has ``ended``.
    """

    def __init__(self, stream: BinaryIO, limits: Limits) -> None:
        self._stream = stream
        self._limits = limits
        self._received_bytes = 0
        self._lengths_bytes = 0
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
        if self._header_bytes > _LONGEST_HEADER_BYTES + 2 * PIECE_BYTES:
            raise tarfile.ReadError(f"a header of more than {_LONGEST_HEADER_BYTES} bytes")
        return data

    def members(self) -> Iterator[tuple[tarfile.TarInfo, "Content"]]:
        """Yield each member with its content; names that are not UTF-8 hold surrogate escapes."""
        with tarfile.open(
            fileobj=cast("BinaryIO", self), mode="r|", bufsize=PIECE_BYTES, tarinfo=_Header, encoding="utf-8"
        ) as tar:
            for number, member in enumerate(iter(tar.next, None), 1):
                tar.members.clear()  # type: ignore[attr-defined]
                tar.pax_headers = {}
                content = Content(tar, member, self._content_begins)
                if number > self._limits.files + _OWN_FILES:
                    raise too_much(f"more than {self._limits.files} files")
                if member.name not in {SUMS, LEFT}:
                    self._lengths_bytes += content.length_bytes
                if self._lengths_bytes > self._limits.total_bytes:
                    raise too_much(f"{encode_name(member.name)} of {content.length_bytes} bytes")
                yield member, content
                for _ in content:
                    pass
        while self.read(PIECE_BYTES):
            self._header_bytes = 0

    def _content_begins(self) -> None:
        """Let as much be read as the content of a member has; tarfile knows how much that is."""
        self._header_bytes = 0


class Content:
    """The content of a member: pieces with their offsets in the file, read once; a hole is no piece."""

    def __init__(self, tar: tarfile.TarFile, member: tarfile.TarInfo, piece_read: Callable[[], None]) -> None:
        self.length_bytes = int(member.pax_headers.get("GNU.sparse.realsize", member.size))
        has_content = member.isreg() or member.type not in tarfile.SUPPORTED_TYPES
        whole = [(0, member.size)] if has_content else []
        sparse = cast("list[tuple[int, int]] | None", member.sparse)
        self._segments = [part for part in (whole if sparse is None else sparse) if part[1]]
        self.head = b"" if sparse is None else map_of_parts(sparse)  # is hashed with the pieces
        self.stored_bytes = sum(size for _, size in self._segments)
        self._pieces = self._read(cast("BinaryIO", tar.fileobj), member.offset_data)
        self._piece_read = piece_read
        end = 0
        for offset, size in self._segments:
            if offset < end or size < 0:
                raise tarfile.ReadError("a file with parts that overlap")
            end = offset + size
        if self.length_bytes < end:
            raise tarfile.ReadError("a file that is longer than announced, or of negative size")

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        return self._pieces

    def _read(self, stream: BinaryIO, begin: int) -> Iterator[tuple[int, bytes]]:
        self._piece_read()
        stream.seek(begin)
        for offset, size in self._segments:
            for start in range(offset, offset + size, PIECE_BYTES):
                wanted = min(PIECE_BYTES, offset + size - start)
                piece = stream.read(wanted)
                if len(piece) < wanted:
                    raise tarfile.ReadError("unexpected end of data")
                self._piece_read()
                yield start, piece
