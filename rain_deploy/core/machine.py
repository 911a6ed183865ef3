"""Machines and what is known of them: hosts, facts, resources in a cloud."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path


def node_name(index: int) -> str:
    """Return our name of a node; the first runs the server."""
    return f"node-{index}"


def node_index(name: str) -> int:
    """Return the number in a node's name, 0 for the name of anything else; nobody else parses names."""
    match = re.fullmatch("node-([1-9][0-9]{0,3})", name)
    return int(match[1]) if match else 0


def by_number(names: Iterable[str]) -> list[str]:
    """Return the names of nodes in order of their numbers: node-2 before node-10."""
    return sorted(names, key=lambda name: (node_index(name), name))


ASLEEP = frozenset({"stopped", "stopping"})  # states of a machine that is off and can be started
GOING = frozenset({"destroying", "destroyed", "expunging"})  # states of a machine that was deleted


@dataclass(frozen=True, slots=True)
class Jump:
    """One hop of an OpenSSH ProxyJump."""

    address: str
    port: int
    user: str
    identity_files: tuple[Path, ...] = ()
    host_keys: tuple[str, ...] = ()
    certificate_files: tuple[Path, ...] = ()
    identities_only: bool = False


@dataclass(frozen=True, slots=True)
class Host:
    """A machine reachable by SSH; the only thing that a provider has to yield."""

    name: str
    address: str
    port: int
    user: str
    host_keys: tuple[str, ...]
    """Accepted keys, each ``keytype base64``.  Empty: unknown, every connection is refused."""
    label: str = ""  # what the user calls this machine (host entry); shown in messages beside the name
    identity_files: tuple[Path, ...] = ()
    certificate_files: tuple[Path, ...] = ()
    use_agent: bool = False
    identities_only: bool = False  # of the agent's keys, only those of ``identity_files`` log in
    jumps: tuple[Jump, ...] = ()
    cluster_address: str | None = None  # where the other nodes reach it; None: looked up on the host
    base: str | None = None  # directory for all of ours; None: chosen from facts (/var/lib or /var/tmp)
    installer_env: tuple[tuple[str, str], ...] = ()
    """Environment that only the installer gets (certificates, package index settings)."""
    machine: str = ""  # the cloud's own id of the machine: addresses are given again to others, this is not

    @property
    def index(self) -> int:
        return node_index(self.name)

    @property
    def title(self) -> str:
        """Return the name for messages: ours, and the user's if there is one."""
        return f"{self.name} ({self.label})" if self.label else self.name


@dataclass(frozen=True, slots=True)
class Disk:
    """The file system that holds a directory which may become our base; ``place`` is the part that exists."""

    base: str
    place: str
    free_bytes: int
    problem: str = ""  # why it cannot be used, like ``mounted read-only``


@dataclass(frozen=True, slots=True)
class Facts:
    """Facts that were looked up once on a host.  ``have`` lists cache entries as absolute paths."""

    uid: int
    user: str
    sudo: bool
    systemd: bool
    marked: bool
    arch: str
    glibc: str
    cpus: int
    memory_bytes: int
    disk_free_bytes: int  # in the first of ``disks``
    python: str  # path of a Python 3.11 on the host, or empty
    hostname: str
    machine_id: str
    route_address: str  # source address of the host's route to the first node; empty when not asked
    have: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()  # entries of the cache that are there and cannot be used; not in ``have``
    missing_tools: tuple[str, ...] = ()  # of what the engine's build needs
    node_config_sha256: str = ""  # of node.json; empty when the node was not installed
    journal: bool = False  # it has one of this cluster
    running: tuple[str, ...] = ()  # of our services: ``governor``, ``supervisor``
    active_run: str = ""
    taken: tuple[str, ...] = ()  # ``address cluster-id`` of each node that another cluster has running there
    base: str = ""  # RAIN_DEPLOY_BASE of its environment: where everything of ours shall lie; empty: not set
    one_time_host_key: bool = False  # its SSH server may still have the host key that our user-data brought
    disks: tuple[Disk, ...] = ()  # one for each directory that may become the base

    @property
    def root(self) -> bool:
        return self.uid == 0 or self.sudo

    def disk(self, base: str) -> Disk:
        """Return the disk that holds ``base``."""
        known = (disk for disk in self.disks if disk.base == base)
        return next(known, Disk(base, base, self.disk_free_bytes))


@dataclass(frozen=True, slots=True)
class Machines:
    """The settings that all machines of a cluster share; None, empty and False: nothing is said about it."""

    zone: str | None = None
    instance_type: str | None = None  # ``family.size``; a bare size is of family standard
    disk_size_gib: int | None = None
    template: str | None = None
    anti_affinity: bool = False
    idle_s: float | None = None  # A machine with no run and no SSH session for so long powers itself off
    hosts: tuple[str, ...] = ()  # provider hosts: entries ``user@host[:port]`` or OpenSSH names, in order
    host_addresses: tuple[tuple[str, str], ...] = ()  # (entry, cluster address) pairs of the hosts file
    trust_networks: tuple[str, ...] = ()  # CIDRs whose hosts may reach the Rain ports without a packet filter
    ssh_port: int = 22  # port of hosts whose entry names none

    def or_else(self, other: "Machines") -> "Machines":
        """Return these settings; where nothing is said, those of ``other``."""
        said = {f.name: getattr(self, f.name) or getattr(other, f.name) for f in fields(self)}
        return Machines(**{**said, "ssh_port": other.ssh_port})


@dataclass(frozen=True, slots=True)
class Intent:
    """A resource that is about to be made; recorded, at ``recorded_s``, before the call that makes it."""

    cluster_id: str
    cluster: str
    kind: str
    name: str
    owner: str = ""
    machines: Machines = Machines()  # what the provider must know to make it; no secret
    entry: str = ""  # provider hosts: the host entry that is this node
    host_keys: str = ""  # provider hosts: the known_hosts file to use instead of the user's own
    allow_ip: tuple[str, ...] = ()  # CIDRs from which SSH is open; empty: the address that the cloud sees
    spread: str = ""  # name of the anti-affinity group that the machine joins
    expires_s: float | None = None  # the time limit, of what can carry one
    recorded_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Resource:
    """Something of a cluster that exists or may: as recorded, or as the account shows it, whoever's it is.

    Two are equal when they are the same thing, however much is known of each.
    """

    cluster_id: str
    kind: str
    name: str
    ref: str = ""  # the provider's own id; empty while the outcome of its creation is unknown
    owner: str = field(default="", compare=False)  # the owner's tag (``owner_tag``); empty if it is not known
    cluster: str = field(default="", compare=False)
    """The cluster's name, as labels or the resource's own name say; empty in the record."""
    recorded_s: float = field(default=0.0, compare=False)
    """The time when its intent was recorded; 0 where it is known from the account alone."""
    zone: str = field(default="", compare=False)  # empty: belongs to the whole organization
    state: str = field(default="", compare=False)  # the cloud's word for it (running, stopped, error …)
    address: str = field(default="", compare=False)
    instance_type: str = field(default="", compare=False)
    created_s: float | None = field(default=None, compare=False)
    expires_s: float | None = field(default=None, compare=False)

    @property
    def index(self) -> int:
        """Return the number of the machine; 0 if it is none."""
        return node_index(self.name)

    @property
    def is_machine(self) -> bool:
        return self.index > 0

    @property
    def label(self) -> str:
        """Return ``kind name``, the name for messages."""
        return f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True)
class Reach:
    """Differences between who can reach the machines and who should, as sentences."""

    opens: tuple[str, ...] = ()  # what is open to whom
    repairs: tuple[str, ...] = ()  # what is not as it should be, and ``up`` repairs
    warnings: tuple[str, ...] = ()  # what is open to everybody, because somebody wants it
    refused: str = ""  # why ``up`` refuses to continue
    next_step: str = ""  # what ends the refusal
    unknown: str = ""  # why nothing of this is known


@dataclass(frozen=True, slots=True)
class InstanceType:
    """A size of machine, ``family.size``, with its price; ``per_hour`` None: not in the price table."""

    name: str
    cpus: int
    memory_bytes: int
    gpus: int
    per_hour: float | None
    currency: str
    available: bool  # this account may use it, in this zone
    source: str = ""  # of the price, with the date of its table
