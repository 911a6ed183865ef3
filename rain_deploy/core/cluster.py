"""A cluster and its nodes, as they are recorded."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from rain_deploy.core.bill import Meter, Quote
from rain_deploy.core.machine import Facts, Host


class Role(enum.StrEnum):
    """What a node runs; the server node has a governor too."""

    SERVER = "server"
    GOVERNOR = "governor"


@dataclass(frozen=True, slots=True)
class Traits:
    """What differs between providers.  Flows ask these, never a provider's name."""

    priced: bool
    """Machines cost money while they exist."""
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
    spec_json: str = "{}"
    """What the provider must remember of the spec (host entries, trusted networks …)."""
    up: bool = False
    """True once ``up`` saw every governor register."""
    left_out: tuple[Node, ...] = ()
    """Nodes without which a later ``up`` went on, by --min-nodes: something may run on them."""
    owner: str = ""
    account: str = ""
    """Name of the API key with which its machines were made; empty where nothing is priced."""
    limit_s: float | None = None
    """When its machines power themselves off; None: no time limit."""
    ttl_limit_s: float | None = None
    """The limit by --ttl and ``extend`` alone: ``max_cost`` may have brought ``limit_s`` before it."""
    max_cost: float | None = None
    quote: Quote | None = None
    """What its machines were offered for; None where nothing is priced."""
    meters: tuple[Meter, ...] = ()
    """One for each machine that was ever made for it."""

    @property
    def server(self) -> Node:
        return self.nodes[0]
