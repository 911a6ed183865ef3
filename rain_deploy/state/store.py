"""What is remembered on the operator's machine: SQLite, one file, every change durable at once.

Clusters, their resources with the intents behind them, and runs.  Values go in and come out as the
frozen dataclasses of core; cattrs turns them into JSON.  The cloud's labels, not this file, are the
truth about what exists.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import cattrs.errors
import cattrs.preconf.json
from cattrs.gen import make_dict_unstructure_fn, override

from rain_deploy.core.cluster import Cluster, Node
from rain_deploy.core.environment import ResolvedEnvironment
from rain_deploy.core.machine import Facts, Host, Intent, Resource
from rain_deploy.core.owner import owner_tag
from rain_deploy.core.run import RunRecord
from rain_deploy.errors import StateError
from rain_deploy.state.file import ANOTHER, database, opened
from rain_deploy.state.lock import locked
from rain_deploy.state.upgrade import cluster_row

_CONVERTER = cattrs.preconf.json.make_converter()
_CONVERTER.register_unstructure_hook(Path, str)
_CONVERTER.register_structure_hook(Path, lambda value, _: Path(value))
# Variables of the caller may be secrets, and each ``up`` brings them anew.
_CONVERTER.register_unstructure_hook(
    Host, make_dict_unstructure_fn(Host, _CONVERTER, installer_env=override(omit=True))
)

_DIGITS = 5
"""Hexadecimal: as many of a cluster's id are of its home as are its own."""
Read = TypeVar("Read")


def _loaded(path: Path, body: str, kind: type[Read]) -> Read:
    """What a row holds.  Raises StateError where that is not what this version wrote."""
    try:
        row = json.loads(body)
        return _CONVERTER.structure(cluster_row(row) if kind is Cluster else row, kind)
    except (ValueError, TypeError, AttributeError, KeyError, cattrs.errors.BaseValidationError) as error:
        raise StateError(
            f"the state file {path} holds a {kind.__name__} that cannot be read; it was left as it is",
            next_step=ANOTHER,
        ) from error


class Store:
    """The state file of one home directory.  A connection per call, so threads and processes may share."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._path = home / "state.sqlite"
        opened(self._path)

    def _database(self) -> contextlib.AbstractContextManager[sqlite3.Connection]:
        return database(self._path)

    def clusters(self) -> tuple[Cluster, ...]:
        """Every recorded cluster, by name."""
        with self._database() as connection:
            rows = connection.execute("SELECT body FROM clusters ORDER BY name").fetchall()
        return tuple(_loaded(self._path, body, Cluster) for (body,) in rows)

    def cluster(self, name: str) -> Cluster | None:
        """The cluster of that name."""
        with self._database() as connection:
            row = connection.execute("SELECT body FROM clusters WHERE name = ?", (name,)).fetchone()
        return _loaded(self._path, row[0], Cluster) if row else None

    def save_cluster(self, cluster: Cluster) -> None:
        """Record it, replacing what was recorded under its name."""
        with self._database() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO clusters VALUES (?, ?, ?)",
                (cluster.name, cluster.id, _CONVERTER.dumps(cluster)),
            )

    def forget_cluster(self, cluster: Cluster) -> None:
        """Remove the cluster and its resources; its runs stay."""
        with self._database() as connection:
            connection.execute("DELETE FROM resources WHERE cluster_id = ?", (cluster.id,))
            connection.execute("DELETE FROM environments WHERE cluster_id = ?", (cluster.id,))
            connection.execute("DELETE FROM clusters WHERE id = ?", (cluster.id,))
            connection.execute("INSERT OR IGNORE INTO past VALUES (?)", (cluster.id,))

    def next_cluster_id(self, name: str) -> str:
        """For a new cluster of that name: no other home gives it; the same until one is forgotten."""
        with self._database() as connection:
            (gone,) = connection.execute("SELECT count(*) FROM past").fetchone()
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
            with self._database() as connection:
                connection.execute(
                    "INSERT OR REPLACE INTO facts VALUES (?, ?)",
                    (_machine(node.host), _CONVERTER.dumps(of_the_machine)),
                )

    def facts(self, host: Host) -> Facts | None:
        """What was last known of a machine."""
        with self._database() as connection:
            row = connection.execute("SELECT body FROM facts WHERE machine = ?", (_machine(host),)).fetchone()
        return _loaded(self._path, row[0], Facts) if row else None

    def save_environment(self, cluster_id: str, asked: str, environment: ResolvedEnvironment) -> None:
        """Keep what the cluster's environment was resolved to; ``asked`` stands for what it came from."""
        with self._database() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO environments VALUES (?, ?, ?)",
                (cluster_id, asked, _CONVERTER.dumps(environment)),
            )

    def environment(self, cluster_id: str) -> tuple[str, ResolvedEnvironment] | None:
        """What was kept: (asked, environment)."""
        with self._database() as connection:
            row = connection.execute(
                "SELECT asked, body FROM environments WHERE cluster_id = ?", (cluster_id,)
            ).fetchone()
        return (row[0], _loaded(self._path, row[1], ResolvedEnvironment)) if row else None

    def save_intent(self, intent: Intent) -> None:
        """Record a create before it is sent, be it again: its time is that of the last one."""
        with self._database() as connection:
            connection.execute(
                "INSERT INTO resources VALUES (?, ?, ?, ?, NULL) "
                "ON CONFLICT (cluster_id, kind, name) DO UPDATE SET intent = excluded.intent",
                (intent.cluster_id, intent.kind, intent.name, _CONVERTER.dumps(intent)),
            )

    def save_resource(self, resource: Resource) -> None:
        """Record the outcome of a create."""
        with self._database() as connection:
            connection.execute(
                "UPDATE resources SET ref = ? WHERE cluster_id = ? AND kind = ? AND name = ?",
                (resource.ref, resource.cluster_id, resource.kind, resource.name),
            )

    def resources(self, cluster_id: str) -> tuple[Resource, ...]:
        """All that was intended for the cluster, in order; ``ref`` is empty where the outcome is unknown."""
        with self._database() as connection:
            rows = connection.execute(
                "SELECT cluster_id, kind, name, coalesce(ref, ''), "
                "coalesce(json_extract(intent, '$.recorded_s'), 0), "
                "coalesce(json_extract(intent, '$.owner'), '') "
                "FROM resources WHERE cluster_id = ? ORDER BY rowid",
                (cluster_id,),
            ).fetchall()
        return tuple(
            Resource(cluster_id, kind, name, ref, owner_tag(owner) if owner else "", recorded_s=recorded_s)
            for cluster_id, kind, name, ref, recorded_s, owner in rows
        )

    def forget_resource(self, resource: Resource) -> None:
        """Remove a resource that was observed to be gone."""
        with self._database() as connection:
            connection.execute(
                "DELETE FROM resources WHERE cluster_id = ? AND kind = ? AND name = ?",
                (resource.cluster_id, resource.kind, resource.name),
            )

    def runs(self, cluster: str | None = None) -> tuple[RunRecord, ...]:
        """Runs of a cluster's name (all when None), oldest first; also of clusters that are gone."""
        with self._database() as connection:
            rows = connection.execute(
                "SELECT body FROM runs WHERE ? IS NULL OR cluster = ? ORDER BY sequence",
                (cluster, cluster),
            ).fetchall()
        return tuple(_loaded(self._path, body, RunRecord) for (body,) in rows)

    def save_run(self, run: RunRecord) -> None:
        """Record it, replacing what was recorded under its id."""
        with self._database() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?)",
                (run.id, run.cluster, run.sequence, _CONVERTER.dumps(run)),
            )

    def add_run(self, make: Callable[[int], RunRecord]) -> RunRecord:
        """Record what ``make`` gives for a sequence of its own: one more than any run's in this file."""
        with self._database() as connection:
            connection.execute("BEGIN IMMEDIATE")
            (last,) = connection.execute("SELECT coalesce(max(sequence), 0) FROM runs").fetchone()
            run = make(int(last) + 1)
            row = (run.id, run.cluster, run.sequence, _CONVERTER.dumps(run))
            connection.execute("INSERT INTO runs VALUES (?, ?, ?, ?)", row)
        return run

    def forget_run(self, run: RunRecord) -> None:
        """Remove a run that was never in line."""
        with self._database() as connection:
            connection.execute("DELETE FROM runs WHERE id = ?", (run.id,))

    def _born_s(self) -> int:
        """When this file was made: a home that is made anew gives other ids."""
        with self._database() as connection:
            (born_s,) = connection.execute("SELECT born_s FROM home").fetchone()
        return int(born_s)

    def lock(self, cluster: str, verb: str) -> contextlib.AbstractContextManager[None]:
        """Hold the cluster for a changing command.  Ends with the process, also when it is killed.

        Raises Locked, naming the holder, when another command holds it.
        """
        return locked(self._home / "locks", cluster, verb, lambda: self.cluster(cluster) is None)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def _machine(host: Host) -> str:
    return f"{host.user}@{host.address}:{host.port}"
