"""``zones`` and ``types``: what a cloud offers, and for how much."""

from __future__ import annotations

from dataclasses import dataclass

from rain_deploy.cluster.context import Context
from rain_deploy.core.events import Result
from rain_deploy.core.machine import InstanceType
from rain_deploy.core.spec import ClusterSpec
from rain_deploy.errors import (
    InputError,
)
from rain_deploy.providers.base import Cloud


@dataclass(frozen=True, slots=True)
class ZoneLine:
    """A place where the cloud makes machines."""

    name: str
    default: bool
    """The account's own: ``up`` takes it where ``--zone`` names none."""


@dataclass(frozen=True, slots=True)
class ZonesResult(Result):
    """``zones``."""

    zones: tuple[ZoneLine, ...]


@dataclass(frozen=True, slots=True)
class TypesResult(Result):
    """``types``: cheapest first."""

    zone: str
    types: tuple[InstanceType, ...]
    source: str
    """Of the prices, with the date of their table."""


def zones(ctx: Context, spec: ClusterSpec) -> ZonesResult:
    """Where machines are made.  Raises InputError for a provider that makes none for money."""
    names = _cloud(ctx, spec).zones()
    return ZonesResult(tuple(ZoneLine(name, default=name == names[0]) for name in names))


def types(ctx: Context, spec: ClusterSpec) -> TypesResult:
    """Sizes of machines with their prices, in the spec's zone, else in the account's default."""
    cloud = _cloud(ctx, spec)
    zone = spec.machines.zone or cloud.zones()[0]
    kinds = cloud.types(zone, spec)
    sources = dict.fromkeys(kind.source for kind in kinds if kind.per_hour is not None)
    return TypesResult(zone=zone, types=kinds, source="; ".join(sources))


def _cloud(ctx: Context, spec: ClusterSpec) -> Cloud:
    cloud = ctx.provider_for(spec.provider).cloud
    if cloud is None:
        raise InputError(
            f"provider {spec.provider} has neither zones nor instance types: its machines cost nothing",
            next_step="rain-deploy types --provider exoscale",
        )
    return cloud
