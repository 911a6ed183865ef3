"""What Exoscale offers: zones, instance types, templates, quotas; looked up once per process.

Refusals name what is valid.  Facts: reference of the API, sections 4 and 5.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rain_deploy.core.machine import InstanceType, Machines
from rain_deploy.errors import InputError
from rain_deploy.providers.exoscale.api import Api
from rain_deploy.providers.exoscale.listing import Listings
from rain_deploy.providers.exoscale.prices import Prices

DEFAULT_TYPE = "standard.medium"
DEFAULT_TEMPLATE = "Linux Debian 12 (Bookworm) 64-bit"
DEFAULT_USER = "debian"
"""Of the default template."""
DEFAULT_DISK_GIB = 20
UNLIMITED = -1


@dataclass(frozen=True, slots=True)
class Machine:
    """What kind of machine is made: names as Exoscale spells them, nothing left open."""

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


@dataclass(frozen=True, slots=True)
class Template:
    """An image that machines are made from.  ``default_user``: who may log in by SSH."""

    id: str
    name: str
    default_user: str
    size_bytes: int


class Catalog:
    """Raises InputError for what is not offered; reads only."""

    def __init__(self, api: Api, listings: Listings) -> None:
        self._api = api
        self._listings = listings

    def zones(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self._api.zones())

    def check_zone(self, zone: str) -> None:
        if zone not in (valid := self.zones()):
            raise InputError(f"no zone {zone} at Exoscale; there are {', '.join(valid)}")

    def wanted(self, machines: Machines) -> Machine:
        """Return what is made, with defaults where nothing is said.

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
        return tuple(map(_kind, self._listings.rows("list-instance-types", zone=zone)))

    def kind(self, name: str, zone: str) -> Kind:
        """One that this account may use in ``zone``."""
        offered = self.kinds(zone)
        here = [kind for kind in offered if kind.authorized and zone in kind.zones]
        for kind in here:
            if kind.name == name:
                return kind
        others = self.other_zones(name, zone)
        why = "is not for this account" if any(k.name == name for k in offered) else "is not known"
        why = f"is not in zone {zone}" if others else why
        raise InputError(
            f"instance type {name} {why}; zone {zone} has {_names(k.name for k in here)}",
            next_step=self.elsewhere(name, zone) or f"rain-deploy types --zone {zone}",
        )

    def other_zones(self, name: str, zone: str) -> tuple[str, ...]:
        """Where else machines of this type are made."""
        zones = (k.zones for k in self.kinds(zone) if k.authorized and k.name == name)
        return tuple(other for other in next(zones, ()) if other != zone)

    def elsewhere(self, name: str, zone: str) -> str | None:
        """What to do when ``zone`` has no room for this type."""
        others = self.other_zones(name, zone)
        return f"--zone {others[0]}: this type is in {', '.join(others)} too" if others else None

    def template(self, wanted: str, zone: str) -> Template:
        """By exact name or id, public before private, the newest of one name."""
        seen: list[str] = []
        for visibility in ("public", "private"):
            rows = self._templates(zone, visibility)
            fitting = [row for row in rows if wanted in {row.get("name"), row["id"]}]
            if fitting:
                return _template(max(fitting, key=lambda row: row.get("created-at", "")))
            seen += [row.get("name", "") for row in rows]
        raise InputError(f"no template {wanted!r} in zone {zone}; there are {_names(seen, '; ')}")

    def template_by_id(self, template_id: str, zone: str) -> Template:
        """Of a machine that exists; also one that is no longer offered."""
        for row in self._templates(zone, "public"):
            if row["id"] == template_id:
                return _template(row)
        return _template(self._api.read("get-template", zone=zone, id=template_id))

    def user_if_known(self, wanted: str, zone: str) -> str | None:
        """Who may log in where a template is used, if this process has asked already; asks nobody."""
        rows = self._listings.kept("list-templates", zone=zone, visibility="public")
        return next((row.get("default-user") for row in rows if wanted in {row.get("name"), row["id"]}), None)

    def quota_left(self, resource: str) -> int | None:
        """How many may still be made; None: no limit, or none is told."""
        for row in self._listings.now("list-quotas"):
            if row.get("resource") == resource and (limit := row.get("limit", UNLIMITED)) != UNLIMITED:
                return max(0, int(limit) - int(row.get("usage", 0)))
        return None

    def priced(self, zone: str, prices: Prices) -> tuple[InstanceType, ...]:
        """All types with their price in a zone, cheapest first, those without a price last."""
        lines = (
            InstanceType(
                name=kind.name,
                cpus=kind.cpus,
                memory_bytes=kind.memory_bytes,
                gpus=kind.gpus,
                per_hour=prices.table.get(kind.name),
                currency=prices.currency,
                available=kind.authorized and zone in kind.zones,
                source=prices.source(kind.name),
            )
            for kind in self.kinds(zone)
        )
        return tuple(sorted(lines, key=lambda line: (line.per_hour is None, line.per_hour or 0.0, line.name)))

    def _templates(self, zone: str, visibility: str) -> tuple[dict[str, Any], ...]:
        return self._listings.rows("list-templates", zone=zone, visibility=visibility)


def _kind(row: Mapping[str, Any]) -> Kind:
    family, size = row.get("family", ""), row.get("size", "")
    return Kind(
        id=row["id"],
        name=f"{family}.{size}",
        cpus=row.get("cpus", 0),
        memory_bytes=row.get("memory", 0),
        gpus=row.get("gpus", 0),
        authorized=row.get("authorized", False),
        zones=tuple(row.get("zones", ())),
    )


def _template(row: Mapping[str, Any]) -> Template:
    return Template(row["id"], row.get("name", ""), row.get("default-user", ""), row.get("size", 0))


def _names(names: Iterable[str], between: str = ", ") -> str:
    return between.join(sorted(set(names))) or "none"
