"""rain-deploy types and zones: what the cloud offers, and for how much."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from rain_deploy.cli.cloud_options import ZONE
from rain_deploy.cli.options import PROVIDERS, option, verb
from rain_deploy.cli.provider_choice import CLOUD

if TYPE_CHECKING:
    from rain_deploy.cli.session import Session
    from rain_deploy.core.result import Result
    from rain_deploy.core.spec import ClusterSpec

_PROVIDER = option("--provider", type=click.Choice(PROVIDERS), default=CLOUD, help=f"[default: {CLOUD}]")


@verb("types")
@_PROVIDER
@ZONE
def types_command(session: Session, *, provider: str, zone: str | None) -> Result:
    """Show the instance types of a zone with their prices, cheapest first."""
    return session.flows.types(session.ctx, _spec(session, provider, zone))


@verb("zones")
@_PROVIDER
def zones_command(session: Session, *, provider: str) -> Result:
    """Show where the cloud makes machines."""
    return session.flows.zones(session.ctx, _spec(session, provider))


def _spec(session: Session, provider: str, zone: str | None = None) -> ClusterSpec:
    from rain_deploy import options as config  # noqa: PLC0415 - not for --help
    from rain_deploy.core.spec import ClusterSpec  # noqa: PLC0415

    settings = config.merged(config.Settings(zone=zone), session.toml)
    return ClusterSpec(session.cluster, provider, "named", cloud=config.cloud_spec(settings))
