"""Machines and what is known of them: hosts, facts, resources in a cloud."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


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
