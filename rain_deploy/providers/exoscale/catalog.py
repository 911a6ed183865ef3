"""The offer of Exoscale, looked up once per process: instance types, templates, quotas, prices, the quote."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from rain_deploy.core.cluster import Quote
from rain_deploy.core.machine import InstanceType, Machines
from rain_deploy.core.spec import ClusterSpec
from rain_deploy.errors import InputError, QuotaError
from rain_deploy.providers.exoscale.answers import MORE_QUOTA, NoCapacity
from rain_deploy.providers.exoscale.api import Api

DEFAULT_TYPE = "standard.medium"
DEFAULT_TEMPLATE = "Linux Debian 12 (Bookworm) 64-bit"
DEFAULT_USER = "debian"
DEFAULT_DISK_GIB = 20
UNLIMITED = -1


class Machine(NamedTuple):
    """The kind of machine to make: names as Exoscale spells them, nothing left open."""

    zone: str
    instance_type: str
    template: str
    disk_size_gib: int


class Kind(NamedTuple):
    """An instance type.  ``zones``: where there are machines of it."""

    id: str
    name: str
    cpus: int
    memory_bytes: int
    gpus: int
    authorized: bool
    zones: tuple[str, ...]


class Catalog:
    """Raises InputError for what is not offered.  Thread-safe."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def wanted(self, machines: Machines) -> Machine:
        """Return the kind of machine to make, with defaults.  As in ``exo``, a bare size is standard."""
        name = (machines.instance_type or DEFAULT_TYPE).lower()
        return Machine(
            zone=machines.zone or self._api.zone,
            instance_type=name if "." in name else f"standard.{name}",
            template=machines.template or DEFAULT_TEMPLATE,
            disk_size_gib=machines.disk_size_gib or DEFAULT_DISK_GIB,
        )

    def kinds(self, zone: str | None) -> tuple[Kind, ...]:
        return tuple(
            Kind(
                id=row["id"],
                name=f"{row.get('family', '')}.{row.get('size', '')}",
                cpus=row.get("cpus", 0),
                memory_bytes=row.get("memory", 0),
                gpus=row.get("gpus", 0),
                authorized=row.get("authorized", False),
                zones=tuple(row.get("zones", ())),
            )
            for row in self._api.rows("list-instance-types", zone=zone)
        )

    def kind(self, name: str, zone: str) -> Kind:
        """Return an instance type that this account may use in ``zone``."""
        offered = self.kinds(zone)
        usable = {kind.name: kind for kind in offered if kind.authorized and zone in kind.zones}
        if name in usable:
            return usable[name]
        elsewhere = self._elsewhere(name, zone)
        why = "is not for this account" if any(kind.name == name for kind in offered) else "is not known"
        why = f"is not in zone {zone}" if elsewhere else why
        message = f"instance type {name} {why}; zone {zone} has {_names(usable)}"
        raise InputError(message, next_step=elsewhere or f"rain-deploy types --zone {zone}")

    def no_room(self, error: QuotaError, machines: Machines) -> QuotaError:
        """Return the error of a zone without room with another zone as the next step, if there is one.

        A quota is the same in every zone: it is of the whole account.
        """
        if not isinstance(error, NoCapacity):
            return error
        machine = self.wanted(machines)
        error.next_step = self._elsewhere(machine.instance_type, machine.zone) or error.next_step
        return error

    def _elsewhere(self, name: str, zone: str) -> str | None:
        """Return what to do when ``zone`` has no room for this type; None where no other zone has it."""
        zones = next((kind.zones for kind in self.kinds(zone) if kind.authorized and kind.name == name), ())
        others = [other for other in zones if other != zone]
        return f"--zone {others[0]}: this type is in {', '.join(others)} too" if others else None

    def template(self, wanted: str, zone: str) -> Mapping[str, Any]:
        """Return the row of a template by exact name or id: public before private, the newest of one name."""
        names: list[str] = []
        for visibility in ("public", "private"):
            offered = self._api.rows("list-templates", zone=zone, visibility=visibility)
            if fitting := [row for row in offered if wanted in {row.get("name"), row["id"]}]:
                return max(fitting, key=lambda row: row.get("created-at", ""))
            names += [row.get("name", "") for row in offered]
        raise InputError(f"no template {wanted!r} in zone {zone}; there are {_names(names, '; ')}")

    def login(self, template_id: str, zone: str) -> str:
        """Return the login of an existing machine by its template, also one that is no longer offered."""
        offered = self._api.rows("list-templates", zone=zone, visibility="public")
        found = next((row for row in offered if row["id"] == template_id), None)
        found = found or self._api.read("get-template", zone=zone, id=template_id)
        return str(found.get("default-user", ""))

    def login_if_known(self, machine: Machine) -> str:
        """Return the login of a machine as far as this process knows its template; sends no request."""
        rows = self._api.known_rows("list-templates", zone=machine.zone, visibility="public")
        known = (row.get("default-user") for row in rows if machine.template in {row.get("name"), row["id"]})
        return next(known, None) or DEFAULT_USER

    def types(self, zone: str, spec: ClusterSpec) -> tuple[InstanceType, ...]:
        """Return all types with their price in a zone, cheapest first, those without a price last."""
        table = prices(spec)
        types = (
            InstanceType(
                *(kind.name, kind.cpus, kind.memory_bytes, kind.gpus),
                per_hour=table.table.get(kind.name),
                currency=table.currency,
                available=kind.authorized and zone in kind.zones,
                source=table.source(kind.name),
            )
            for kind in self.kinds(zone)
        )
        return tuple(sorted(types, key=lambda each: (each.per_hour is None, each.per_hour or 0.0, each.name)))

    def quote(self, spec: ClusterSpec, more: int) -> Quote:
        """Return what one of ``more`` machines costs.  Raises InputError, QuotaError."""
        machine = self.wanted(spec.machines)
        kind = self.kind(machine.instance_type, machine.zone)
        if kind.gpus and not spec.machines.template:
            message = f"{kind.name} has a GPU, and the default template has no driver for it"
            raise InputError(message, next_step="--template NAME of one with the NVIDIA driver")
        template = self.template(machine.template, machine.zone)
        needed = -(-template.get("size", 0) // (1 << 30))
        if machine.disk_size_gib < needed:
            raise InputError(
                f"template {template['name']!r} needs a disk of {needed} GiB, not {machine.disk_size_gib}",
                next_step=f"--disk-size {needed}",
            )
        left = self._quota_left(kind, more)
        table = prices(spec)
        hourly = table.hourly(kind.name, machine.disk_size_gib)
        if hourly is None:
            raise InputError(
                f"the price of {kind.name} or of its disk is not known in {table.currency}",
                next_step=f'give it in the config file: prices = {{ "{kind.name}" = 0.50, disk = 0.00014 }}',
            )
        return Quote(
            **machine._asdict(),
            cpus=kind.cpus,
            memory_bytes=kind.memory_bytes,
            gpus=kind.gpus,
            per_hour=hourly[0],
            stopped_per_hour=hourly[1],
            currency=table.currency,
            source=table.source(kind.name),
            quota_left=left,
        )

    def _quota_left(self, kind: Kind, more: int) -> int | None:
        """Return how many instances may still be made, None: any number; the GPU quota counts too."""
        unused: dict[str, int] = {}
        for row in self._api.rows("list-quotas", since_s=self._api.now_s):
            if (limit := int(row.get("limit", UNLIMITED))) != UNLIMITED:
                unused.setdefault(row.get("resource", ""), max(0, limit - int(row.get("usage", 0))))
        left = unused.get("instance")
        gpus = unused.get(kind.name.partition(".")[0]) if kind.gpus else None
        if gpus is not None:
            left = min(gpus // kind.gpus, gpus if left is None else left)
        if left is not None and more > left:
            what = f"{kind.name} machines" if gpus is not None else "instances"
            raise QuotaError(
                f"the quota of this account allows {left} more {what} in all zones, but {more} are needed",
                next_step=MORE_QUOTA,
            )
        return left


def _names(names: Iterable[str], between: str = ", ") -> str:
    return between.join(sorted(set(names))) or "none"


DISK = "disk"
CURRENCY = "CHF"
TABLE_CURRENCIES = frozenset({"CHF", "EUR", "USD"})
TABLE_SOURCE = "Exoscale's price list of 2025-08-22, unverified for today, without VAT"
# The snapshot of https://portal.exoscale.com/api/pricing/opencompute that the official
# karpenter-provider-exoscale had on that day; the same in CHF, EUR and USD, in every zone.
_SIZES = {
    "standard": {
        "micro": 0.00729,
        "tiny": 0.01458,
        "small": 0.02333,
        "medium": 0.04666,
        "large": 0.09333,
        "extra-large": 0.18667,
        "huge": 0.37334,
        "mega": 0.74667,
        "titan": 1.49333,
        "jumbo": 2.24,
        "colossus": 2.98666,
    },
    "cpu": {"extra-large": 0.23333, "huge": 0.46666, "mega": 0.93333, "titan": 1.86667},
    "memory": {"extra-large": 0.14, "huge": 0.28, "mega": 0.56, "titan": 1.12},
}
TABLE: Mapping[str, float] = {
    DISK: 0.00014,
    **{f"{family}.{size}": price for family, sizes in _SIZES.items() for size, price in sizes.items()},
}
"""Price per hour of a running machine; of ``disk``, per GiB and hour."""


class Prices(NamedTuple):
    """Prices in ``currency``.  ``own``: names whose price the user's config file gives."""

    table: Mapping[str, float]
    currency: str
    own: frozenset[str]

    def hourly(self, instance_type: str, disk_gib: int) -> tuple[float, float] | None:
        """Return the price of an hour while it runs, and while it is stopped: its disk.  None: unknown."""
        running, per_gib = self.table.get(instance_type), self.table.get(DISK)
        if running is None or per_gib is None:
            return None
        return running + per_gib * disk_gib, per_gib * disk_gib

    def source(self, instance_type: str) -> str:
        """Return where the price of such a machine comes from, with the date of the table if it is used."""
        asked = {instance_type, DISK}
        if asked <= self.own:
            return "the config file"
        ours = " and ".join(sorted(asked & self.own))
        return f"{TABLE_SOURCE}; {ours} from the config file" if ours else TABLE_SOURCE


def prices(spec: ClusterSpec) -> Prices:
    """Return the table with the user's prices over it; in a currency that the table lacks, those alone."""
    currency = spec.currency or CURRENCY
    own = dict(spec.prices)
    table = {**TABLE, **own} if currency.upper() in TABLE_CURRENCIES else own
    return Prices(table, currency, frozenset(own))
