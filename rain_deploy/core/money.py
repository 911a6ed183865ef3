"""What machines have cost so far, and when a sum is spent."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import replace

from rain_deploy.core.bill import Meter

DEFAULT_TTL_S = 12 * 3600.0
"""From the making of a cluster to its time limit, where none is asked for."""
HOUR_S = 3600.0


def cost_so_far(meters: Collection[Meter], now_s: float) -> float:
    """Of all machines, each at its running price from first to last: never less than what is billed."""
    return sum(
        max(0.0, (now_s if meter.until_s is None else meter.until_s) - meter.since_s)
        / HOUR_S
        * meter.per_hour
        for meter in meters
    )


def open_meter(
    meters: tuple[Meter, ...], name: str, machine: str, now_s: float, per_hour: float
) -> tuple[Meter, ...]:
    """With a meter for the machine (the cloud's own id), once; one of that name before it is at rest."""
    if any(meter.machine == machine for meter in meters):
        return meters
    return (*close_meters(meters, {name}, now_s), Meter(name, machine, now_s, per_hour))


def close_meters(meters: tuple[Meter, ...], names: Collection[str], now_s: float) -> tuple[Meter, ...]:
    """With the meters of the nodes of these names at rest; one that rested before stays as it is."""
    return tuple(
        replace(meter, until_s=now_s) if meter.name in names and meter.until_s is None else meter
        for meter in meters
    )


def limit_of(
    now_s: float,
    *,
    ttl_s: float,
    max_cost: float | None = None,
    spent: float = 0.0,
    per_hour_all: float = 0.0,
) -> float | None:
    """The hour at which machines end by themselves: after ``ttl_s`` (math.inf: never) or ``max_cost``.

    The earlier wins; None: no limit.  ``per_hour_all``: of all machines while they run.
    """
    left_s = ttl_s
    if max_cost is not None and per_hour_all > 0:
        left_s = min(left_s, max(0.0, max_cost - spent) / per_hour_all * HOUR_S)
    return None if math.isinf(left_s) else now_s + left_s


def per_hour_now(meters: Collection[Meter]) -> float:
    """Of all machines that exist, while they run."""
    return sum(meter.per_hour for meter in meters if meter.until_s is None)
