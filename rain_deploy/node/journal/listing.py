"""Keeps in the journal which files were shipped with a script, so that later runs can name what changed."""

from collections.abc import Mapping
from dataclasses import dataclass

from ..run import Run
from ..sweep import PART_DIGITS, digest, shipped_files
from .segment import Record
from .store import LISTING, Journal

MOST_LISTED = 1000  # files; of more, the journal keeps only the common digest


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of one run, with digits of their digests; ``key`` is the digest of all of them."""

    key: str
    files: Mapping[str, str]

    @classmethod
    def of(cls, run: Run) -> "Listing":
        """Return the files that were shipped with the script of a run."""
        files = shipped_files(run)
        return cls(digest(files), {name: digits[:PART_DIGITS] for name, digits in files})

    def record(self, run: Run, journal: Journal) -> list[tuple[Record, list[bytes]]]:
        """Return the record for the journal; [] if it has one, or if there are too many files."""
        if len(self.files) > MOST_LISTED or journal.listing(self.key) is not None:
            return []
        status = run.status()
        record = Record(
            key=self.key,
            kind=LISTING,
            run=run.id,
            attempt=status.attempt,
            epoch=status.epoch,
            info=dict(self.files),
        )
        return [(record, [])]


@dataclass(frozen=True, slots=True)
class Changes:
    """Files that differ between a kept result and this run."""

    changed: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()

    @classmethod
    def between(cls, before: Mapping[str, str], now: Mapping[str, str]) -> "Changes":
        """Return what changed from one listing to another."""
        return cls(
            changed=tuple(name for name in now if before.get(name, now[name]) != now[name]),
            added=tuple(name for name in now if name not in before),
            gone=tuple(name for name in before if name not in now),
        )

    @property
    def names(self) -> tuple[str, ...]:
        return self.changed + self.added + self.gone

    @property
    def phrases(self) -> list[str]:
        """Return what the older run has, such as ``another helper.py``."""
        return [
            *(f"another {name}" for name in self.changed),
            *(f"no {name}" for name in self.added),
            *(f"{name}, which is not sent any more" for name in self.gone),
        ]
