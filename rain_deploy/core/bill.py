"""What machines cost."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Quote:
    """What machines of a cluster cost and open, before any is made."""

    zone: str
    instance_type: str
    template: str
    disk_size_gib: int
    cpus: int
    memory_bytes: int
    gpus: int
    per_hour: float
    """Of one running node, its disk included."""
    stopped_per_hour: float
    """Of one node that is powered off: its disk."""
    currency: str
    source: str
    """Of the prices, with the date of their table."""
    quota_left: int | None
    """Instances that may still be made; None: no limit."""
    opens: tuple[str, ...] = ()
    """Sentences: what is opened to whom."""


@dataclass(frozen=True, slots=True)
class Meter:
    """A machine that costs: from ``since_s`` to ``until_s`` (None: still), at a price per hour."""

    name: str
    machine: str
    since_s: float
    per_hour: float
    until_s: float | None = None
