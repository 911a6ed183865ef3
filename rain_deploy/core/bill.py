"""What machines cost: the price that was agreed to, what was spent so far, and when they must end."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from rain_deploy.core.machine import Machines, Resource
from rain_deploy.core.text import HOUR_S

DEFAULT_TTL_S = 12 * HOUR_S
"""From the making of a cluster to its time limit, unless another is asked for."""


@dataclass(frozen=True, slots=True)
class Quote:
    """What machines of a cluster cost and open, before any is made.

    Prices are of one node with its disk; one that is powered off costs its disk.
    """

    zone: str
    instance_type: str
    template: str
    disk_size_gib: int
    cpus: int
    memory_bytes: int
    gpus: int
    per_hour: float
    stopped_per_hour: float
    currency: str
    source: str
    """Where the prices come from, with the date of their table."""
    quota_left: int | None
    """Instances that may still be made; None: no limit."""
    opens: tuple[str, ...] = ()
    """Sentences: what is opened to whom."""

    @property
    def size(self) -> str:
        """Return the size of one machine in words: ``2 CPUs, 4 GiB, 20 GiB of disk``."""
        return f"{self.cpus} CPUs, {self.memory_bytes >> 30} GiB, {self.disk_size_gib} GiB of disk"

    def settings(self, machines: Machines) -> Machines:
        """Return these settings of machines with everything that was quoted filled in."""
        return replace(
            machines,
            zone=self.zone,
            instance_type=self.instance_type,
            disk_size_gib=self.disk_size_gib,
            template=self.template,
        )


@dataclass(frozen=True, slots=True)
class Meter:
    """A machine, by the cloud's own id, that costs from ``since_s`` to ``until_s`` (None: it still does)."""

    name: str
    machine: str
    since_s: float
    per_hour: float
    until_s: float | None = None

    def cost(self, now_s: float) -> float:
        """Return what it has cost at its running price: never less than what is billed."""
        end_s = now_s if self.until_s is None else self.until_s
        return max(0.0, end_s - self.since_s) / HOUR_S * self.per_hour


@dataclass(frozen=True, slots=True)
class Bill:
    """What a cluster of rented machines costs, and until when it may."""

    quote: Quote
    account: str = ""
    """Name of the API key with which its machines were made."""
    meters: tuple[Meter, ...] = ()
    """One for each machine that was ever made."""
    max_cost: float | None = None
    ttl_limit_s: float | None = None
    """The time limit by --ttl and ``extend`` alone."""
    limit_s: float | None = None
    """When the machines power themselves off; ``max_cost`` may have brought it before ``ttl_limit_s``."""

    @property
    def currency(self) -> str:
        return self.quote.currency

    @property
    def per_hour(self) -> float:
        """Price of all machines that exist, while they run."""
        return sum(meter.per_hour for meter in self.meters if meter.until_s is None)

    def per_hour_of(self, machines: Iterable[Resource]) -> float:
        """Return the price of all machines as they are now: one that is powered off costs its disk."""
        rates = {meter.machine: meter.per_hour for meter in self.meters if meter.until_s is None}
        for found in machines:
            running = rates.get(found.ref, self.quote.per_hour)
            rates[found.ref] = self.quote.stopped_per_hour if found.state == "stopped" else running
        return sum(rates.values())

    def cost(self, now_s: float) -> float:
        """Return what all machines have cost so far."""
        return sum(meter.cost(now_s) for meter in self.meters)

    def passed(self, now_s: float) -> bool:
        """Return True once the time limit has passed."""
        return self.limit_s is not None and self.limit_s <= now_s

    def limit_at(self, now_s: float, *, per_hour: float | None = None) -> float | None:
        """Return the hour at which machines must end: the one asked for or that of ``max_cost``, if earlier.

        ``per_hour``: price of all machines from now on, by default of those that exist.  None: no limit.
        """
        rate = self.per_hour if per_hour is None else per_hour
        left_s = math.inf if self.ttl_limit_s is None else self.ttl_limit_s - now_s
        if self.max_cost is not None and rate > 0:
            left_s = min(left_s, max(0.0, self.max_cost - self.cost(now_s)) / rate * HOUR_S)
        return None if math.isinf(left_s) else now_s + left_s

    def opened(self, name: str, machine: str, since_s: float, now_s: float) -> Bill:
        """Return the bill with one meter for the machine; that of an earlier machine of this name ends."""
        if any(meter.machine == machine for meter in self.meters):
            return self
        start_s = now_s if any(meter.name == name for meter in self.meters) else since_s
        meter = Meter(name, machine, start_s, self.quote.per_hour)
        return replace(self, meters=(*self.closed({name}, now_s).meters, meter))

    def closed(self, names: Collection[str], now_s: float) -> Bill:
        """Return the bill with the meters of these nodes ended; one that ended before stays as it is."""
        ends = {meter for meter in self.meters if meter.name in names and meter.until_s is None}
        ended = (replace(meter, until_s=now_s) if meter in ends else meter for meter in self.meters)
        return replace(self, meters=tuple(ended))
