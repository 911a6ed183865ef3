"""A cluster and its nodes, as they are recorded."""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace

from rain_deploy.core.bill import Bill
from rain_deploy.core.machine import Facts, Host, Machines


class Role(enum.StrEnum):
    """What a node runs; the server node has a governor too."""

    SERVER = "server"
    GOVERNOR = "governor"


@dataclass(frozen=True, slots=True)
class Traits:
    """What differs between providers.  Flows ask these, never a provider's name."""

    owned: bool
    """Machines are made by us and may be deleted."""
    installs_packages: bool
    """Debian packages that are missing may be installed by ``up`` where there is root."""
    needs_wall: bool
    """Rain ports must be closed by our packet filter, or the network declared trusted."""
    shared_machine: bool
    """All nodes are on one machine, so cores and memory are divided by the number of nodes."""


@dataclass(frozen=True, slots=True)
class Node:
    """A node as recorded once it is installed."""

    name: str
    host: Host
    facts: Facts | None = None
    cluster_address: str = ""
    governor_port: int = 0
    cpus: int = 0


@dataclass(frozen=True, slots=True)
class Cluster:
    """A recorded cluster.  Changes are copies (dataclasses.replace)."""

    id: str
    name: str
    provider: str
    created_s: float
    nodes: tuple[Node, ...] = ()
    base: str = ""
    """Directory of ours on every node; the same absolute path on all."""
    env_digest: str = ""
    engine_sha256: str = ""
    code_digest: str = ""
    machines: Machines = field(default_factory=Machines)
    up: bool = False
    """True once ``up`` saw every governor register."""
    left_out: tuple[Node, ...] = ()
    """Nodes without which a later ``up`` went on, by --min-nodes: something may run on them."""
    owner: str = ""
    bill: Bill | None = None
    """None where nothing is priced."""

    @property
    def limit_s(self) -> float | None:
        """When its machines power themselves off; None: never."""
        return self.bill.limit_s if self.bill else None

    @property
    def currency(self) -> str:
        """Empty where nothing is priced."""
        return self.bill.currency if self.bill else ""

    def cost(self, now_s: float) -> float | None:
        """Return what its machines have cost so far; None where nothing is priced."""
        return self.bill.cost(now_s) if self.bill else None

    @property
    def every_node(self) -> tuple[Node, ...]:
        return (*self.nodes, *self.left_out)

    @property
    def whole(self) -> Cluster:
        """The cluster with those that are left out among its nodes, as when all of it goes."""
        return replace(self, nodes=self.every_node, left_out=())

    def with_nodes(self, change: Callable[[Node], Node]) -> Cluster:
        """Return the cluster with each node, also of those left out, as ``change`` returns it."""
        return replace(self, nodes=tuple(map(change, self.nodes)), left_out=tuple(map(change, self.left_out)))

    def without(self, names: Collection[str]) -> Cluster:
        """Return the cluster without the nodes of these names."""
        kept, left_out = ([n for n in nodes if n.name not in names] for nodes in (self.nodes, self.left_out))
        return replace(self, nodes=tuple(kept), left_out=tuple(left_out))

    @property
    def server(self) -> Node:
        return self.nodes[0]
