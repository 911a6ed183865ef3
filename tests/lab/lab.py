"""The lab: an Exoscale account on loopback, for tests and for people who try the tool without an account."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

from tests.lab import catalogue, groups
from tests.lab.api import Api, ApiKey
from tests.lab.calls import HANDLERS
from tests.lab.faults import Faults
from tests.lab.log import Log
from tests.lab.machines import Machines, NoMachines
from tests.lab.server import Server
from tests.lab.store import Group, Key, Resource, Spread, Store, Vm, Zone
from tests.lab.work import Work

PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJm0pzdDL4Uuil0OQLlmD1UMZwYqdkM0bEBS0HLu9UsE other"

R = TypeVar("R", bound=Resource)


@dataclass(frozen=True, slots=True)
class Left:
    """Something that exists."""

    kind: str
    zone: str  # "" for what is the organisation's
    id: str
    name: str
    seeded: bool
    labels: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return " ".join(filter(None, (self.kind, self.zone, self.name, self.id)))


class Lab:
    """An account, empty but for the default security group, and its API; serves inside ``with``.

    ``latency_s``: how long an operation is pending; 0 ends it in the first answer.  ``zone``: what ``url``
    answers for.  ``authorized``: families of GPU types that may be used (set ``store.limits`` for them too).
    ``source_ip``: the operator's address in events, instead of the one seen.
    """

    def __init__(
        self,
        machines: Machines | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        latency_s: float = 0.05,
        zone: str = "ch-dk-2",
        zones: tuple[str, ...] = catalogue.ZONES,
        authorized: frozenset[str] = frozenset(),
        ssh_port: int = 22,
        source_ip: str | None = None,
    ) -> None:
        self.machines: Machines = machines or NoMachines()
        self.machines.on_power_off = self._powered_off
        self.zone = zone
        self.ssh_port = ssh_port
        self.log = Log()
        self.faults = Faults()
        self.store = Store(zones, authorized)
        self.work = Work(latency_s)
        self.keys: dict[str, ApiKey] = {}
        self.key, self.secret = self.add_key()
        reads = frozenset(name for name in HANDLERS if name.startswith(("list-", "get-")))
        self.restricted_key, self.restricted_secret = self.add_key(allowed=reads)
        self.api = Api(
            store=self.store,
            log=self.log,
            faults=self.faults,
            machines=self.machines,
            work=self.work,
            keys=self.keys,
            default_zone=zone,
        )
        self._server = Server(host, port, self.api, source_ip)
        base = f"http://{host}:{self._server.server_port}"
        self.url = f"{base}/v2"
        self.api.zone_urls |= {name: f"{base}/{name}/v2" for name in zones}

    def __enter__(self) -> Self:
        self._server.open()
        return self

    def __exit__(self, *_exception: object) -> None:
        """Stop serving; machines stay as they are: who made them ends them."""
        self.faults.clear()
        self.work.close()
        self._server.close()

    def environ(self) -> dict[str, str]:
        """What points ``exo`` and rain-deploy at this lab."""
        return {
            "EXOSCALE_API_ENDPOINT": self.url,
            "EXOSCALE_API_KEY": self.key,
            "EXOSCALE_API_SECRET": self.secret,
            "EXOSCALE_ZONE": self.zone,
            "RAIN_DEPLOY_PROVIDER": "exoscale",
            "RAIN_DEPLOY_SSH_PORT": str(self.ssh_port),
        }

    # ---- what exists

    def left(self, *, seeded: bool = True) -> tuple[Left, ...]:
        """All that exists, of any owner; without what was seeded where asked."""
        with self.store.lock:
            found = [_left(*each) for each in self.store.left()]
        return tuple(each for each in found if seeded or not each.seeded)

    def instances(self) -> tuple[Vm, ...]:
        """Of all zones; their fields may be changed."""
        with self.store.lock:
            return tuple(self.store.vms())

    def _powered_off(self, instance_id: str) -> None:
        for vm in self.instances():
            if vm.id == instance_id and vm.state == "running":
                vm.state = "stopped"

    # ---- keys of the API

    def add_key(self, *, allowed: frozenset[str] | None = None) -> tuple[str, str]:
        """Make a key and its secret; ``allowed``: operations of its role, None for all."""
        name, secret = f"EXO{secrets.token_hex(12)}", secrets.token_urlsafe(32)
        self.keys[name] = ApiKey(secret, allowed)
        return name, secret

    def revoke(self, key: str) -> None:
        """Refuse a key from now on."""
        self.keys.pop(key)

    # ---- what was there before

    def seed_instance(
        self,
        *,
        name: str = "other",
        labels: Mapping[str, str] | None = None,
        zone: str | None = None,
        **fields: Any,
    ) -> Vm:
        """Someone's running instance with no machine behind it; ``fields`` are those of ``Vm``."""
        place = self._zone(zone)
        types = (each for each in self.store.types.values() if each["size"] == "medium")
        defaults: dict[str, Any] = {
            "type_id": next(types)["id"],
            "template_id": next(iter(place.templates)),
            "disk_gib": 20,
            "state": "running",
            "address": "203.0.113.7",
            "created_s": 1_780_000_000.0,
        }
        vm = Vm(zone=place.name, name=name, labels=dict(labels or {}), seeded=True, **(defaults | fields))
        return self._seed(place.instances, vm.id, vm)

    def seed_key(self, name: str = "other", public_key: str = PUBLIC_KEY) -> Key:
        """Someone's SSH key."""
        return self._seed(self.store.keys, name, groups.key_of(name, public_key, seeded=True))

    def seed_group(
        self, name: str = "other", *, description: str | None = None, rules: tuple[dict[str, Any], ...] = ()
    ) -> Group:
        """Someone's security group; rules as in the body of the API's add-rule."""
        kept = [{"id": catalogue.identity(name, str(n)), **rule} for n, rule in enumerate(rules)]
        group = Group(name=name, description=description, rules=kept, seeded=True)
        return self._seed(self.store.groups, group.id, group)

    def seed_spread(self, name: str = "other", *, description: str = "") -> Spread:
        """Someone's anti-affinity group."""
        spread = Spread(name=name, description=description, seeded=True)
        return self._seed(self.store.spreads, spread.id, spread)

    def seed_template(self, name: str, *, zone: str | None = None, **fields: Any) -> catalogue.Template:
        """One more template; ``fields`` are those of ``catalogue.Template``."""
        place = self._zone(zone)
        identity = catalogue.identity(place.name, name, str(len(place.templates)))
        template = catalogue.Template(identity, name, **({"default_user": "debian"} | fields))
        place.templates[identity] = template
        return template

    def _zone(self, name: str | None) -> Zone:
        return self.store.zones[name or self.zone]

    def _seed(self, resources: dict[str, R], key: str, resource: R) -> R:
        with self.store.lock:
            resources[key] = resource
        return resource


def _left(kind: str, zone: str, resource: Resource) -> Left:
    labels = dict(resource.labels) if isinstance(resource, Vm) else {}
    return Left(kind, zone, resource.id, resource.name, resource.seeded, labels)
