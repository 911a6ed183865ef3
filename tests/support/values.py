"""Values as tests write them: settings of machines and of their bill in one flat list."""

from __future__ import annotations

import dataclasses
from typing import Any

from rain_deploy.core.cluster import Bill, Cluster, Quote
from rain_deploy.core.machine import Machines
from rain_deploy.core.spec import ClusterSpec

QUOTE = Quote("zone", "small", "Debian", 20, 1, 1 << 30, 0, 1.0, 0.1, "CHF", "a table", None)


def cluster_spec(name: str = "demo", provider: str = "exoscale", **fields: Any) -> ClusterSpec:
    """Return a ClusterSpec; fields of Machines are given as if they were its own."""
    machines = _taken(Machines, fields)
    return ClusterSpec(name, provider, "test", machines=Machines(**machines), **fields)


def billed(cluster: Cluster, **fields: Any) -> Cluster:
    """Return the cluster with a bill that has these fields."""
    return dataclasses.replace(cluster, bill=dataclasses.replace(cluster.bill or Bill(QUOTE), **fields))


def changed(cluster: Cluster, **fields: Any) -> Cluster:
    """Return the cluster with other fields; those of its Bill are given as if they were its own."""
    bill = _taken(Bill, fields)
    cluster = dataclasses.replace(cluster, **fields)
    return billed(cluster, **bill) if bill else cluster


def _taken(kind: type[Any], fields: dict[str, Any]) -> dict[str, Any]:
    names = {field.name for field in dataclasses.fields(kind)}
    return {name: fields.pop(name) for name in names & fields.keys()}
