"""rain-deploy scale N and extend DURATION: a living cluster's size, and its time limit."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import click

from rain_deploy.cli.cluster_options import ClusterFlags, cluster_spec
from rain_deploy.cli.options import MAX_NODES, lifetime, verb, whole

if TYPE_CHECKING:
    from rain_deploy.cli.session import Session
    from rain_deploy.core.result import Result


@verb("scale")
@click.argument("nodes", metavar="N", type=whole(1, MAX_NODES))
def scale_command(session: Session, *, nodes: int) -> Result:
    """Grow or shrink the cluster to N nodes.

    Healthy nodes stay as they are when a new one fails.  Growing works while a run is active; shrinking is
    refused then.
    """
    living = session.ctx.store.cluster(session.cluster)
    flags = ClusterFlags(nodes=nodes, provider=living.provider if living else None)
    return session.flows.scale(session.ctx, cluster_spec(session, flags, must_be_named=False), nodes)


@verb("extend")
@click.argument("duration", metavar="DURATION", type=lifetime)
def extend_command(session: Session, *, duration: float) -> Result:
    """Move the time limit by DURATION (30m, 12h), from now where it has passed; none: no limit.

    At its limit each machine powers itself off.  --max-cost wins where it is spent earlier.
    """
    return session.flows.extend(session.ctx, session.cluster, None if math.isinf(duration) else duration)
