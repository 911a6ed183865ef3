"""What exists in the lab's organisation, and what a mutation leaves to be done."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar
from uuid import uuid4

from tests.lab import catalogue


class RefusedError(Exception):
    """An answer that is no success: its status, message, and the messages of a validation."""

    def __init__(self, status: int, message: str, errors: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.status = status
        said = {"errors": [{"message": each} for each in errors]} if errors else {}
        self.body: dict[str, Any] = {"message": message, **said}


def new_id() -> str:
    """A fresh UUID."""
    return str(uuid4())


def rfc3339(seconds: float, precision: str = "seconds") -> str:
    """Epoch seconds as the API writes them; events with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec=precision).replace("+00:00", "Z")


def refs(ids: list[str], key: str = "id") -> list[dict[str, str]]:
    """Bare references."""
    return [{key: each} for each in ids]


@dataclass(eq=False, kw_only=True)
class Resource(catalogue.Shown):
    """What exists; ``zone``: "" for the organisation's; ``seeded``: was there before the test."""

    hidden = frozenset({"zone", "created_s", "seeded", "labels"})
    kind: ClassVar[str]  # the API's word
    id: str = field(default_factory=new_id)
    name: str
    zone: str = ""
    created_s: float = field(default_factory=time.time)
    seeded: bool = False
    labels: dict[str, str] = field(default_factory=dict)  # only instances have any


@dataclass(eq=False, kw_only=True)
class Key(Resource):
    """An SSH key.  Its name is its id; the public key is never returned."""

    kind = "ssh-key"
    hidden = Resource.hidden | {"id", "public_key"}
    fingerprint: str
    public_key: str


@dataclass(eq=False, kw_only=True)
class Group(Resource):
    """A security group; ``last_left_s``: when its last instance was deleted."""

    kind = "security-group"
    hidden = Resource.hidden | {"rules", "last_left_s"}
    description: str | None = None
    visibility: str = "private"
    rules: list[dict[str, Any]] = field(default_factory=list)
    last_left_s: float = 0.0

    def thin(self) -> dict[str, Any]:
        """``rules`` is absent when empty."""
        return Resource.thin(self) | ({"rules": [dict(each) for each in self.rules]} if self.rules else {})


@dataclass(eq=False, kw_only=True)
class Spread(Resource):
    """An anti-affinity group; ``instances`` is there when it is empty too."""

    kind = "anti-affinity-group"
    description: str = ""
    instances: list[dict[str, str]] = field(default_factory=list)


@dataclass(eq=False, kw_only=True)
class Snapshot(Resource):
    """Of an instance's disk; ``size`` in GiB."""

    kind = "snapshot"
    created_at: str = ""
    instance: dict[str, str]
    size: int
    state: str = "snapshotting"


@dataclass(eq=False, kw_only=True)
class Vm(Resource):
    """An instance; ``address`` is not shown before ``address_from_s``."""

    kind = "instance"
    type_id: str
    template_id: str
    disk_gib: int
    state: str = "starting"
    user_data: str = ""  # as it came, base64
    keys: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    spreads: list[str] = field(default_factory=list)
    assignment: str = "inet4"
    address: str = ""
    address_from_s: float = 0.0
    protected: bool = False
    gone: bool = False
    machine: threading.Lock = field(default_factory=threading.Lock)  # one acts on the machine at a time

    def thin(self) -> dict[str, Any]:
        """With bare references; arrays and labels are there when they are empty too."""
        found: dict[str, Any] = {"id": self.id, "name": self.name, "state": self.state}
        found |= {"created-at": rfc3339(self.created_s), "labels": dict(self.labels)}
        found |= {"instance-type": {"id": self.type_id}, "template": {"id": self.template_id}}
        found |= {"security-groups": refs(self.groups), "ssh-keys": refs(self.keys, "name")}
        found |= {"private-networks": [], "public-ip-assignment": self.assignment}
        found["mac-address"] = ":".join(("06", *(self.id[n : n + 2] for n in (0, 2, 4, 6, 9))))
        if self.keys:
            found["ssh-key"] = {"name": self.keys[0]}
        if self.address and self.assignment != "none" and time.time() >= self.address_from_s:
            found["public-ip"] = self.address
        return found

    def view(self) -> dict[str, Any]:
        """Disk, anti-affinity groups, user-data and the booleans are in the single read alone."""
        found = self.thin() | {"disk-size": self.disk_gib, "disk-encrypted": True}
        found |= {"anti-affinity-groups": refs(self.spreads), "elastic-ips": [], "snapshots": []}
        found |= {"secureboot-enabled": False, "tpm-enabled": False}
        found |= {"application-consistent-snapshot-enabled": False}
        return found | ({"user-data": self.user_data} if self.user_data else {})


def _fields(resource: Resource) -> dict[str, Any]:
    """A copy of what may change."""
    return {name: copy.deepcopy(value) for name, value in vars(resource).items() if name != "machine"}


@dataclass(slots=True)
class Change:
    """What a mutation has begun; ``effect`` (may raise OSError) goes on with it, ``undo`` takes it back."""

    resource: Resource
    effect: Callable[[], object] = bool
    undo: Callable[[], object] = bool


class Store:
    """All of it.  Read and changed under ``lock``."""

    def __init__(self, zones: tuple[str, ...], authorized: frozenset[str]) -> None:
        self.lock = threading.RLock()
        self.types = catalogue.instance_types(authorized)
        self.keys: dict[str, Key] = {}
        self.groups: dict[str, Group] = {}
        self.spreads: dict[str, Spread] = {}
        self.zones = {name: Zone(name, self) for name in zones}
        self.events: list[dict[str, Any]] = []
        self.limits = dict(catalogue.LIMITS)
        self.default = Group(name="default", description="Default Security Group", seeded=True)
        self.groups[self.default.id] = self.default

    def vms(self) -> Iterator[Vm]:
        """All instances of all zones."""
        return (vm for zone in self.zones.values() for vm in zone.instances.values())

    def usage(self, resource: str) -> int:
        """How much of a quota is used."""
        if resource == "snapshot":
            return sum(len(zone.snapshots) for zone in self.zones.values())
        families = [self.types[vm.type_id].family for vm in self.vms()]
        return len(families) if resource == "instance" else families.count(resource)

    def claim(self, resource: str) -> None:
        """Raise a refusal where the quota has no room for one more."""
        limit, used = self.limits.get(resource, -1), self.usage(resource)
        if 0 <= limit <= used:
            raise RefusedError(409, f"Quota exceeded for {resource}: limit {limit}, usage {used}")

    def is_pending(self) -> bool:
        """Whether an operation has not come to its end."""
        with self.lock:
            return any(
                task.state == "pending" for zone in self.zones.values() for task in zone.tasks.values()
            )

    def kept(self) -> Callable[[], None]:
        """Return what brings back all resources as they are now; nothing may be pending."""
        kinds: list[dict[str, Any]] = [self.keys, self.groups, self.spreads]
        kinds += [each for zone in self.zones.values() for each in (zone.instances, zone.snapshots)]
        with self.lock:
            assert not self.is_pending()
            then = [(kind, {name: (each, _fields(each)) for name, each in kind.items()}) for kind in kinds]

        def bring_back() -> None:
            with self.lock:
                for kind, members in then:
                    kind.clear()
                    for name, (resource, fields) in members.items():
                        vars(resource).update(copy.deepcopy(fields))
                        kind[name] = resource

        return bring_back

    def left(self) -> list[tuple[str, str, Resource]]:
        """Kind, zone and resource of all that exists; not the default group."""
        zonal = [*self.vms(), *(each for zone in self.zones.values() for each in zone.snapshots.values())]
        groups = (each for each in self.groups.values() if each is not self.default)
        found = (*zonal, *groups, *self.spreads.values(), *self.keys.values())
        return [(each.kind, each.zone, each) for each in found]


class Zone:
    """What one zone's host knows: its own, and the organisation's, by the API's names for kinds."""

    def __init__(self, name: str, store: Store) -> None:
        self.name = name
        self.templates = catalogue.templates(name)
        self.instances: dict[str, Vm] = {}
        self.snapshots: dict[str, Snapshot] = {}
        self.tasks: dict[str, catalogue.Item] = {}  # what the API calls operations
        self.kinds: dict[str, dict[str, Any]] = {kind: {} for kind in catalogue.ALWAYS_EMPTY}
        self.kinds |= {"instance": self.instances, "snapshot": self.snapshots, "operation": self.tasks}
        self.kinds |= {"template": self.templates, "instance-type": store.types, "ssh-key": store.keys}
        self.kinds |= {"security-group": store.groups, "anti-affinity-group": store.spreads}
