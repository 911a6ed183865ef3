"""The state file, opened only if no other user could have written it; and the locks of clusters beside it."""

import contextlib
import dataclasses
import fcntl
import json
import os
import socket
import sqlite3
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from rain_deploy.core.text import span
from rain_deploy.errors import Locked, StateError, Unwritable, disk_full, full

VERSION = 1
T = TypeVar("T")
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
    """Raise StateError, instead of the errors of SQLite and the system; Unwritable if it is not damaged."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        code = getattr(error, "sqlite_errorcode", None)
        if code == sqlite3.SQLITE_FULL or full(error):
            raise disk_full(path) from error
        # SQLITE_ERROR: no such table or column.  A plain DatabaseError: it is not a database.
        if type(error) is sqlite3.DatabaseError or code == sqlite3.SQLITE_ERROR:
            raise damaged(path, str(error)) from error
        why = getattr(error, "strerror", None) or error
        again = "set RAIN_DEPLOY_HOME to a directory that can be written"
        raise Unwritable(f"the state file {path} cannot be written: {why}", next_step=again) from error


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


class StateFile:
    """The file, for threads and processes that share it; each transaction opens a connection.

    If it can be read but not written, a command that only looks or ends continues with a copy in memory.
    """

    def __init__(self, path: Path, tell: Callable[[StateError], None]) -> None:
        """``tell`` is called once if the copy in memory is begun."""
        open_or_create(path)
        self.path = path.absolute()
        self.unwritable: StateError | None = None  # why the copy is used
        self._copy: sqlite3.Connection | None = None
        self._tell, self._turns, self._strict = tell, threading.RLock(), False

    @contextlib.contextmanager
    def durable(self, *, strict: bool) -> Iterator[None]:
        """While this is entered, each change is durable or, if ``strict``, raises Unwritable."""
        if strict and self.unwritable:
            raise self.unwritable
        before, self._strict = self._strict, strict
        try:
            yield
        finally:
            self._strict = before

    def transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Return what ``work`` does in one transaction.  Raises StateError."""
        if self._copy is None:
            try:
                with database(self.path) as connection:
                    return work(connection)
            except Unwritable as error:
                if self._strict:
                    raise
                self._go_on_in_memory(error)
        assert self._copy
        with self._turns, translated(self.path), self._copy:
            return work(self._copy)

    def _go_on_in_memory(self, error: StateError) -> None:
        with self._turns:
            if self._copy:
                return
            copy, source = (
                sqlite3.connect(":memory:", check_same_thread=False),
                f"{self.path.as_uri()}?mode=ro",
            )
            with translated(self.path), contextlib.closing(sqlite3.connect(source, uri=True)) as file:
                file.backup(copy)
            self._copy, self.unwritable = copy, error
            self._tell(error)


@dataclasses.dataclass(frozen=True, slots=True)
class Holder:
    """A command that holds a cluster."""

    verb: str
    pid: int
    host: str
    since_s: float

    @property
    def is_self(self) -> bool:
        return self.pid == os.getpid()

    def __str__(self) -> str:
        passed = span(max(1.0, time.time() - self.since_s))
        return f"`{self.verb}` (process {self.pid} on {self.host}, for {passed})"


def _open_lock(path: Path, *, ending: bool) -> int:
    """Return a descriptor of the lock file.  Where it cannot be made, ``ending`` takes it as it is."""
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        return os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    except OSError:
        if not ending:
            raise
        return os.open(path if path.exists() else path.parent.parent, os.O_RDONLY)


@contextlib.contextmanager
def locked(
    directory: Path, cluster: str, verb: str, is_gone: Callable[[], bool], *, ending: bool = False
) -> Iterator[None]:
    """Hold the cluster.  Raises Locked with the holder.  Deletes the lock file if the cluster ``is_gone``.

    ``ending``: it need not be possible to write the lock file; without any, the home itself is locked.
    """
    path = directory / f"{cluster}.lock"
    with translated(path):
        while True:
            handle = _open_lock(path, ending=ending)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(handle), (path if path.exists() else directory.parent).stat()):
                    break  # else its last holder has just deleted it
            except BlockingIOError as error:
                os.close(handle)
                message = f"cluster {cluster} is being changed by {_read_holder(path) or 'another command'}"
                raise Locked(message, next_step="try again when it has ended") from error
            except FileNotFoundError:
                pass
            os.close(handle)
    try:
        holder = Holder(verb, os.getpid(), socket.gethostname(), time.time())
        with contextlib.suppress(OSError):  # a full disk: others are then told of "another command"
            os.ftruncate(handle, 0)
            os.pwrite(handle, json.dumps(dataclasses.asdict(holder)).encode(), 0)
        yield
    finally:
        with contextlib.suppress(OSError):
            os.ftruncate(handle, 0)
        with contextlib.suppress(StateError, OSError):
            if is_gone():
                path.unlink()
        os.close(handle)


def living_holder(directory: Path, cluster: str) -> Holder | None:
    """Return the command of this machine that holds the cluster, if it says so and lives.

    The lock itself is not tried: a command that wanted it at the same moment would fail.
    """
    holder = _read_holder(directory / f"{cluster}.lock")
    if holder is None or holder.host != socket.gethostname():
        return None
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return None  # it was killed
    except OSError:
        pass  # it belongs to another user
    return holder


def _read_holder(path: Path) -> Holder | None:
    try:
        return Holder(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None
