"""A cluster that one command holds: nobody else changes it, and each change is on disk when it returns."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

from rain_deploy.core.bill import Bill
from rain_deploy.core.cluster import Cluster, Node
from rain_deploy.core.machine import Intent, Resource
from rain_deploy.state.store import Store


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
        """The cluster as it is recorded now.  Raises LookupError where it is not."""
        cluster = self._store.cluster(self._name)
        if cluster is None:
            raise LookupError(f"cluster {self._name} is not on record")
        return cluster

    @property
    def resources(self) -> tuple[Resource, ...]:
        """Everything that was intended for the cluster, in order of making."""
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
