"""What is remembered on the operator's machine: SQLite, one file, every change durable at once.

Clusters, their resources with the intents behind them, and runs.  Values go in and come out as the
frozen dataclasses of core; cattrs turns them into JSON.  The cloud's labels, not this file, are the
truth about what exists.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import socket
import sqlite3
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import cattrs.errors
import cattrs.preconf.json
from cattrs.gen import make_dict_unstructure_fn, override

from rain_deploy.core.environment import ResolvedEnvironment
from rain_deploy.core.model import Cluster, Facts, Host, Intent, Node, ResourceRef, RunRecord
from rain_deploy.errors import Locked, StateError, disk_full, full

VERSION = 1
_CONVERTER = cattrs.preconf.json.make_converter()
_CONVERTER.register_unstructure_hook(Path, str)
_CONVERTER.register_structure_hook(Path, lambda value, _: Path(value))
_CONVERTER.register_unstructure_hook(
    Host, make_dict_unstructure_fn(Host, _CONVERTER, installer_env=override(omit=True))
)
"""Variables of the caller may be secrets, and each ``up`` brings them anew."""

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


_DIGITS = 5
"""Hexadecimal: as many of a cluster's id are of its home as are its own."""
_ANOTHER = (
    "restore it from a copy, or set RAIN_DEPLOY_HOME to another directory; from there `rain-deploy gc` shows"
    " what exists in the cloud and deletes what you name"
)
Read = TypeVar("Read")


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
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
            next_step=_ANOTHER,
        )
    return StateError(
        f"the state file {path} cannot be used: {error}",
        next_step="set RAIN_DEPLOY_HOME to a directory that can be written",
    )


def _loaded(path: Path, body: str, kind: type[Read]) -> Read:
    """What a row holds.  Raises StateError where that is not what this version wrote."""
    try:
        return _CONVERTER.loads(body, kind)
    except (ValueError, TypeError, AttributeError, KeyError, cattrs.errors.BaseValidationError) as error:
        raise StateError(
            f"the state file {path} holds a {kind.__name__} that cannot be read; it was left as it is",
            next_step=_ANOTHER,
        ) from error


class Store:
    """The state file of one home directory.  A connection per call, so threads and processes may share."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._path = home / "state.sqlite"
        with _translated(self._path):
            home.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self._path.exists():
                _make(self._path)
            _refuse_strangers(self._path)
        with self._database() as database:
            (version,) = database.execute("PRAGMA user_version").fetchone()
        if version == 0:
            raise _unusable(self._path, sqlite3.DatabaseError("it has no version"))
        if version > VERSION:
            raise StateError(
                f"the state file {self._path} was written by a newer rain-deploy "
                f"(its version {version}, this one knows {VERSION}); nothing was changed",
                next_step="use the newer rain-deploy, or another RAIN_DEPLOY_HOME",
            )

    @contextlib.contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        with _translated(self._path), contextlib.closing(sqlite3.connect(self._path, timeout=10)) as database:
            database.execute("PRAGMA synchronous = FULL")
            with database:
                yield database

    def clusters(self) -> tuple[Cluster, ...]:
        """Every recorded cluster, by name."""
        with self._database() as database:
            rows = database.execute("SELECT body FROM clusters ORDER BY name").fetchall()
        return tuple(_loaded(self._path, body, Cluster) for (body,) in rows)

    def cluster(self, name: str) -> Cluster | None:
        """The cluster of that name."""
        with self._database() as database:
            row = database.execute("SELECT body FROM clusters WHERE name = ?", (name,)).fetchone()
        return _loaded(self._path, row[0], Cluster) if row else None

    def save_cluster(self, cluster: Cluster) -> None:
        """Record it, replacing what was recorded under its name."""
        with self._database() as database:
            database.execute(
                "INSERT OR REPLACE INTO clusters VALUES (?, ?, ?)",
                (cluster.name, cluster.id, _CONVERTER.dumps(cluster)),
            )

    def forget_cluster(self, cluster: Cluster) -> None:
        """Remove the cluster and its resources; its runs stay."""
        with self._database() as database:
            database.execute("DELETE FROM resources WHERE cluster_id = ?", (cluster.id,))
            database.execute("DELETE FROM environments WHERE cluster_id = ?", (cluster.id,))
            database.execute("DELETE FROM clusters WHERE id = ?", (cluster.id,))
            database.execute("INSERT OR IGNORE INTO past VALUES (?)", (cluster.id,))

    def next_cluster_id(self, name: str) -> str:
        """For a new cluster of that name: no other home gives it; the same until one is forgotten."""
        with self._database() as database:
            (gone,) = database.execute("SELECT count(*) FROM past").fetchone()
        return self._tag() + _digest(f"{self._tag()}\n{name}\n{gone}")

    def made(self, cluster_id: str) -> bool:
        """Whether this home gave the id, also when its cluster is forgotten."""
        return len(cluster_id) == 2 * _DIGITS and cluster_id.startswith(self._tag())

    def _tag(self) -> str:
        """This home's own, from its place and the birth of its state file: a home made anew has another."""
        return _digest(f"{socket.gethostname()}\n{self._home.absolute()}\n{self._born_s()}")

    def save_facts(self, node: Node) -> None:
        """Keep what is known of a node's machine, but of no cluster, for dry runs of later clusters there."""
        if node.facts:
            of_the_machine = replace(node.facts, node_config_sha256="", running=(), active_run="", taken=())
            with self._database() as database:
                database.execute(
                    "INSERT OR REPLACE INTO facts VALUES (?, ?)",
                    (_machine(node.host), _CONVERTER.dumps(of_the_machine)),
                )

    def facts(self, host: Host) -> Facts | None:
        """What was last known of a machine."""
        with self._database() as database:
            row = database.execute("SELECT body FROM facts WHERE machine = ?", (_machine(host),)).fetchone()
        return _loaded(self._path, row[0], Facts) if row else None

    def save_environment(self, cluster_id: str, asked: str, environment: ResolvedEnvironment) -> None:
        """Keep what the cluster's environment was resolved to; ``asked`` stands for what it came from."""
        with self._database() as database:
            database.execute(
                "INSERT OR REPLACE INTO environments VALUES (?, ?, ?)",
                (cluster_id, asked, _CONVERTER.dumps(environment)),
            )

    def environment(self, cluster_id: str) -> tuple[str, ResolvedEnvironment] | None:
        """What was kept: (asked, environment)."""
        with self._database() as database:
            row = database.execute(
                "SELECT asked, body FROM environments WHERE cluster_id = ?", (cluster_id,)
            ).fetchone()
        return (row[0], _loaded(self._path, row[1], ResolvedEnvironment)) if row else None

    def save_intent(self, intent: Intent) -> None:
        """Record a create before it is sent, be it again: its time is that of the last one."""
        with self._database() as database:
            database.execute(
                "INSERT INTO resources VALUES (?, ?, ?, ?, NULL) "
                "ON CONFLICT (cluster_id, kind, name) DO UPDATE SET intent = excluded.intent",
                (intent.cluster_id, intent.kind, intent.name, _CONVERTER.dumps(intent)),
            )

    def save_resource(self, resource: ResourceRef) -> None:
        """Record the outcome of a create."""
        with self._database() as database:
            database.execute(
                "UPDATE resources SET ref = ? WHERE cluster_id = ? AND kind = ? AND name = ?",
                (resource.ref, resource.cluster_id, resource.kind, resource.name),
            )

    def resources(self, cluster_id: str) -> tuple[ResourceRef, ...]:
        """All that was intended for the cluster, in order; ``ref`` is empty where the outcome is unknown."""
        with self._database() as database:
            rows = database.execute(
                "SELECT cluster_id, kind, name, coalesce(ref, ''), "
                "coalesce(json_extract(intent, '$.recorded_s'), 0), "
                "coalesce(json_extract(intent, '$.owner'), '') "
                "FROM resources WHERE cluster_id = ? ORDER BY rowid",
                (cluster_id,),
            ).fetchall()
        return tuple(ResourceRef(*row) for row in rows)

    def forget_resource(self, resource: ResourceRef) -> None:
        """Remove a resource that was observed to be gone."""
        with self._database() as database:
            database.execute(
                "DELETE FROM resources WHERE cluster_id = ? AND kind = ? AND name = ?",
                (resource.cluster_id, resource.kind, resource.name),
            )

    def runs(self, cluster: str | None = None) -> tuple[RunRecord, ...]:
        """Runs of a cluster's name (all when None), oldest first; also of clusters that are gone."""
        with self._database() as database:
            rows = database.execute(
                "SELECT body FROM runs WHERE ? IS NULL OR cluster = ? ORDER BY sequence",
                (cluster, cluster),
            ).fetchall()
        return tuple(_loaded(self._path, body, RunRecord) for (body,) in rows)

    def save_run(self, run: RunRecord) -> None:
        """Record it, replacing what was recorded under its id."""
        with self._database() as database:
            database.execute(
                "INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?)",
                (run.id, run.cluster, run.sequence, _CONVERTER.dumps(run)),
            )

    def add_run(self, make: Callable[[int], RunRecord]) -> RunRecord:
        """Record what ``make`` gives for a sequence of its own: one more than any run's in this file."""
        with self._database() as database:
            database.execute("BEGIN IMMEDIATE")
            (last,) = database.execute("SELECT coalesce(max(sequence), 0) FROM runs").fetchone()
            run = make(int(last) + 1)
            row = (run.id, run.cluster, run.sequence, _CONVERTER.dumps(run))
            database.execute("INSERT INTO runs VALUES (?, ?, ?, ?)", row)
        return run

    def forget_run(self, run: RunRecord) -> None:
        """Remove a run that was never in line."""
        with self._database() as database:
            database.execute("DELETE FROM runs WHERE id = ?", (run.id,))

    def _born_s(self) -> int:
        """When this file was made: a home that is made anew gives other ids."""
        with self._database() as database:
            (born_s,) = database.execute("SELECT born_s FROM home").fetchone()
        return int(born_s)

    @contextlib.contextmanager
    def lock(self, cluster: str, verb: str) -> Iterator[None]:
        """Hold the cluster for a changing command.  Ends with the process, also when it is killed.

        Raises Locked, naming the holder, when another command holds it.
        """
        path = self._home / "locks" / f"{cluster}.lock"
        with _translated(path):
            path.parent.mkdir(mode=0o700, exist_ok=True)
            handle = _held(cluster, path)
        try:
            holder = {"pid": os.getpid(), "host": socket.gethostname(), "verb": verb, "since_s": time.time()}
            with _translated(path):
                os.ftruncate(handle, 0)
                os.pwrite(handle, json.dumps(holder).encode(), 0)
            yield
        finally:
            with contextlib.suppress(StateError, OSError):
                if self.cluster(cluster) is None:  # of a cluster that is gone nothing stays
                    path.unlink()
            os.close(handle)


def _held(cluster: str, path: Path) -> int:
    """The lock file, open and held; not one that its last holder has removed meanwhile.  Locked, OSError."""
    while True:
        handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(handle), path.stat()):
                return handle
        except BlockingIOError as error:
            os.close(handle)
            raise Locked(_holder(cluster, path), next_step="try again when it has ended") from error
        except FileNotFoundError:
            pass
        os.close(handle)


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
            next_step=f"as that user, or: {_ANOTHER}",
        )
    if place.st_mode & stat.S_IWOTH and not place.st_mode & stat.S_ISVTX:
        raise _open_to_all(path.parent)
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise _open_to_all(path)


def _open_to_all(path: Path) -> StateError:
    return StateError(
        f"{path} can be written by other users of this machine (mode {stat.S_IMODE(path.stat().st_mode):o}); "
        "the state was left as it is",
        next_step=f"if what it says is yours: chmod go-w {path}; else {_ANOTHER}",
    )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def _machine(host: Host) -> str:
    return f"{host.user}@{host.address}:{host.port}"


def _holder(cluster: str, path: Path) -> str:
    try:
        holder = json.loads(path.read_text())
        age_s = time.time() - holder["since_s"]
        return (
            f"cluster {cluster} is being changed by `{holder['verb']}` "
            f"(process {holder['pid']} on {holder['host']}, for {age_s:.0f} s)"
        )
    except (OSError, ValueError, KeyError):
        return f"cluster {cluster} is being changed by another command"
