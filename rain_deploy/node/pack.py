"""``pack``: send a run's results as one tar stream; what stays here and the checksums come last.

What is sent is decided file by file, before a byte of it is sent.  A file with holes is sent without them.
"""

import errno
import hashlib
import io
import itertools
import json
import os
import stat
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from .files import read_json
from .run import the_run
from .tree import TOP, Entry, entries, unreadable
from .wire import LeftKind, LeftOut, LeftOuts, Limits, map_of_parts, to_json

Segment = tuple[int, int]  # offset and size of a part of a file that is not a hole
_BLOCK_BYTES = 1 << 18
_GNU_SPARSE = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
"""GNU tar's format of a file with holes: its length in another header, and a map before its parts."""
_SMALLEST_HOLE_BYTES = 1 << 16
_MOST_HOLES = 8192
_MOST_KNOWN = 2_000_000  # of all files; what is beyond is counted only, for the sake of memory
_LONGEST_LIST_BYTES = 8_000_000  # of the files that stay
_LONGEST_NAMES_BYTES = 50_000_000


class Content:
    """Reads the segments of a file that may grow or shrink meanwhile, and hashes what it returns.

    A tar member's size is sent before its content: a file that grew is cut; what cannot be read, or is gone,
    is zeros, and ``fault`` says why.
    """

    def __init__(self, file: BinaryIO, segments: list[Segment], head: bytes = b"", padding: int = 0) -> None:
        """``head`` comes first; ``padding`` is how many zeros follow it, which are not hashed."""
        self._file = file
        self._ready = head + bytes(padding)
        self._pieces = self._read(segments)
        self.sum = hashlib.sha256(head)
        self.fault = ""

    def read(self, size: int = _BLOCK_BYTES, /) -> bytes:
        """Return the next bytes, fewer only at the end."""
        while len(self._ready) < size and (piece := next(self._pieces, b"")):
            self._ready += piece
        data, self._ready = self._ready[:size], self._ready[size:]
        return data

    def _read(self, segments: list[Segment]) -> Iterator[bytes]:
        for offset, size in segments:
            for start in range(offset, offset + size, _BLOCK_BYTES):
                piece = self._piece(start, min(_BLOCK_BYTES, offset + size - start))
                self.sum.update(piece)
                yield piece

    def _piece(self, start: int, size: int) -> bytes:
        try:
            self._file.seek(start)
            data = self._file.read(size)
        except OSError as error:
            data, self.fault = b"", f"it cannot be read to its end: {error.strerror}"
        else:
            if len(data) < size:
                self.fault = "it became shorter while it was read; the rest is zeros here"
        return data + bytes(size - len(data))


def segments_of(descriptor: int, length_bytes: int) -> list[Segment]:
    """Return where a file has content; short holes count as content, so that the list stays short."""
    shortest = max(_SMALLEST_HOLE_BYTES, length_bytes // _MOST_HOLES)
    found = [(0, 0)]
    end = 0
    try:
        while end < length_bytes:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
            if start >= length_bytes:  # the file has grown meanwhile
                break
            end = min(os.lseek(descriptor, start, os.SEEK_HOLE), length_bytes)
            offset, size = found[-1]
            if start - (offset + size) < shortest:
                found[-1] = (offset, end - offset)
            else:
                found.append((start, end - start))
    except OSError as error:
        if error.errno != errno.ENXIO:  # ENXIO: no content from there on; else it is not known
            return [(0, length_bytes)]
    offset, size = found[-1]
    if length_bytes - (offset + size) < shortest:
        found[-1] = (offset, length_bytes - offset)
    return found


class Packing:
    """A tar that is being written, what of it counts, and what is left out."""

    def __init__(self, tar: tarfile.TarFile, root: Path, limits: Limits) -> None:
        self._tar = tar
        self._root = root
        self._limits = limits
        self._total_bytes = 0
        self._sums: dict[str, list[int | str]] = {}
        self._left: list[LeftOut] = []
        self.more = 0  # what stays and is not listed
        self._listed_bytes = 0

    def leave(self, left: LeftOut) -> None:
        """Note what stays; where that is too long to list, it is counted only."""
        self._listed_bytes += len(json.dumps(to_json(left)))
        if self._listed_bytes < _LONGEST_LIST_BYTES:
            self._left.append(left)
        else:
            self.more += 1

    def add(self, entry: Entry) -> None:
        """Add a file, directory or link, unless it is too much or cannot be read."""
        header = tarfile.TarInfo(entry.name.rstrip("/"))
        if entry.target:
            header.type, header.linkname, header.mode = tarfile.SYMTYPE, entry.target, 0o777
            self._tar.addfile(header)
            self._sums[entry.name] = _sum(os.fsencode(entry.target))
        elif entry.name.endswith("/"):
            header.type, header.mode = tarfile.DIRTYPE, 0o755
            self._tar.addfile(header)
        else:
            try:  # no link is followed, no pipe is waited for
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
                with os.fdopen(os.open(self._root / entry.name, flags), "rb") as file:
                    self._add_file(header, file)
            except FileNotFoundError:  # the script has deleted it meanwhile
                pass
            except OSError as error:
                self.leave(unreadable(entry.name, error))

    def _add_file(self, header: tarfile.TarInfo, file: io.BufferedReader) -> None:
        facts, name = os.fstat(file.fileno()), header.name
        if not stat.S_ISREG(facts.st_mode):
            return
        length = facts.st_size
        holes = facts.st_blocks * 512 < length
        segments = segments_of(file.fileno(), length) if holes else [(0, length)]
        stored = sum(size for _, size in segments)
        if why := self._too_much(stored, length):
            self.leave(LeftOut(path=name, kind=LeftKind.MUCH, why=why))
            return
        self._total_bytes += length
        header.size, header.mtime = stored, int(facts.st_mtime)
        header.mode = 0o755 if facts.st_mode & 0o100 else 0o644
        if stored < length:
            head = map_of_parts([*segments, (length, 0)])
            padding = -len(head) % tarfile.BLOCKSIZE
            header.size += len(head) + padding
            header.pax_headers = {**_GNU_SPARSE, "GNU.sparse.realsize": str(length)}
            content = Content(file, segments, head, padding)
        else:
            content = Content(file, segments)
        self._tar.addfile(header, content)
        self._sums[name] = [length, content.sum.hexdigest()]
        if fault := content.fault:
            self.leave(LeftOut(path=name, kind=LeftKind.UNREADABLE, why=fault))

    def _too_much(self, stored: int, length: int) -> str:
        """Return why a file of this size stays, or an empty string."""
        if stored > self._limits.file_bytes:
            return f"it is {_size(stored)}; the limit for one file is {_size(self._limits.file_bytes)}"
        if self._total_bytes + length > self._limits.total_bytes:
            limit = _size(self._limits.total_bytes)
            return f"it is {_size(length)}, and all files together would exceed the limit of {limit}"
        return ""

    def close(self) -> None:
        """Add what stays, and at the very end the size and digest of each file."""
        left = LeftOuts(left=tuple(self._left), more=self.more)
        for name, value in (("left.json", to_json(left)), ("sums.json", self._sums)):
            content = json.dumps(value, indent=0, sort_keys=True).encode("ascii")
            self._sums[name] = _sum(content)
            header = tarfile.TarInfo(name)
            header.size = len(content)
            self._tar.addfile(header, io.BytesIO(content))


def pack(run_dir: Path, output: BinaryIO = sys.stdout.buffer, limits: Limits | None = None) -> int:
    """Write the tar.  Raises OSError if that is not possible at all.

    Its last member, sums.json, maps each path to [size, sha256]: of the file, without its holes but with the
    map of its parts if it has holes; of a link's target.  What
    stays because of its size, its kind or an error is in left.json.  Small files come first, so that a limit
    keeps as few files here as possible.
    """
    run, limits = the_run(run_dir), limits or Limits()
    shipped = {f"files/{name}": digest for name, digest in read_json(run_dir / "shipped.json").items()}
    made = (
        entry
        for entry in entries(run_dir, run.about.cwd)
        if not (isinstance(entry, Entry) and _is(run_dir / entry.name, shipped.get(entry.name)))
    )
    with tarfile.open(fileobj=output, mode="w|", format=tarfile.PAX_FORMAT, bufsize=_BLOCK_BYTES) as tar:
        tar.copybufsize = _BLOCK_BYTES  # type: ignore[attr-defined]
        packing = Packing(tar, run_dir, limits)
        for entry in _chosen(made, packing, limits.files):
            packing.add(entry)
        packing.close()
    output.flush()
    return 0


def _is(path: Path, digest: str | None) -> bool:
    """Return whether a file is as it was shipped."""
    if digest is None:
        return False
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == digest
    except OSError:
        return False


def _sum(content: bytes) -> list[int | str]:
    return [len(content), hashlib.sha256(content).hexdigest()]


def _chosen(found: Iterator[Entry | LeftOut], packing: Packing, most: int) -> list[Entry]:
    """Return as many entries as may be sent, small ones first; note the others.

    The run's own state, output and points come before all else.  Where there are too many others, those of
    the directories with the fewest are sent.
    """
    places: dict[str, list[Entry]] = {}
    names_bytes = known = 0
    for entry in found:
        if isinstance(entry, LeftOut):
            packing.leave(entry)
        elif known == _MOST_KNOWN:
            packing.more += 1
        else:
            known += 1
            places.setdefault(entry.name.rstrip("/").rpartition("/")[0], []).append(entry)
    chosen: list[Entry] = []
    own = places.pop("", [])  # nothing else is at the top
    few_first = sorted(places.values(), key=len)
    for entry in itertools.chain(own, *few_first):
        names_bytes += len(json.dumps(entry.name))
        if len(chosen) == most or names_bytes > _LONGEST_NAMES_BYTES:
            why = f"there are more than {len(chosen)} files"
            packing.leave(LeftOut(path=entry.name, kind=LeftKind.MANY, why=why))
        else:
            chosen.append(entry)
    return sorted(chosen, key=lambda entry: -1 if entry.name in TOP else entry.length_bytes)


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:  # noqa: PLR2004
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
