"""The journal: how tasks ended and what they returned, in segments below one directory.

One process writes; others may read at any moment.  Names of segments sort by age.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from ..wire import LITTLE_BYTES, SEGMENT_NAME, JournalUsage, journal_limit
from .segment import (
    Entry,
    Output,
    Place,
    Record,
    copied,
    laid_out,
    read_body,
    read_record,
    read_records,
    scan,
    write_segment,
)

__all__ = ["Journal", "Output", "Place", "Record", "read_body"]

LISTING = "files"
"""The kind of a record about the files that were shipped with a script, in its ``info``."""
MERGED = "merged"
"""The kind of a record with the names of the segments that its own segment replaces, in its ``info``."""
MOST_RECORDS = 100_000  # reading the headers of as many takes two seconds
SMALL_BYTES = 1_000_000  # smaller segments are merged
MERGED_FROM = 8  # if so many of them are neighbours in age
MERGED_BYTES = LITTLE_BYTES - SMALL_BYTES  # no merged segment is larger by more than one of its parts
ABANDONED_S = 60.0  # no segment takes longer to write
MOST_MERGES = 4  # at one time: a script waits for them


@dataclass(frozen=True, slots=True)
class _Segment:
    path: Path
    size_bytes: int
    records: int
    results: int

    @property
    def written_ns(self) -> int:
        return int(self.path.name[:20])

    @property
    def merged(self) -> int:
        return int(self.path.name[21:24])


def sum_of(segments: Iterable[_Segment]) -> int:
    """Return the bytes of all of them."""
    return sum(one.size_bytes for one in segments)


@contextlib.contextmanager
def _held(directory: Path) -> Iterator[None]:
    """Hold a directory.  Raises OSError if another process does, or if there is none."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


class Journal:
    """The records of finished tasks, by key."""

    def __init__(
        self, directory: Path, *, limit_bytes: int | None = None, limit_records: int = MOST_RECORDS
    ) -> None:
        """Without ``limit_bytes``, the limit is 20 GB, or a tenth of the free disk if that is less."""
        self.directory = directory
        self._limit_bytes, self._limit_records = limit_bytes, limit_records
        self._segments: list[_Segment] = []  # oldest first
        self._damaged = 0
        self._forget()

    def _forget(self) -> None:
        self._results: dict[str, Entry] = {}
        self._failures: dict[str, Entry] = {}
        self._named: dict[str, list[str]] = {}  # keys of results by name, oldest first
        self._listings: dict[str, Entry] = {}
        self._merges: list[Entry] = []  # oldest first

    def load(self) -> list[str]:
        """Read the headers of all segments; return a sentence about each damaged one."""
        self._forget()
        self._segments, problems = [], []
        for path in sorted(self._paths("*.seg")):
            entries, damage = scan(path)
            if damage:
                problems.append(f"{path.name} of the journal is damaged: {damage}")
            self._add(path, entries)
        self._damaged = len(problems)
        return problems

    def _paths(self, pattern: str) -> list[Path]:
        try:
            return [path for path in self.directory.glob(pattern) if SEGMENT_NAME.search(path.name)]
        except OSError:
            return []

    def _add(self, path: Path, entries: Sequence[Entry]) -> None:
        """Take a segment into the index.  A result outdates what failed before it."""
        with contextlib.suppress(FileNotFoundError):  # pruned meanwhile
            results = sum(entry.kind == "result" for entry in entries)
            self._segments.append(_Segment(path, path.stat().st_size, len(entries), results))
        for entry in entries:
            if entry.kind == "result":
                self.drop(entry.key)
                self._results[entry.key] = entry
                self._named.setdefault(entry.name, []).append(entry.key)
            elif entry.kind == "failure":
                self._failures[entry.key] = entry
            elif entry.kind == LISTING:
                self._listings[entry.key] = entry
            elif entry.kind == MERGED:
                self._merges.append(entry)

    def results(
        self,
        keys: Iterable[str],
        *,
        run: str = "",
        whole: bool = False,
        tell: Callable[[], None] = lambda: None,
    ) -> dict[str, tuple[Record, tuple[Place, ...]]]:
        """Return the newest result of each key that has one, of any run or of this one.

        ``whole`` forgets those with a damaged body; ``tell`` is called after each piece of a body that is
        read for this.
        """
        entries = {key: self._results[key] for key in keys if key in self._results}
        wanted = {key: entry for key, entry in entries.items() if run in {"", entry.run}}
        found = read_records(wanted.values(), whole=whole, tell=tell)
        stored = {entry.key: (record, places) for entry, record, places in found}
        if whole:
            for key in wanted.keys() - stored.keys():
                self.drop(key)
        return stored

    def run_of(self, key: str) -> str:
        """Return the run that the newest result of a key is of; empty if there is none."""
        entry = self._results.get(key)
        return entry.run if entry else ""

    def named(self, name: str, most: int) -> list[Record]:
        """Return the newest results of tasks with this name, at most so many, the newest first."""
        keys = list(dict.fromkeys(reversed(self._named.get(name, [])[-most:])))
        found = self.results(keys)
        return [found[key][0] for key in keys if key in found]

    def listing(self, digits: str) -> dict[str, str] | None:
        """Return the files, with digests, whose common digest begins so; None if that is not known."""
        entry = next((one for key, one in self._listings.items() if digits and key.startswith(digits)), None)
        stored = read_record(entry) if entry else None
        return stored[0].info if stored else None

    def failures(self, keys: Iterable[str]) -> dict[str, Record]:
        """Return the newest failure of each key that failed after its last result."""
        wanted = [self._failures[key] for key in keys if key in self._failures]
        return {entry.key: record for entry, record, _ in read_records(wanted)}

    def drop(self, key: str) -> None:
        """Forget a key, because a body turned out to be damaged; its record stays on disk."""
        self._results.pop(key, None)
        self._failures.pop(key, None)

    def write(
        self, batch: Sequence[tuple[Record, Sequence[bytes]]], tell: Callable[[], None] = lambda: None
    ) -> None:
        """Store records as one segment, durably and all or none.  Raises OSError, ValueError.

        ``tell`` is called after each piece of a large one.
        """
        if batch:
            path = self.directory / self._next_name()
            entries, pieces = laid_out(path, batch)
            write_segment(path, pieces, tell)
            self._add(path, entries)
            with contextlib.suppress(OSError):  # what is stored stays stored
                self.prune()

    def _next_name(self) -> str:
        newest = self._segments[-1].written_ns if self._segments else 0
        return f"{max(time.time_ns(), newest + 1):020}-000.seg"

    def prune(self, *, limit_bytes: int | None = None) -> int:
        """Delete the oldest segments that are over the limits; return the number of bytes deleted.

        The newest segment stays, unless ``limit_bytes`` is 0.
        """
        if not self._segments:
            return 0
        limit = self._limit() if limit_bytes is None else limit_bytes
        size, records = sum_of(self._segments), sum(one.records for one in self._segments)
        before, spared = size, 0 if limit_bytes == 0 else 1
        while len(self._segments) > spared and (size > limit or records > self._limit_records):
            oldest = self._segments.pop(0)
            oldest.path.unlink(missing_ok=True)
            size, records = size - oldest.size_bytes, records - oldest.records
        return before - size

    def _limit(self) -> int:
        if self._limit_bytes is not None:
            return self._limit_bytes
        return journal_limit(self.directory, sum_of(self._segments))

    def tidy(self) -> None:
        """Delete what a killed writer left, merge small segments, and prune; one process at a time."""
        with contextlib.suppress(OSError), _held(self.directory):  # the journal is as good without it
            for left in self._paths(".*.tmp"):
                if left.stat().st_mtime < time.time() - ABANDONED_S:
                    left.unlink(missing_ok=True)
            if groups := list(islice(self._small(), MOST_MERGES)):
                for group in groups:
                    self._merge(group)
                self.load()
            self.prune()

    def _small(self) -> Iterator[list[_Segment]]:
        """Yield rows of small segments that are neighbours in age."""
        group: list[_Segment] = []
        for segment in [*self._segments, None]:
            if segment and segment.size_bytes < SMALL_BYTES:
                group.append(segment)
                if sum_of(group) < MERGED_BYTES:
                    continue
            if len(group) >= MERGED_FROM:
                yield group
            group = []

    def _merge(self, group: Sequence[_Segment]) -> None:
        """Replace segments by one with the records of them that still count.  Raises OSError."""
        write_segment(self._merged_path(group[-1]), self._joined(group))
        for segment in group:
            segment.path.unlink(missing_ok=True)

    def _joined(self, group: Sequence[_Segment]) -> Iterator[bytes]:
        """Yield the records that still count, and last the names of the segments whose records all do or did.

        What was merged into a segment is named again only with it: one that was damaged has lost records.
        """
        earlier, names = self.merged(), set[str]()
        for segment in group:
            entries, damage = scan(segment.path)
            records = [b"".join(copied(entry)) for entry in entries if self._counts(entry)]
            yield from records
            if not damage and len(entries) == segment.records and all(records):  # not pruned meanwhile
                names |= {name for name, into in earlier.items() if into == segment.path.name}
                names.add(segment.path.name)
        merged = Record(key="", kind=MERGED, info={"names": sorted(names)})
        yield from laid_out(segment.path, [(merged, ())])[1]

    def merged(self) -> dict[str, str]:
        """Return which segments were merged, and the segment that has the records of each now."""
        found = reversed(list(read_records(self._merges)))  # the first one has them, if it was killed then
        return {name: entry.file.name for entry, record, _ in found for name in record.info["names"]}

    def _merged_path(self, newest: _Segment) -> Path:
        """Return a free name that sorts after this segment and before the next one."""
        same = [one for one in self._segments if one.written_ns == newest.written_ns]
        return self.directory / f"{newest.written_ns:020}-{max(one.merged for one in same) + 1:03}.seg"

    def _counts(self, entry: Entry) -> bool:
        by_key = (self._results, self._failures, self._listings)
        return entry in {kept.get(entry.key) for kept in by_key}

    def files(self) -> dict[str, int]:
        """Return the names of the segments, and how many results each has."""
        return {one.path.name: one.results for one in self._segments}

    def usage(self) -> JournalUsage:
        """Return what the journal holds and takes."""
        paths = {one.path for one in self._segments}
        return JournalUsage(
            bytes=sum_of(self._segments),
            records=sum(entry.file in paths for entry in self._results.values()),
            segments=len(self._segments),
            damaged=self._damaged,
            oldest_s=self._segments[0].written_ns / 1e9 if self._segments else None,
            newest_s=self._segments[-1].written_ns / 1e9 if self._segments else None,
        )
