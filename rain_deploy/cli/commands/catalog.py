"""rain-deploy types and zones: what the cloud offers, and for how much."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rain_deploy.cli.command import verb
from rain_deploy.cli.show import tables, text
from rain_deploy.core.wording import DAY_S, HOUR_S, money
from rain_deploy.options.table import CLOUD

if TYPE_CHECKING:
    from rain_deploy.cli.session import Session
    from rain_deploy.core.spec import ClusterSpec
    from rain_deploy.verbs.catalog import TypesResult, ZonesResult


def types_text(result: TypesResult) -> list[str | bytes]:
    """Return a row for each type; those that the account may not use say so."""
    rows = [
        (
            kind.name,
            str(kind.cpus),
            f"{kind.memory_bytes / 2**30:g} GiB",
            str(kind.gpus) if kind.gpus else "",
            *(
                "?" if kind.per_hour is None else money(kind.per_hour * n, kind.currency)
                for n in (1, DAY_S // HOUR_S)
            ),
            "" if kind.available else "not for this account here",
        )
        for kind in result.types
    ]
    head = ("TYPE", ">CPUS", ">MEMORY", ">GPUS", ">PER HOUR", ">PER DAY", "")
    source = f"; prices without disk: {text.clean(result.source)}" if result.source else ""
    return [*tables.table(head, rows), f"zone {result.zone}{source}"]


def zones_text(result: ZonesResult) -> list[str | bytes]:
    """Return a row for each zone."""
    rows = [(zone.name, "default" if zone.default else "") for zone in result.zones]
    return tables.table(("ZONE", ""), rows)


@verb("types", types_text, examples=("types", "types --zone de-fra-1"))
def types_command(session: Session) -> TypesResult:
    """Show the instance types of a zone with their prices, cheapest first."""
    from rain_deploy.verbs.catalog import types  # noqa: PLC0415 - not for --help

    return session.call(types, _spec(session))


@verb("zones", zones_text, examples=("zones", "zones --json"))
def zones_command(session: Session) -> ZonesResult:
    """Show the zones in which the cloud makes machines."""
    from rain_deploy.verbs.catalog import zones  # noqa: PLC0415 - not for --help

    return session.call(zones, _spec(session))


def _spec(session: Session) -> ClusterSpec:
    from rain_deploy.options.spec import cluster_spec, merged, selected  # noqa: PLC0415 - not for --help

    settings = selected(merged(session.flags, session.toml), "zone", "prices", "owner")
    return cluster_spec(session.cluster, (session.flags.get("provider", CLOUD), "named"), settings)
