"""What exists in the lab's organisation: zonal instances and snapshots, organisation-wide keys and groups."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from tests.lab import catalogue


class RefusedError(Exception):
    """An answer that is no success: its status, message, and the messages of a validation."""

    def __init__(self, status: int, message: str, errors: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.errors = errors

    def view(self) -> dict[str, Any]:
        """The body of the answer."""
        return {"message": self.message} | (
            {"errors": [{"message": each} for each in self.errors]} if self.errors else {}
        )


def absent(what: str) -> RefusedError:
    """An unknown id or name."""
    return RefusedError(404, f"{what} not found")


def new_id() -> str:
    """A fresh UUID."""
    return str(uuid4())


def rfc3339(seconds: float) -> str:
    """Epoch seconds as the API writes them."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def rfc3339_ms(seconds: float) -> str:
    """With milliseconds, as events have them."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(slots=True, eq=False, kw_only=True)
class Resource:
    """What all that can be left behind have in common."""

    id: str = field(default_factory=new_id)
    name: str
    created_s: float = field(default_factory=time.time)
    seeded: bool = False  # was there before the test


@dataclass(slots=True, eq=False, kw_only=True)
class Key(Resource):
    """An SSH key; the name is its id."""

    fingerprint: str
    public_key: str

    def view(self) -> dict[str, Any]:
        """The public key is never returned."""
        return {"name": self.name, "fingerprint": self.fingerprint}


@dataclass(slots=True, eq=False, kw_only=True)
class Group(Resource):
    """A security group."""

    description: str | None = None
    rules: list[dict[str, Any]] = field(default_factory=list)
    last_left_s: float = 0.0  # when its last instance was deleted

    def view(self) -> dict[str, Any]:
        """``rules`` is absent when empty."""
        found: dict[str, Any] = {"id": self.id, "name": self.name, "visibility": "private"}
        if self.description is not None:
            found["description"] = self.description
        return found | ({"rules": [dict(rule) for rule in self.rules]} if self.rules else {})


@dataclass(slots=True, eq=False, kw_only=True)
class Spread(Resource):
    """An anti-affinity group."""

    description: str = ""

    def view(self, instances: list[str]) -> dict[str, Any]:
        """``instances`` is present when empty too."""
        found = {"id": self.id, "name": self.name, "description": self.description}
        return found | {"instances": [{"id": each} for each in instances]}


@dataclass(slots=True, eq=False, kw_only=True)
class Snapshot(Resource):
    """Of an instance's disk."""

    instance: str
    size_gib: int
    state: str = "snapshotting"

    def view(self) -> dict[str, Any]:
        """As the API shows it."""
        return {
            "id": self.id,
            "name": self.name,
            "state": self.state,
            "size": self.size_gib,
            "created-at": rfc3339(self.created_s),
            "instance": {"id": self.instance},
        }


@dataclass(slots=True, eq=False, kw_only=True)
class Vm(Resource):
    """An instance."""

    zone: str
    type_id: str
    template_id: str
    disk_gib: int
    state: str = "starting"
    labels: dict[str, str] = field(default_factory=dict)
    user_data: str = ""  # as it came, base64
    keys: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    spreads: list[str] = field(default_factory=list)
    assignment: str = "inet4"
    address: str = ""
    address_from_s: float = 0.0  # not shown before
    protected: bool = False
    gone: bool = False
    machine: threading.Lock = field(default_factory=threading.Lock)  # one acts on the machine at a time

    def thin(self) -> dict[str, Any]:
        """The item of a list."""
        found: dict[str, Any] = {
            "id": self.id,
            "name": self.name,
            "state": self.state,
            "created-at": rfc3339(self.created_s),
            "instance-type": {"id": self.type_id},
            "template": {"id": self.template_id},
            "labels": dict(self.labels),
            "mac-address": "06:" + ":".join(self.id.replace("-", "")[n : n + 2] for n in range(0, 10, 2)),
            "public-ip-assignment": self.assignment,
            "security-groups": [{"id": each} for each in self.groups],
            "private-networks": [],
            "ssh-keys": [{"name": each} for each in self.keys],
        }
        if self.keys:
            found["ssh-key"] = {"name": self.keys[0]}
        if self.address and self.assignment != "none" and time.time() >= self.address_from_s:
            found["public-ip"] = self.address
        return found

    def view(self, snapshots: list[str]) -> dict[str, Any]:
        """The single read."""
        whole = {
            "disk-size": self.disk_gib,
            "disk-encrypted": True,
            "anti-affinity-groups": [{"id": each} for each in self.spreads],
            "elastic-ips": [],
            "snapshots": [{"id": each} for each in snapshots],
            "secureboot-enabled": False,
            "tpm-enabled": False,
            "application-consistent-snapshot-enabled": False,
        }
        return self.thin() | whole | ({"user-data": self.user_data} if self.user_data else {})


@dataclass(slots=True, eq=False)
class Task:
    """What the API calls an operation."""

    zone: str
    reference: dict[str, str] | None = None
    resource: dict[str, str] | None = None
    state: str = "pending"
    reason: str | None = None
    message: str | None = None
    id: str = field(default_factory=new_id)

    def view(self) -> dict[str, Any]:
        """Absent fields are absent keys."""
        fields: dict[str, Any] = {"reference": self.reference, "resource": self.resource}
        fields |= {"reason": self.reason, "message": self.message} if self.state != "pending" else {}
        present = {name: value for name, value in fields.items() if value is not None}
        return {"id": self.id, "state": self.state, **present}


@dataclass(slots=True)
class Zone:
    """What one zone's host knows."""

    name: str
    templates: dict[str, catalogue.Template]
    instances: dict[str, Vm] = field(default_factory=dict)
    snapshots: dict[str, Snapshot] = field(default_factory=dict)
    tasks: dict[str, Task] = field(default_factory=dict)


def nothing() -> None:
    """Do nothing."""


@dataclass(frozen=True, slots=True)
class Change:
    """What a mutation has begun, and how it goes on while its operation is pending.

    ``effect`` may raise OSError; ``undo`` takes back what has begun; ``wreck`` leaves it broken.
    """

    command: str = ""  # the read that follows
    id: str = ""
    effect: Callable[[], None] = nothing
    undo: Callable[[], None] = nothing
    wreck: Callable[[], None] | None = None  # None: as undo
    at_once: bool = False  # final in the first answer, without a reference
    resource: bool = False  # a ``resource`` field instead of the reference


class Store:
    """All of it.  Read and changed under ``lock``."""

    def __init__(self, zones: tuple[str, ...], authorized: frozenset[str]) -> None:
        self.lock = threading.RLock()
        self.zones = {
            name: Zone(name, {each.id: each for each in catalogue.templates(name)}) for name in zones
        }
        self.types = catalogue.instance_types(authorized)
        self.keys: dict[str, Key] = {}
        self.groups: dict[str, Group] = {}
        self.spreads: dict[str, Spread] = {}
        self.events: list[dict[str, Any]] = []
        self.limits = {"instance": 20, "template": 30, "snapshot": 30, "private-network": 32}
        self.limits |= {"elastic-ip": 5, "network-load-balancer": 5, "cpu": -1, "memory": -1}
        self.limits |= dict.fromkeys(catalogue.GPU_FAMILIES, 0)
        default = Group(name="default", description="Default Security Group", seeded=True)
        self.groups[default.id] = default

    def vms(self) -> Iterator[Vm]:
        """All instances of all zones."""
        return (vm for zone in self.zones.values() for vm in zone.instances.values())

    def usage(self, resource: str) -> int:
        """How much of a quota is used."""
        if resource == "instance":
            return sum(1 for _ in self.vms())
        if resource == "snapshot":
            return sum(len(zone.snapshots) for zone in self.zones.values())
        if resource in catalogue.GPU_FAMILIES:
            types = (self.types[vm.type_id] for vm in self.vms())
            return sum(each["gpus"] for each in types if each["family"] == resource)
        return 0

    def claim(self, resource: str, more: int = 1) -> None:
        """Raise a refusal where the quota has no room."""
        limit, used = self.limits[resource], self.usage(resource)
        if limit >= 0 and used + more > limit:
            raise RefusedError(409, f"Quota exceeded for {resource}: limit {limit}, usage {used}")

    def left(self) -> list[tuple[str, str, Resource]]:
        """Kind, zone ("" for the organisation's) and resource of all that exists; not the default group."""
        found: list[tuple[str, str, Resource]] = [("instance", vm.zone, vm) for vm in self.vms()]
        for zone in self.zones.values():
            found += [("snapshot", zone.name, each) for each in zone.snapshots.values()]
        found += [("security-group", "", each) for each in self.groups.values() if each.name != "default"]
        found += [("anti-affinity-group", "", each) for each in self.spreads.values()]
        return found + [("ssh-key", "", each) for each in self.keys.values()]
