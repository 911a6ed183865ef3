"""The offer of Exoscale: instance types, templates, quotas, prices, the quote of an ``up``.

Looked up once per process; reads only.  Refusals name what is valid.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rain_deploy.core.bill import Quote
from rain_deploy.core.machine import InstanceType, Machines
from rain_deploy.core.spec import ClusterSpec
from rain_deploy.errors import InputError, QuotaError
from rain_deploy.providers.exoscale.api import Api
from rain_deploy.providers.exoscale.prices import prices

DEFAULT_TYPE = "standard.medium"
DEFAULT_TEMPLATE = "Linux Debian 12 (Bookworm) 64-bit"
DEFAULT_USER = "debian"
"""Login of the default template."""
DEFAULT_DISK_GIB = 20
UNLIMITED = -1
GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Machine:
    """The kind of machine to make: names as Exoscale spells them, nothing left open."""

    zone: str
    instance_type: str
    template: str
    disk_size_gib: int


@dataclass(frozen=True, slots=True)
class Kind:
    """An instance type.  ``zones``: where there are machines of it."""

    id: str
    name: str
    cpus: int
    memory_bytes: int
    gpus: int
    authorized: bool
    zones: tuple[str, ...]

    @classmethod
    def parse(cls, row: Mapping[str, Any]) -> Kind:
        return cls(
            id=row["id"],
            name=f"{row.get('family', '')}.{row.get('size', '')}",
            cpus=row.get("cpus", 0),
            memory_bytes=row.get("memory", 0),
            gpus=row.get("gpus", 0),
            authorized=row.get("authorized", False),
            zones=tuple(row.get("zones", ())),
        )


@dataclass(frozen=True, slots=True)
class Template:
    """An image that machines are made from.  ``default_user``: the login for SSH."""

    id: str
    name: str
    default_user: str
    size_bytes: int
    created: str

    @classmethod
    def parse(cls, row: Mapping[str, Any]) -> Template:
        size_bytes, created = row.get("size", 0), row.get("created-at", "")
        return cls(row["id"], row.get("name", ""), row.get("default-user", ""), size_bytes, created)


class Catalog:
    """Raises InputError for what is not offered.  Thread-safe."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def wanted(self, machines: Machines) -> Machine:
        """Return the kind of machine to make, with defaults for what is left open.

        A bare size is of family standard, as in ``exo``.
        """
        name = (machines.instance_type or DEFAULT_TYPE).lower()
        return Machine(
            zone=machines.zone or self._api.zone,
            instance_type=name if "." in name else f"standard.{name}",
            template=machines.template or DEFAULT_TEMPLATE,
            disk_size_gib=machines.disk_size_gib or DEFAULT_DISK_GIB,
        )

    def request(self, machine: Machine) -> dict[str, Any]:
        """Return the part of a create call that says what kind of machine it is."""
        return {
            "disk_size": machine.disk_size_gib,
            "instance_type": {"id": self.kind(machine.instance_type, machine.zone).id},
            "template": {"id": self.template(machine.template, machine.zone).id},
        }

    def kinds(self, zone: str | None) -> tuple[Kind, ...]:
        return tuple(map(Kind.parse, self._api.rows("list-instance-types", zone=zone)))

    def kind(self, name: str, zone: str) -> Kind:
        """Return an instance type that this account may use in ``zone``."""
        offered = self.kinds(zone)
        usable = {kind.name: kind for kind in offered if kind.authorized and zone in kind.zones}
        if name in usable:
            return usable[name]
        elsewhere = self.elsewhere(name, zone)
        why = "is not for this account" if any(kind.name == name for kind in offered) else "is not known"
        why = f"is not in zone {zone}" if elsewhere else why
        raise InputError(
            f"instance type {name} {why}; zone {zone} has {_names(usable)}",
            next_step=elsewhere or f"rain-deploy types --zone {zone}",
        )

    def elsewhere(self, name: str, zone: str) -> str | None:
        """Return what to do when ``zone`` has no room for this type; None where no other zone has it."""
        zones = next((kind.zones for kind in self.kinds(zone) if kind.authorized and kind.name == name), ())
        others = [other for other in zones if other != zone]
        return f"--zone {others[0]}: this type is in {', '.join(others)} too" if others else None

    def no_room(self, error: QuotaError, machines: Machines) -> QuotaError:
        """Return the error with another zone as the next step, if there is one."""
        machine = self.wanted(machines)
        other = self.elsewhere(machine.instance_type, machine.zone)
        return QuotaError(error.message, node=error.node, next_step=other or error.next_step)

    def template(self, wanted: str, zone: str) -> Template:
        """Return a template by exact name or id: public before private, the newest of one name."""
        names: list[str] = []
        for visibility in ("public", "private"):
            offered = self._templates(zone, visibility)
            if fitting := [each for each in offered if wanted in {each.name, each.id}]:
                return max(fitting, key=lambda each: each.created)
            names += [each.name for each in offered]
        raise InputError(f"no template {wanted!r} in zone {zone}; there are {_names(names, '; ')}")

    def template_by_id(self, template_id: str, zone: str) -> Template:
        """Return the template of an existing machine, also one that is no longer offered."""
        for template in self._templates(zone, "public"):
            if template.id == template_id:
                return template
        return Template.parse(self._api.read("get-template", zone=zone, id=template_id))

    def user_if_known(self, wanted: str, zone: str) -> str | None:
        """Return the login of a template if this process has fetched the list; sends no request."""
        rows = self._api.known_rows("list-templates", zone=zone, visibility="public")
        known = (template for template in map(Template.parse, rows) if wanted in {template.name, template.id})
        return next((template.default_user for template in known), None)

    def types(self, zone: str, spec: ClusterSpec) -> tuple[InstanceType, ...]:
        """Return all types with their price in a zone, cheapest first, those without a price last."""
        table = prices(spec)
        types = (
            InstanceType(
                name=kind.name,
                cpus=kind.cpus,
                memory_bytes=kind.memory_bytes,
                gpus=kind.gpus,
                per_hour=table.table.get(kind.name),
                currency=table.currency,
                available=kind.authorized and zone in kind.zones,
                source=table.source(kind.name),
            )
            for kind in self.kinds(zone)
        )
        return tuple(sorted(types, key=lambda each: (each.per_hour is None, each.per_hour or 0.0, each.name)))

    def quote(self, spec: ClusterSpec, more: int, opens: tuple[str, ...]) -> Quote:
        """Return the price of one machine, for ``more`` of them.  ``opens``: sentences, what opens to whom.

        Raises InputError for what is not offered, QuotaError where there is no room.
        """
        machine = self.wanted(spec.machines)
        kind = self.kind(machine.instance_type, machine.zone)
        self._check_template(kind, machine, spec)
        left = self._quota_left(kind, machine, more)
        table = prices(spec)
        per_hour = table.machine(kind.name, machine.disk_size_gib)
        if per_hour is None:
            raise InputError(
                f"the price of {kind.name} or of its disk is not known in {table.currency}",
                next_step=f'give it in the config file: prices = {{ "{kind.name}" = 0.50, disk = 0.00014 }}',
            )
        return Quote(
            zone=machine.zone,
            instance_type=kind.name,
            template=machine.template,
            disk_size_gib=machine.disk_size_gib,
            cpus=kind.cpus,
            memory_bytes=kind.memory_bytes,
            gpus=kind.gpus,
            per_hour=per_hour,
            stopped_per_hour=table.disk(machine.disk_size_gib) or 0.0,
            currency=table.currency,
            source=table.source(kind.name),
            quota_left=left,
            opens=opens,
        )

    def _check_template(self, kind: Kind, machine: Machine, spec: ClusterSpec) -> None:
        if kind.gpus and not spec.machines.template:
            raise InputError(
                f"{kind.name} has a GPU, and the default template has no driver for it",
                next_step="--template NAME of one with the NVIDIA driver",
            )
        template = self.template(machine.template, machine.zone)
        needed = -(-template.size_bytes // GIB)
        if machine.disk_size_gib < needed:
            raise InputError(
                f"template {template.name!r} needs a disk of {needed} GiB, not {machine.disk_size_gib}",
                next_step=f"--disk-size {needed}",
            )

    def _quota_left(self, kind: Kind, machine: Machine, more: int) -> int | None:
        """Return how many instances may still be made; for GPU types the GPU quota counts too."""
        left = self._unused("instance")
        gpus = self._unused(kind.name.partition(".")[0]) if kind.gpus else None
        if gpus is not None:
            left = min(gpus // kind.gpus, gpus if left is None else left)
        if left is not None and more > left:
            what = f"{kind.name} machines" if gpus is not None else "instances"
            other = self.elsewhere(kind.name, machine.zone)
            ask = "ask for more in Exoscale's portal (Organization, Quotas)"
            raise QuotaError(
                f"the quota of this account allows {left} more {what}, but {more} are needed",
                next_step=f"{ask}; {other}" if other else ask,
            )
        return left

    def _unused(self, resource: str) -> int | None:
        """Return what is left of a quota; None: no limit, or the API names none."""
        for row in self._api.rows("list-quotas", since_s=self._api.now_s):
            if row.get("resource") == resource and (limit := row.get("limit", UNLIMITED)) != UNLIMITED:
                return max(0, int(limit) - int(row.get("usage", 0)))
        return None

    def _templates(self, zone: str, visibility: str) -> tuple[Template, ...]:
        return tuple(map(Template.parse, self._api.rows("list-templates", zone=zone, visibility=visibility)))


def _names(names: Iterable[str], between: str = ", ") -> str:
    return between.join(sorted(set(names))) or "none"
