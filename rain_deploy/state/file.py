"""The state file, opened only if no other user could have written it; and the locks of clusters beside it."""

import contextlib
import fcntl
import json
import os
import socket
import sqlite3
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from rain_deploy.errors import Locked, StateError, disk_full, full

VERSION = 1
_SCHEMA = """
CREATE TABLE clusters (name TEXT PRIMARY KEY, id TEXT NOT NULL UNIQUE, body TEXT NOT NULL);
CREATE TABLE resources (
    cluster_id TEXT NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL,
    intent TEXT NOT NULL, ref TEXT, PRIMARY KEY (cluster_id, kind, name));
CREATE TABLE environments (cluster_id TEXT PRIMARY KEY, asked TEXT NOT NULL, body TEXT NOT NULL);
CREATE TABLE home (born_s REAL NOT NULL);
INSERT INTO home VALUES ((julianday('now') - 2440587.5) * 86400);
CREATE TABLE facts (machine TEXT PRIMARY KEY, body TEXT NOT NULL);
CREATE TABLE past (cluster_id TEXT PRIMARY KEY);
CREATE TABLE runs (id TEXT PRIMARY KEY, cluster TEXT NOT NULL, sequence INTEGER NOT NULL, body TEXT NOT NULL);
"""
_ANOTHER = (
    "restore it from a copy, or set RAIN_DEPLOY_HOME to another directory; from there `rain-deploy gc` shows"
    " what exists in the cloud and deletes what you name"
)


def damaged(path: Path, why: str) -> StateError:
    """Return the error for a file that this version did not write."""
    message = f"{path} is not a state file of this rain-deploy, or is damaged: {why}; it was left as it is"
    return StateError(message, next_step=_ANOTHER)


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """Raise StateError instead of the errors of SQLite and the system."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        code = getattr(error, "sqlite_errorcode", None)
        if code == sqlite3.SQLITE_FULL or full(error):
            raise disk_full(path) from error
        # SQLITE_ERROR: no such table or column.  A plain DatabaseError: it is not a database.
        if type(error) is sqlite3.DatabaseError or code == sqlite3.SQLITE_ERROR:
            raise damaged(path, str(error)) from error
        message = f"the state file {path} cannot be used: {error}"
        again = "set RAIN_DEPLOY_HOME to a directory that can be written"
        raise StateError(message, next_step=again) from error


def open_or_create(path: Path) -> None:
    """Create the file if it is missing, and raise StateError if it cannot be trusted or read."""
    with translated(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():  # it is made whole or not at all; of two processes, the first one wins
            handle, draft = tempfile.mkstemp(dir=path.parent, prefix=".state-")
            os.close(handle)
            try:
                with contextlib.closing(sqlite3.connect(draft)) as connection:
                    connection.execute("PRAGMA synchronous = FULL")
                    connection.executescript(f"BEGIN;{_SCHEMA}PRAGMA user_version = {VERSION};COMMIT;")
                with contextlib.suppress(FileExistsError):
                    os.link(draft, path)
            finally:
                Path(draft).unlink(missing_ok=True)
        _refuse_strangers(path)
    with database(path) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == 0:
        raise damaged(path, "it has no version")
    if version > VERSION:
        raise StateError(
            f"the state file {path} was written by a newer rain-deploy "
            f"(its version is {version}, this one knows {VERSION}); nothing was changed",
            next_step="use the newer rain-deploy, or another RAIN_DEPLOY_HOME",
        )


@contextlib.contextmanager
def database(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a connection for one transaction, which is durable when it ends.  Raises StateError."""
    with translated(path), contextlib.closing(sqlite3.connect(path, timeout=10)) as connection:
        connection.execute("PRAGMA synchronous = FULL")
        with connection:
            yield connection


def _refuse_strangers(path: Path) -> None:
    """Raise StateError if another user could have written it: we delete and dial what it names."""
    if (owner := path.stat().st_uid) != os.geteuid():
        whose = f"belongs to another user of this machine (uid {owner}); it was left as it is"
        raise StateError(f"the state file {path} {whose}", next_step=f"as that user, or: {_ANOTHER}")
    folder, file = path.parent.stat().st_mode, path.stat().st_mode
    open_folder = folder & stat.S_IWOTH and not folder & stat.S_ISVTX
    if open_folder or file & (stat.S_IWGRP | stat.S_IWOTH):
        place, mode = (path.parent, folder) if open_folder else (path, file)
        raise StateError(
            f"{place} can be written by other users of this machine (mode {stat.S_IMODE(mode):o}); "
            "the state was left as it is",
            next_step=f"if you trust what it says: chmod go-w {place}; otherwise {_ANOTHER}",
        )


@contextlib.contextmanager
def locked(directory: Path, cluster: str, verb: str, is_gone: Callable[[], bool]) -> Iterator[None]:
    """Hold the cluster.  Raises Locked with the holder.  Deletes the lock file if the cluster ``is_gone``."""
    path = directory / f"{cluster}.lock"
    with translated(path):
        directory.mkdir(mode=0o700, exist_ok=True)
        while True:
            handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(handle), path.stat()):
                    break  # else its last holder has just deleted it
            except BlockingIOError as error:
                os.close(handle)
                message = f"cluster {cluster} is being changed by {_holder(path)}"
                raise Locked(message, next_step="try again when it has ended") from error
            except FileNotFoundError:
                pass
            os.close(handle)
    try:
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "verb": verb, "since_s": time.time()}
        with translated(path):
            os.ftruncate(handle, 0)
            os.pwrite(handle, json.dumps(holder).encode(), 0)
        yield
    finally:
        with contextlib.suppress(StateError, OSError):
            if is_gone():
                path.unlink()
        os.close(handle)


def _holder(path: Path) -> str:
    try:
        holder = json.loads(path.read_text())
        age_s = time.time() - holder["since_s"]
        return f"`{holder['verb']}` (process {holder['pid']} on {holder['host']}, for {age_s:.0f} s)"
    except (OSError, ValueError, KeyError):
        return "another command"
