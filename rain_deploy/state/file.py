"""The state file itself: made whole, opened only where nobody else could have written it, its errors told."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rain_deploy.errors import StateError, disk_full, full

VERSION = 1
_SCHEMA = """
CREATE TABLE clusters (name TEXT PRIMARY KEY, id TEXT NOT NULL UNIQUE, body TEXT NOT NULL);
CREATE TABLE resources (
    cluster_id TEXT NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL,
    intent TEXT NOT NULL, ref TEXT, PRIMARY KEY (cluster_id, kind, name));
CREATE TABLE environments (cluster_id TEXT PRIMARY KEY, asked TEXT NOT NULL, body TEXT NOT NULL);
CREATE TABLE home (born_s INTEGER NOT NULL);
INSERT INTO home VALUES (CAST(strftime('%s', 'now') AS INTEGER));
CREATE TABLE facts (machine TEXT PRIMARY KEY, body TEXT NOT NULL);
CREATE TABLE past (cluster_id TEXT PRIMARY KEY);
CREATE TABLE runs (id TEXT PRIMARY KEY, cluster TEXT NOT NULL, sequence INTEGER NOT NULL, body TEXT NOT NULL);
"""

ANOTHER = (
    "restore it from a copy, or set RAIN_DEPLOY_HOME to another directory; from there `rain-deploy gc` shows"
    " what exists in the cloud and deletes what you name"
)


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """StateError instead of what SQLite and the system say."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise _unusable(path, error) from error


def _unusable(path: Path, error: sqlite3.Error | OSError) -> StateError:
    if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL or full(error):
        return disk_full(path)
    code = getattr(error, "sqlite_errorcode", None)
    # SQLITE_ERROR: no such table or column.  Other subclasses of DatabaseError tell of the file itself.
    if type(error) is sqlite3.DatabaseError or code == sqlite3.SQLITE_ERROR:
        return StateError(
            f"{path} is no state file of this rain-deploy, or a damaged one: {error}; it was left as it is",
            next_step=ANOTHER,
        )
    return StateError(
        f"the state file {path} cannot be used: {error}",
        next_step="set RAIN_DEPLOY_HOME to a directory that can be written",
    )


def opened(path: Path) -> None:
    """Make it where it is not there, and look at it before anything is believed.  StateError."""
    with translated(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            _make(path)
        _refuse_strangers(path)
    with database(path) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == 0:
        raise _unusable(path, sqlite3.DatabaseError("it has no version"))
    if version > VERSION:
        raise StateError(
            f"the state file {path} was written by a newer rain-deploy "
            f"(its version {version}, this one knows {VERSION}); nothing was changed",
            next_step="use the newer rain-deploy, or another RAIN_DEPLOY_HOME",
        )


@contextlib.contextmanager
def database(path: Path) -> Iterator[sqlite3.Connection]:
    """One transaction on a connection of its own, durable at its end.  StateError."""
    with translated(path), contextlib.closing(sqlite3.connect(path, timeout=10)) as connection:
        connection.execute("PRAGMA synchronous = FULL")
        with connection:
            yield connection


def _make(path: Path) -> None:
    """Appears whole or not at all; of two that make it at once the first wins."""
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=".state-")
    os.close(handle)
    try:
        with contextlib.closing(sqlite3.connect(draft)) as database:
            database.execute("PRAGMA synchronous = FULL")
            database.executescript(f"BEGIN;{_SCHEMA}PRAGMA user_version = {VERSION};COMMIT;")
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        Path(draft).unlink(missing_ok=True)


def _refuse_strangers(path: Path) -> None:
    """StateError where another user of this machine could have written what is deleted or dialled by it."""
    status, place = path.stat(), path.parent.stat()
    if status.st_uid != os.geteuid():
        raise StateError(
            f"the state file {path} belongs to another user of this machine (uid {status.st_uid}); "
            "it was left as it is",
            next_step=f"as that user, or: {ANOTHER}",
        )
    if place.st_mode & stat.S_IWOTH and not place.st_mode & stat.S_ISVTX:
        raise _open_to_all(path.parent)
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise _open_to_all(path)


def _open_to_all(path: Path) -> StateError:
    return StateError(
        f"{path} can be written by other users of this machine (mode {stat.S_IMODE(path.stat().st_mode):o}); "
        "the state was left as it is",
        next_step=f"if what it says is yours: chmod go-w {path}; else {ANOTHER}",
    )
