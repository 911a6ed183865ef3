"""Prices of machines at Exoscale: a table with its date.

Figures: the snapshot of https://portal.exoscale.com/api/pricing/opencompute that the official
karpenter-provider-exoscale had on 2025-08-22; the same in CHF, EUR and USD, without VAT, in every zone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rain_deploy.core.spec import ClusterSpec

DISK = "disk"
CURRENCY = "CHF"
TABLE_CURRENCIES = frozenset({"CHF", "EUR", "USD"})
TABLE_SOURCE = "Exoscale's price list of 2025-08-22, unverified for today, without VAT"
_STANDARD = {
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
}
_CPU = {"extra-large": 0.23333, "huge": 0.46666, "mega": 0.93333, "titan": 1.86667}
_MEMORY = {"extra-large": 0.14, "huge": 0.28, "mega": 0.56, "titan": 1.12}
TABLE: Mapping[str, float] = {
    DISK: 0.00014,
    **{f"standard.{size}": price for size, price in _STANDARD.items()},
    **{f"cpu.{size}": price for size, price in _CPU.items()},
    **{f"memory.{size}": price for size, price in _MEMORY.items()},
}
"""Price per hour of a running machine; of ``disk``, per GiB and hour."""


@dataclass(frozen=True, slots=True)
class Prices:
    """Prices in ``currency``.  ``own``: names whose price the user's config file gives."""

    table: Mapping[str, float]
    currency: str
    own: frozenset[str]

    def machine(self, instance_type: str, disk_gib: int) -> float | None:
        """Return the price per hour of a running machine with its disk; None: not in the table."""
        running, disk = self.table.get(instance_type), self.disk(disk_gib)
        return None if running is None or disk is None else running + disk

    def disk(self, disk_gib: int) -> float | None:
        """Return the price per hour of a stopped machine: Exoscale goes on charging its disk."""
        per_gib = self.table.get(DISK)
        return None if per_gib is None else per_gib * disk_gib

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
