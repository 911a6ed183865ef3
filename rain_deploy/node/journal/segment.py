"""Segments, the files of the journal: written once, whole or not at all, and never changed.

A segment is a magic line, then records.  A record is the length of its header, the SHA-256 of the header, the
header (a ``Record`` as JSON), and the bodies of its outputs.  The header has the size and SHA-256 of each
body.  So no damage can make a wrong result: what a bit flipped or cut off concerns does not fit any more.
"""

import contextlib
import hashlib
import json
import os
import struct
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Self

from ..wire import Parameter, WireError, parse, read, to_json

Json = dict[str, Any]
MAGIC = b"rain-deploy journal 1\n"
_LEAD = struct.Struct(">I32s")  # length and SHA-256 of the header
_PIECE_BYTES = 1 << 20
_SYNCED_BYTES = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """One output of a task."""

    info: Json  # Rain's ObjectInfo as JSON; {} if there is none
    data_type: str  # "blob", or "dir", whose content is Rain's tar
    content_type: str
    size_bytes: int
    sha256: str

    @classmethod
    def of(cls, body: bytes, *, info: Json, data_type: str, content_type: str) -> Self:
        """Return the output that has this body."""
        digest = hashlib.sha256(body).hexdigest()
        return cls(
            info=info, data_type=data_type, content_type=content_type, size_bytes=len(body), sha256=digest
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """How a task ended.

    One of the kind "files" is about the files that were shipped with a script, "merged" about segments.
    """

    key: str  # 64 hex digits; empty where it is about no task
    kind: str  # "result", "failure" (no outputs), "files", or "merged"
    name: str = ""
    task_type: str = ""
    run: str = ""
    attempt: int = 0
    epoch: int = 0
    node: str = ""  # name of the node
    started_s: float | None = None
    duration_s: float | None = None
    ended_s: float | None = None
    info: Json = field(default_factory=dict)  # Rain's TaskInfo as JSON
    outputs: tuple[Output, ...] = ()
    message: str = ""  # the whole text of a failure's error
    value: Parameter | None = None
    values: dict[str, Parameter | None] = field(default_factory=dict)
    parts: dict[str, str] = field(default_factory=dict)  # of the key: digits of digests by plain names


@dataclass(frozen=True, slots=True)
class Place:
    """Where a body lies, so that another process can read it."""

    file: str
    offset: int
    size_bytes: int
    sha256: str


class Entry(NamedTuple):
    """Where a record lies, and what the index needs of it."""

    file: Path
    offset: int  # of the record
    header: int  # length of the header
    digest: bytes  # of the header
    bodies: int  # bytes of all bodies
    key: str
    kind: str
    name: str
    run: str

    @property
    def start(self) -> int:
        """Return the offset of the header."""
        return self.offset + _LEAD.size

    @property
    def end(self) -> int:
        return self.start + self.header + self.bodies


def read_body(place: Place) -> bytes | None:
    """Return a body; None if it is damaged or its segment is gone."""
    try:
        with open(place.file, "rb") as file:  # noqa: PTH123 - 30,000 of them are read at once
            file.seek(place.offset)
            body = file.read(place.size_bytes)
    except OSError:
        return None
    return body if hashlib.sha256(body).hexdigest() == place.sha256 else None


def read_record(entry: Entry) -> tuple[Record, tuple[Place, ...]] | None:
    """Return a record and the places of its bodies; None if it is damaged or its segment is gone."""
    return next(((record, places) for _, record, places in read_records([entry])), None)


def read_records(
    entries: Iterable[Entry], *, whole: bool = False, tell: Callable[[], None] = lambda: None
) -> Iterator[tuple[Entry, Record, tuple[Place, ...]]]:
    """Yield records and the places of their bodies, without those that are damaged or gone.

    ``whole``: also without those that have a damaged body; ``tell`` is called after each piece that is read
    for this, which may take minutes.  Each segment is opened once.
    """
    in_order = sorted(entries, key=lambda entry: (entry.file.name, entry.offset))
    for path, mine in groupby(in_order, key=attrgetter("file")):
        with contextlib.suppress(OSError), path.open("rb") as file:
            for entry in mine:
                with contextlib.suppress(WireError):
                    if (header := _header(file, entry)) is None:
                        continue
                    record = read(Record, header)
                    places = tuple(_places(entry, record))
                    if not whole or all(_is_intact(file, place, tell) for place in places):
                        yield entry, record, places


def _is_intact(file: BinaryIO, place: Place, tell: Callable[[], None]) -> bool:
    file.seek(place.offset)
    digest, left = hashlib.sha256(), place.size_bytes
    while left and (piece := file.read(min(left, _PIECE_BYTES))):
        digest.update(piece)
        left -= len(piece)
        tell()
    return digest.hexdigest() == place.sha256


def _header(file: BinaryIO, entry: Entry) -> bytes | None:
    file.seek(entry.start)
    header = file.read(entry.header)
    return header if hashlib.sha256(header).digest() == entry.digest else None


def _places(entry: Entry, record: Record) -> Iterator[Place]:
    offset = entry.start + entry.header
    for output in record.outputs:
        yield Place(str(entry.file), offset, output.size_bytes, output.sha256)
        offset += output.size_bytes


def scan(path: Path) -> tuple[list[Entry], str]:
    """Return the records of a segment up to the first damaged one, and what is damaged; empty if nothing."""
    found: list[Entry] = []
    at = len(MAGIC)
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if file.read(len(MAGIC)) != MAGIC:
                return found, "its first line is not that of a segment"
            while at < size:
                found.append(_entry(file, path, at, size))
                at = found[-1].end
                file.seek(at)
    except FileNotFoundError:  # pruned meanwhile
        return [], ""
    except (OSError, ValueError, LookupError, TypeError, struct.error) as error:
        return found, f"the record at byte {at} cannot be read: {error}" if found else str(error)
    return found, ""


def is_whole(path: Path) -> bool:
    """Read a segment, and return whether it is there and nothing in it is damaged."""
    entries, damage = scan(path)
    return path.exists() and not damage and len(list(read_records(entries, whole=True))) == len(entries)


def _entry(file: BinaryIO, path: Path, at: int, size: int) -> Entry:
    """Return the record at this place.  Raises ValueError, LookupError, TypeError or struct.error."""
    length, digest = _LEAD.unpack(file.read(_LEAD.size))
    if length > size - at:
        raise ValueError("it is cut off")
    header = file.read(length)
    if hashlib.sha256(header).digest() != digest:
        raise ValueError("its header does not have its checksum")
    about: Any = parse(header)
    bodies = sum(output["size_bytes"] for output in about["outputs"])
    words = about["key"], about["kind"], about["name"], sys.intern(about["run"])  # one text for all of a run
    entry = Entry(path, at, length, digest, bodies, *words)
    if entry.end > size:
        raise ValueError("it is cut off")
    return entry


def laid_out(path: Path, batch: Iterable[tuple[Record, Sequence[bytes]]]) -> tuple[list[Entry], list[bytes]]:
    """Return where records will lie in a segment, and its bytes in pieces, without the magic line."""
    at, entries, pieces = len(MAGIC), list[Entry](), list[bytes]()
    for record, bodies in batch:
        if [output.size_bytes for output in record.outputs] != [len(body) for body in bodies]:
            raise ValueError(f"the outputs of {record.key} are not of the size that its record says")
        header = json.dumps(to_json(record)).encode("ascii")
        digest = hashlib.sha256(header).digest()
        words = record.key, record.kind, record.name, record.run
        entries.append(Entry(path, at, len(header), digest, sum(map(len, bodies)), *words))
        pieces += (_LEAD.pack(len(header), digest) + header, *bodies)
        at = entries[-1].end
    return entries, pieces


def copied(entry: Entry) -> Iterator[bytes]:
    """Yield the bytes of a stored record in pieces; nothing if it is damaged.  Raises OSError."""
    found = read_record(entry)
    bodies = [read_body(place) for place in found[1]] if found else []
    if found and None not in bodies:
        with entry.file.open("rb") as file:
            header = _header(file, entry)
        if header is not None:
            yield _LEAD.pack(len(header), entry.digest) + header
            yield from (body for body in bodies if body is not None)


def write_segment(path: Path, pieces: Iterable[bytes], tell: Callable[[], None] = lambda: None) -> None:
    """Write a segment durably.  Raises OSError, and then nothing of it is left.

    ``tell`` is called after every 64 MB, which are on the disk then: all at once may take minutes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    made = [temporary]
    try:
        with temporary.open("wb") as file:
            file.write(MAGIC)
            for part in _parts(pieces):
                file.write(part)
                if len(part) == _SYNCED_BYTES:
                    file.flush()
                    os.fdatasync(file.fileno())
                    tell()
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        made.append(path)
        sync_directory(path.parent)
    except BaseException:
        for half_made in made:
            with contextlib.suppress(OSError):
                half_made.unlink(missing_ok=True)
        raise


def _parts(pieces: Iterable[bytes]) -> Iterator[memoryview]:
    for piece in pieces:
        for start in range(0, len(piece), _SYNCED_BYTES):
            yield memoryview(piece)[start : start + _SYNCED_BYTES]


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable.  Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
