"""Reads Rain's event log without a lock.

Rain keeps LOGDIR/events.db in SQLite's rollback mode, and its server dies when a write stays locked (it
waits 5 s for a reader).  A reader that is stopped while it holds SQLite's shared lock would so end the
user's run.  Therefore the file is opened as immutable, which takes no lock at all, and what was read counts
only if nobody wrote meanwhile: there is no journal beside it, and the change counter is the same before and
after.  Rain writes once a second, so that is nearly always so; if not, the next step reads it.
"""

import contextlib
import json
import sqlite3
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from ..files import Json

_ROWS_PER_STEP = 500
_CHANGE_COUNTER = slice(24, 28)  # bytes of SQLite's file header that every transaction changes


class Event(NamedTuple):
    """A row of Rain's event log, with its JSON.  The timestamp is in RFC 3339, with nanoseconds."""

    id: int
    timestamp: str
    kind: str
    data: Json


def read_events(database: Path, after: int) -> tuple[Event, ...]:
    """Return at most 500 events with greater ids; none when the file is absent or was being written."""
    before = _version(database)
    if before is None:
        return ()
    uri = f"file:{quote(str(database))}?mode=ro&immutable=1"
    try:
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as connection:
            rows = connection.execute(
                "SELECT id, timestamp, event_type, event FROM events WHERE id > ? ORDER BY id LIMIT ?",
                (after, _ROWS_PER_STEP),
            ).fetchall()
        events = tuple(Event(row[0], row[1], row[2], json.loads(row[3])) for row in rows)
    except (sqlite3.Error, ValueError):
        return ()
    return events if _version(database) == before else ()


def _version(database: Path) -> bytes | None:
    """Return what changes when the file does; None while it cannot be read whole."""
    try:
        with database.open("rb") as file:
            counter = file.read(100)[_CHANGE_COUNTER]
    except OSError:
        return None
    journal = database.with_name(f"{database.name}-journal")
    return None if journal.exists() or not counter else counter
