"""The record on the operator's machine: one SQLite file, every change durable at once.

It holds clusters, their resources with the intents behind them, and runs: frozen dataclasses of core, which
cattrs turns into JSON.  The cloud's labels, not this file, are the truth about what exists.
"""

import contextlib
import dataclasses
import hashlib
import json
import socket
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import cattrs.errors
import cattrs.preconf.json
from cattrs.gen import make_dict_unstructure_fn, override

from rain_deploy.core.cluster import Bill, Cluster, Node
from rain_deploy.core.machine import Facts, Host, Intent, Resource
from rain_deploy.core.run import RunRecord
from rain_deploy.core.spec import ResolvedEnvironment
from rain_deploy.core.text import owner_tag
from rain_deploy.errors import StateError
from rain_deploy.state.file import Holder, StateFile, damaged, living_holder, locked

_CONVERTER = cattrs.preconf.json.make_converter()
_CONVERTER.register_unstructure_hook(Path, str)
_CONVERTER.register_structure_hook(Path, lambda value, _: Path(value))
# The caller's variables may be secrets, and every ``up`` brings them again.
_CONVERTER.register_unstructure_hook(
    Host, make_dict_unstructure_fn(Host, _CONVERTER, installer_env=override(omit=True))
)
_json = _CONVERTER.dumps
_DIGITS = 5  # hex digits: half of a cluster id identifies the home, half the cluster
_BILL = tuple(field.name for field in dataclasses.fields(Bill))
Read = TypeVar("Read")


class Store:
    """The state file of one home.  Each call opens a connection, so threads and processes may share it."""

    def __init__(self, home: Path, unrecorded: Callable[[StateError], None] = lambda _: None) -> None:
        """``unrecorded`` is called once if nothing can be recorded any more, and the command continues."""
        self._home = home
        self._file = StateFile(home / "state.sqlite", unrecorded)

    @property
    def unrecorded(self) -> StateError | None:
        """Return why the changes of this command are in memory alone; None: they are on disk."""
        return self._file.unwritable

    def clusters(self) -> tuple[Cluster, ...]:
        """Return every recorded cluster, ordered by name."""
        return self._load(Cluster, "clusters ORDER BY name")

    def cluster(self, name: str) -> Cluster | None:
        """Return the cluster of that name."""
        return next(iter(self._load(Cluster, "clusters WHERE name = ?", name)), None)

    def save_cluster(self, cluster: Cluster) -> None:
        """Record the cluster, and replace the record of its name."""
        self._save("clusters", cluster.name, cluster.id, _json(cluster))

    def update_cluster(self, name: str, change: Callable[[Cluster], Cluster]) -> Cluster:
        """Record what ``change`` returns for the current cluster, in one transaction, and return it.

        Raises LookupError if the cluster is not on record.
        """

        def update(connection: sqlite3.Connection) -> Cluster:
            connection.execute("BEGIN IMMEDIATE")
            row = connection.execute("SELECT body FROM clusters WHERE name = ?", (name,)).fetchone()
            if row is None:
                raise LookupError(f"cluster {name} is not recorded")
            cluster = change(self._value(Cluster, row[0]))
            connection.execute("UPDATE clusters SET body = ? WHERE name = ?", (_json(cluster), name))
            return cluster

        return self._file.transact(update)

    def forget_cluster(self, cluster: Cluster) -> None:
        """Delete the cluster and its resources; its runs stay."""

        def forget(connection: sqlite3.Connection) -> None:
            for statement in (
                "DELETE FROM resources WHERE cluster_id = ?",
                "DELETE FROM environments WHERE cluster_id = ?",
                "DELETE FROM clusters WHERE id = ?",
                "INSERT OR IGNORE INTO past VALUES (?)",
            ):
                connection.execute(statement, (cluster.id,))

        self._file.transact(forget)

    def next_cluster_id(self, name: str) -> str:
        """Return the id for a new cluster: unique to this home, and the same until a cluster is forgotten."""
        ((gone,),) = self._execute("SELECT count(*) FROM past")
        return self._tag() + _digest(f"{self._tag()}\n{name}\n{gone}")

    def made(self, cluster_id: str) -> bool:
        """Return whether this home gave that id, even if its cluster is forgotten."""
        return len(cluster_id) == 2 * _DIGITS and cluster_id.startswith(self._tag())

    def _tag(self) -> str:
        """Return the digits of this home, from its place and the birth of its state file."""
        ((born_s,),) = self._execute("SELECT born_s FROM home")
        return _digest(f"{socket.gethostname()}\n{self._home.absolute()}\n{born_s}")

    @contextlib.contextmanager
    def lock(self, cluster: str, verb: str, *, ending: bool = False) -> Iterator[None]:
        """Hold the cluster for a command that changes it.  The lock ends with the process, even if killed.

        While it is held, each change is durable or raises StateError, because it is on disk before what it
        stands for is done.  ``ending``: the command ends what costs, also where nothing can be recorded.
        Raises Locked, with the holder, if another command holds it.
        """
        places = (self._home / "locks", cluster, verb)
        with (
            self._file.durable(strict=not ending),
            locked(*places, lambda: self.cluster(cluster) is None, ending=ending),
        ):
            yield

    def holder(self, cluster: str) -> Holder | None:
        """Return the command of this machine that changes the cluster now, as far as that is known."""
        return living_holder(self._home / "locks", cluster)

    def save_facts(self, node: Node) -> None:
        """Keep the facts of a node's machine, but not of its cluster, for dry runs of later clusters."""
        if node.facts:
            facts = replace(node.facts, node_config_sha256="", journal=False, running=(), active_run="")
            self._save("facts", _machine(node.host), _json(replace(facts, taken=())))

    def facts(self, host: Host) -> Facts | None:
        """Return the last known facts of a machine."""
        return next(iter(self._load(Facts, "facts WHERE machine = ?", _machine(host))), None)

    def save_environment(self, cluster_id: str, asked: str, environment: ResolvedEnvironment) -> None:
        """Keep the resolved environment of a cluster; ``asked`` identifies what it was resolved from."""
        self._save("environments", cluster_id, asked, _json(environment))

    def environment(self, cluster_id: str) -> tuple[str, ResolvedEnvironment] | None:
        """Return ``asked`` and the environment that was kept for it."""
        rows = self._execute("SELECT asked, body FROM environments WHERE cluster_id = ?", cluster_id)
        return next(((asked, self._value(ResolvedEnvironment, body)) for asked, body in rows), None)

    def save_intent(self, intent: Intent) -> None:
        """Record a create before each time it is sent; the record has the time of the last one."""
        self._execute(
            "INSERT INTO resources VALUES (?, ?, ?, ?, NULL) "
            "ON CONFLICT (cluster_id, kind, name) DO UPDATE SET intent = excluded.intent",
            *(intent.cluster_id, intent.kind, intent.name, _json(intent)),
        )

    def save_resource(self, resource: Resource) -> None:
        """Record the outcome of a create."""
        statement = "UPDATE resources SET ref = ? WHERE cluster_id = ? AND kind = ? AND name = ?"
        self._execute(statement, resource.ref, resource.cluster_id, resource.kind, resource.name)

    def resources(self, cluster_id: str) -> tuple[Resource, ...]:
        """Return all intended resources of the cluster in order; an unknown outcome has an empty ``ref``."""
        rows = self._execute(
            "SELECT kind, name, coalesce(ref, ''), coalesce(json_extract(intent, '$.recorded_s'), 0), "
            "coalesce(json_extract(intent, '$.owner'), '') "
            "FROM resources WHERE cluster_id = ? ORDER BY rowid",
            cluster_id,
        )
        return tuple(
            Resource(cluster_id, kind, name, ref, owner_tag(owner) if owner else "", recorded_s=recorded_s)
            for kind, name, ref, recorded_s, owner in rows
        )

    def forget_resource(self, resource: Resource) -> None:
        """Delete the record of a resource that is verified to be gone."""
        statement = "DELETE FROM resources WHERE cluster_id = ? AND kind = ? AND name = ?"
        self._execute(statement, resource.cluster_id, resource.kind, resource.name)

    def runs(self, cluster: str | None = None) -> tuple[RunRecord, ...]:
        """Return the runs of a cluster, or all runs, oldest first; also those of deleted clusters."""
        return self._load(RunRecord, "runs WHERE ?1 IS NULL OR cluster = ?1 ORDER BY sequence", cluster)

    def save_run(self, run: RunRecord) -> None:
        """Record the run, and replace the record of its id."""
        self._save("runs", run.id, run.cluster, run.sequence, _json(run))

    def add_run(self, make: Callable[[int], RunRecord]) -> RunRecord:
        """Record and return the run that ``make`` returns for the next sequence number of this file."""

        def add(connection: sqlite3.Connection) -> RunRecord:
            connection.execute("BEGIN IMMEDIATE")
            (last,) = connection.execute("SELECT coalesce(max(sequence), 0) FROM runs").fetchone()
            run = make(int(last) + 1)
            row = (run.id, run.cluster, run.sequence, _json(run))
            connection.execute("INSERT INTO runs VALUES (?, ?, ?, ?)", row)
            return run

        return self._file.transact(add)

    def forget_run(self, run: RunRecord) -> None:
        """Delete the record of a run that was never queued."""
        self._execute("DELETE FROM runs WHERE id = ?", run.id)

    def _execute(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        return self._file.transact(lambda connection: connection.execute(statement, values).fetchall())

    def _save(self, table: str, *row: object) -> None:
        marks = ", ".join("?" * len(row))
        self._execute(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", *row)  # noqa: S608  a table of ours

    def _load(self, kind: type[Read], rows: str, *values: object) -> tuple[Read, ...]:
        found = self._execute(f"SELECT body FROM {rows}", *values)  # noqa: S608  a table of ours
        return tuple(self._value(kind, body) for (body,) in found)

    def _value(self, kind: type[Read], body: str) -> Read:
        """Return the value in a row.  Raises StateError if this version did not write it."""
        try:
            row = json.loads(body)
            return _CONVERTER.structure(_today(row) if kind is Cluster else row, kind)
        except (ValueError, TypeError, AttributeError, KeyError, cattrs.errors.BaseValidationError) as error:
            raise damaged(self._file.path, f"it holds a {kind.__name__} that cannot be read") from error


def _today(row: dict[str, Any]) -> dict[str, Any]:
    """Return a cluster's row in today's shape: no cluster is lost because its record is older.

    Before, the settings of its machines were JSON text, and the fields of its bill stood alone.
    """
    if "spec_json" not in row:
        return row
    had = json.loads(row.pop("spec_json"))
    machines = {
        **{name: value for name, value in had.get("cloud", {}).items() if value is not None},
        "hosts": had.get("hosts", ()),
        "host_addresses": had.get("addresses", ()),
        "trust_networks": had.get("trust", ()),
        "ssh_port": had.get("ssh_port", 22),
    }
    bill = {name: row[name] for name in _BILL if name in row} if row.get("quote") else None
    return {**row, "machines": machines, "bill": bill}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def _machine(host: Host) -> str:
    return f"{host.user}@{host.address}:{host.port}"


class Record:
    """The record of one cluster, for the command that holds its lock.

    A change takes the record as it is now and replaces the given fields: a command that only reads may have
    recorded a machine's new address meanwhile.
    """

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self._name = name

    @property
    def known(self) -> bool:
        """True while the cluster is on record."""
        return self._store.cluster(self._name) is not None

    @property
    def cluster(self) -> Cluster:
        """Return the cluster as recorded now.  Raises LookupError if it is not."""
        cluster = self._store.cluster(self._name)
        if cluster is None:
            raise LookupError(f"cluster {self._name} is not recorded")
        return cluster

    @property
    def resources(self) -> tuple[Resource, ...]:
        """Return all that was to be made for the cluster, in the order of making."""
        return self._store.resources(self.cluster.id)

    def save(self, cluster: Cluster) -> None:
        """Record the cluster as it is given."""
        self._store.save_cluster(cluster)

    def change(self, **fields: Any) -> Cluster:
        """Record other values of these fields and return the cluster."""
        return self._store.update_cluster(self._name, lambda now: replace(now, **fields))

    def change_bill(self, change: Callable[[Bill], Bill]) -> Cluster:
        """Record another bill, where there is one, and return the cluster."""
        return self._store.update_cluster(
            self._name, lambda now: replace(now, bill=change(now.bill)) if now.bill else now
        )

    def change_nodes(self, change: Callable[[Node], Node]) -> Cluster:
        """Record each node as ``change`` returns it, also those that are left out."""
        return self._store.update_cluster(self._name, lambda now: now.with_nodes(change))

    def drop_nodes(self, names: Collection[str]) -> Cluster:
        """Record the cluster without the nodes of these names."""
        return self._store.update_cluster(self._name, lambda now: now.without(names))

    def intend(self, intent: Intent) -> None:
        """Record an intent, right before the call that makes it so."""
        self._store.save_intent(replace(intent, recorded_s=time.time()))

    def made(self, resource: Resource) -> None:
        """Record what a create returned; a machine costs from its intent on."""
        self._store.save_resource(resource)

    def forget(self, resource: Resource) -> None:
        """Forget a resource that was observed to be gone; from now on it costs nothing.

        One that is not on record may have the name of one that is: that one stays.
        """
        if resource not in self.resources:
            return
        if resource.is_machine:
            self.change_bill(lambda bill: bill.closed({resource.name}, time.time()))
        self._store.forget_resource(resource)

    def meter(self) -> Cluster:
        """Record a meter for each machine that has none: it costs from its intent on."""
        now_s = time.time()
        machines = [resource for resource in self.resources if resource.is_machine and resource.ref]

        def metered(bill: Bill) -> Bill:
            for machine in machines:
                bill = bill.opened(machine.name, machine.ref, machine.recorded_s or now_s, now_s)
            return bill

        return self.change_bill(metered)

    def end(self) -> None:
        """Forget the cluster and its resources."""
        self._store.forget_cluster(self.cluster)
