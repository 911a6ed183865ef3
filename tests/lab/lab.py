"""The lab: an Exoscale account on loopback, for tests and for people who try the tool without an account."""

from __future__ import annotations

import secrets
from typing import Any, NamedTuple, Self, TypeVar

from tests.lab import catalogue, spec
from tests.lab.api import Api
from tests.lab.faults import Faults
from tests.lab.groups import key_of
from tests.lab.log import Log
from tests.lab.machines import Machines, NoMachines
from tests.lab.server import Server
from tests.lab.store import Group, Key, Resource, Store, Vm

R = TypeVar("R", bound=Resource)
PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJm0pzdDL4Uuil0OQLlmD1UMZwYqdkM0bEBS0HLu9UsE other"


class Left(NamedTuple):
    """Something that existed then; ``zone``: "" for what is the organisation's."""

    kind: str
    zone: str
    id: str
    name: str
    seeded: bool
    labels: dict[str, str]

    def __str__(self) -> str:
        return " ".join(filter(None, (self.kind, self.zone, self.name, self.id)))


class Lab:
    """An account, empty but for the default security group, and its API; serves inside ``with``.

    ``latency_s``: how long an operation is pending; 0 ends it in the first answer.  ``zone``: what ``url``
    answers for.  ``authorized``: families of GPU types that may be used (set ``store.limits`` for them too).
    ``source_ip``: the operator's address in events, instead of the one seen.  ``key``: an API key and its
    secret, instead of new ones.
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
        key: tuple[str, str] | None = None,
    ) -> None:
        self.machines: Machines = machines or NoMachines()
        self.machines.on_power_off = self._powered_off
        self.zone = zone
        self.ssh_port = ssh_port
        self.log = Log()
        self.faults = Faults()
        self.store = Store(zones, authorized)
        self.api = Api(self.store, self.log, self.faults, self.machines, zone, latency_s)
        self.keys = self.api.keys
        self.key, self.secret = key or self.add_key()
        self.keys[self.key] = (self.secret, None)
        reads = frozenset(name for name, route in spec.routes().items() if route.method == "GET")
        self.restricted_key, self.restricted_secret = self.add_key(allowed=reads)
        self._server = Server((host, port), self.api, source_ip)
        base = f"http://{host}:{self._server.server_address[1]}"
        self.url = f"{base}/v2"
        self.api.zone_urls |= {name: f"{base}/{name}/v2" for name in zones}

    def __enter__(self) -> Self:
        self._server.open()
        return self

    def __exit__(self, *_exception: object) -> None:
        """Stop serving; machines stay as they are: who made them ends them."""
        self.faults.clear()
        self.api.close()
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

    def left(self, *, seeded: bool = True) -> tuple[Left, ...]:
        """All that exists, of any owner; without what was seeded where asked."""
        with self.store.lock:
            found = [each for each in self.store.left() if seeded or not each[2].seeded]
        return tuple(Left(kind, zone, it.id, it.name, it.seeded, dict(it.labels)) for kind, zone, it in found)

    def instances(self) -> tuple[Vm, ...]:
        """Of all zones; their fields may be changed."""
        with self.store.lock:
            return tuple(self.store.vms())

    def _powered_off(self, instance_id: str) -> None:
        for vm in self.instances():
            if vm.id == instance_id and vm.state == "running":
                vm.state = "stopped"

    def add_key(self, *, allowed: frozenset[str] | None = None) -> tuple[str, str]:
        """Make an API key and its secret; ``allowed``: operations of its role, None for all."""
        name, secret = f"EXO{secrets.token_hex(12)}", secrets.token_urlsafe(32)
        self.keys[name] = (secret, allowed)
        return name, secret

    def revoke(self, key: str) -> None:
        self.keys.pop(key)

    # ---- what was there before; ``fields`` are those of the resource's dataclass

    def seed_instance(self, *, zone: str | None = None, **fields: Any) -> Vm:
        """Someone's running instance with no machine behind it."""
        place = self.store.zones[zone or self.zone]
        medium, template = catalogue.identity("standard", "medium"), next(iter(place.templates))
        known: dict[str, Any] = {"name": "other", "type_id": medium, "template_id": template, "disk_gib": 20}
        known |= {"state": "running", "address": "203.0.113.7", "created_s": 1_780_000_000.0, "seeded": True}
        return self._seed(Vm(zone=place.name, **(known | fields)))

    def seed_key(self, name: str = "other", public_key: str = PUBLIC_KEY) -> Key:
        return self._seed(key_of(name, public_key, seeded=True))

    def seed_group(self, name: str = "other", **fields: Any) -> Group:
        return self._seed(Group(name=name, seeded=True, **fields))

    def seed_template(self, name: str, *, zone: str | None = None, **fields: Any) -> catalogue.Item:
        place = self.store.zones[zone or self.zone].templates
        identity = catalogue.identity(zone or self.zone, name, str(len(place)))
        place[identity] = catalogue.template(identity, name, **fields)
        return place[identity]

    def _seed(self, resource: R) -> R:
        with self.store.lock:
            self.store.zones[resource.zone or self.zone].kinds[resource.kind][resource.id] = resource
        return resource
