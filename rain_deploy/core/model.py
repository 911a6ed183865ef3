"""What exists: hosts, nodes, clusters, runs, as they are recorded and shown."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from pathlib import Path


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
class Jump:
    """One hop of an OpenSSH ProxyJump."""

    address: str
    port: int
    user: str
    identity_files: tuple[Path, ...] = ()
    host_keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Host:
    """A machine reachable by SSH; the only thing that a provider has to yield."""

    name: str
    """Our name of the node: ``node-1`` is the first and runs the server."""
    address: str
    port: int
    user: str
    host_keys: tuple[str, ...]
    """Accepted keys, each ``keytype base64``.  Empty: unknown, every connection is refused."""
    label: str = ""
    """What the user calls this machine (host entry); shown in messages beside the name."""
    identity_files: tuple[Path, ...] = ()
    use_agent: bool = False
    jumps: tuple[Jump, ...] = ()
    cluster_address: str | None = None
    """Where the other nodes reach it; None: looked up on the host."""
    base: str | None = None
    """Directory for everything of ours; None: chosen from facts (/var/lib or /var/tmp)."""
    installer_env: tuple[tuple[str, str], ...] = ()
    """Environment that only the installer gets (certificates, package index settings)."""
    machine: str = ""
    """The cloud's own id of the machine: addresses are given again to others, this is not."""

    @property
    def index(self) -> int:
        """1 for ``node-1``."""
        return int(self.name.rpartition("-")[2])


@dataclass(frozen=True, slots=True)
class Facts:
    """What was looked up once on a host.  ``have`` lists cache entries as absolute paths."""

    uid: int
    user: str
    sudo: bool
    systemd: bool
    marked: bool
    arch: str
    glibc: str
    cpus: int
    memory_bytes: int
    disk_free_bytes: int
    python: str
    """Path of a Python 3.11 on the host, or empty."""
    hostname: str
    machine_id: str
    route_address: str
    """Source address of the host's route to the first node; empty when not asked."""
    have: tuple[str, ...] = ()
    missing_tools: tuple[str, ...] = ()
    """Of what the engine's build needs."""
    node_config_sha256: str = ""
    """Of the recorded node.json; empty when the node was not installed."""
    running: tuple[str, ...] = ()
    """Of our services: ``governor``, ``supervisor``."""
    active_run: str = ""
    taken: tuple[str, ...] = ()
    """``address cluster-id`` of each node that another cluster has running there."""
    base: str = ""
    """RAIN_DEPLOY_BASE of its environment: where everything of ours shall lie; empty: not set."""
    one_time_host_key: bool = False
    """Its SSH server may still have the host key that our user-data brought."""

    @property
    def root(self) -> bool:
        return self.uid == 0 or self.sudo


@dataclass(frozen=True, slots=True)
class Intent:
    """A resource that is about to be made; recorded before the call that makes it."""

    cluster_id: str
    cluster: str
    kind: str
    name: str
    options: tuple[tuple[str, str], ...] = ()
    """All that the provider must know to make it (zone, type, template …); no secret."""
    owner: str = ""
    expires_s: float | None = None
    """The time limit, of what can carry one."""
    recorded_s: float = 0.0
    """When it was recorded, right before its call."""


@dataclass(frozen=True, slots=True)
class ResourceRef:
    """A resource that exists (or may): what ``delete`` needs, what state records."""

    cluster_id: str
    kind: str
    name: str
    ref: str = ""
    """The provider's own id; empty while the outcome of its creation is unknown."""
    recorded_s: float = field(default=0.0, compare=False)
    """When its intent was recorded; 0 where it is known from the cloud alone."""
    owner: str = field(default="", compare=False)
    """In whose name its intent was recorded; empty where it is known from the cloud alone."""


@dataclass(frozen=True, slots=True)
class Found:
    """A resource as the cloud itself tells it, whoever's it is."""

    resource: ResourceRef
    owner: str
    cluster: str
    """The cluster's name, as its labels or its own name say."""
    zone: str = ""
    """Empty: of the whole organization."""
    state: str = ""
    """Of instances: the cloud's word (running, stopped, error …)."""
    address: str = ""
    instance_type: str = ""
    created_s: float | None = None
    expires_s: float | None = None


@dataclass(frozen=True, slots=True)
class Zone:
    """A place where a cloud makes machines."""

    name: str


@dataclass(frozen=True, slots=True)
class InstanceType:
    """A size of machine with its price; ``per_hour`` None: not in the price table."""

    name: str
    """``family.size``."""
    cpus: int
    memory_bytes: int
    gpus: int
    per_hour: float | None
    currency: str
    available: bool
    """This account may use it, in this zone."""
    source: str = ""
    """Of the price, with the date of its table."""


@dataclass(frozen=True, slots=True)
class Quote:
    """What machines of a cluster cost and open, before any is made."""

    zone: str
    instance_type: str
    template: str
    disk_size_gib: int
    cpus: int
    memory_bytes: int
    gpus: int
    per_hour: float
    """Of one running node, its disk included."""
    stopped_per_hour: float
    """Of one node that is powered off: its disk."""
    currency: str
    source: str
    """Of the prices, with the date of their table."""
    quota_left: int | None
    """Instances that may still be made; None: no limit."""
    opens: tuple[str, ...] = ()
    """Sentences: what is opened to whom."""


@dataclass(frozen=True, slots=True)
class Meter:
    """A machine that costs: from ``since_s`` to ``until_s`` (None: still), at a price per hour."""

    name: str
    machine: str
    since_s: float
    per_hour: float
    until_s: float | None = None


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


class RunState(enum.StrEnum):
    """How far a run is; all but ``shipped`` are told by the server node."""

    SHIPPED = "shipped"
    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    FINISHED = "finished"


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run as the operator's side records it."""

    id: str
    cluster_id: str
    cluster: str
    sequence: int
    port: int
    script: str
    args: tuple[str, ...]
    script_sha256: str
    created_s: float
    out: Path
    """Absolute path of the results, fixed when ``run`` was typed."""
    state: RunState = RunState.SHIPPED
    outcome: str = ""
    """``done``, ``failed``, ``cancelled``, ``timeout``, ``engine``, ``points``; empty while it runs."""
    exit_code: int | None = None
    """Of the script itself; negative: killed by that signal."""
    pulled: bool = False
    """True once everything of the finished run is in ``out`` and verified."""
    shipped: tuple[tuple[str, str], ...] = field(default=())
    """(path relative to files/, sha256) of what was sent."""
