"""What the laptop and the server node say to each other about a journal."""

import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path

SEGMENT_NAME = re.compile(r"(\d{20})-(\d{3})\.seg")  # nanoseconds since 1970; how often it was merged
LITTLE_BYTES = 8_000_000
"""Results up to this size come to the laptop as they are stored; no segment with several is larger."""
JOURNAL_BYTES = 20 * 10**9
_DISK_PART = 10


def journal_limit(place: Path, taken_bytes: int) -> int:
    """Return how many bytes a journal may take: 20 GB, or a tenth of what is free or its own.

    Raises OSError.
    """
    return min(JOURNAL_BYTES, (shutil.disk_usage(place).free + taken_bytes) // _DISK_PART)


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalUsage:
    """What a journal holds."""

    bytes: int = 0
    records: int = 0  # results that a run could take from it
    segments: int = 0  # its files
    damaged: int = 0  # files that cannot be read to their end
    oldest_s: float | None = None
    newest_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalWish:
    """What the laptop has of a journal, and how much more it takes."""

    have: tuple[str, ...] = ()  # its files
    sizes: dict[str, int] = field(default_factory=dict)  # of these, in bytes
    after: str = ""  # only files that are named later are of interest
    file_bytes: int
    total_bytes: int  # of the newest files, with those that it has


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalState:
    """state.json, the first in the stream of ``journal-send``."""

    usage: JournalUsage  # nothing if only later files are of interest
    files: dict[str, int]  # all of interest, also those that are not sent, and how many results each has
    merged: dict[str, str] = field(default_factory=dict)
    """Files that the laptop has and the journal not any more, each with the file that has its records now."""
