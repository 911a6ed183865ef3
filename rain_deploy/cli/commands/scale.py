"""rain-deploy scale N and extend DURATION: a living cluster's size, and its time limit."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import click

from rain_deploy.cli.command import checks, verb
from rain_deploy.cli.show import text
from rain_deploy.core.text import money
from rain_deploy.options.kinds import LIFETIME
from rain_deploy.options.table import OPTIONS

if TYPE_CHECKING:
    from rain_deploy.cli.session import Session
    from rain_deploy.verbs.extend import ExtendResult
    from rain_deploy.verbs.scale import ScaleResult


def scale_text(result: ScaleResult) -> text.Text:
    """Return what was added and removed, the nodes, and what they cost now."""
    now = text.count(result.after, "node")
    if not (result.added or result.removed):
        return [f"cluster {result.cluster} has {now} as before", text.nodes_table(result.nodes)]
    changes = (("added", result.added), ("removed", result.removed))
    hourly = result.per_hour
    costs = [] if hourly is None else [f"costs {money(hourly, result.currency)} per hour; "]
    return [
        f"cluster {result.cluster} has {now} now, {result.before} before, {text.seconds(result.seconds)}",
        *(f"{what}: {', '.join(names)}" for what, names in changes if names),
        text.nodes_table(result.nodes),
        *(f"{cost}{text.limit(result.limit_s)}" for cost in costs),
    ]


def extend_text(result: ExtendResult) -> text.Text:
    """Return the new time limit, and what the cluster costs until then."""
    unreachable = "no node was reachable; only the labels were updated"
    return [
        f"cluster {result.cluster}: {text.limit(result.limit_s)}",
        f"costs {money(result.per_hour, result.currency)} per hour",
        f"updated {', '.join(result.nodes)}" if result.nodes else unreachable,
    ]


@verb("scale", scale_text, done=True, examples=("scale 8", "scale 2 -c mine"))
@click.argument("nodes", metavar="N", callback=checks(OPTIONS["nodes"].kind))
def scale_command(session: Session, *, nodes: int) -> ScaleResult:
    """Add or remove nodes until the cluster has N.

    If a new node fails, the existing nodes stay as they are. You can add nodes while a run is waiting or
    active, but not remove them.
    """
    from rain_deploy.verbs.scale import scale

    living = session.ctx.store.cluster(session.cluster)
    provider = {"provider": living.provider} if living else {}
    return session.call(scale, session.cluster_spec({"nodes": nodes, **provider}), nodes)


@verb("extend", extend_text, done=True, examples=("extend 2h", "extend none -c mine"))
@click.argument("duration", metavar="DURATION", callback=checks(LIFETIME))
def extend_command(session: Session, *, duration: float) -> ExtendResult:
    """Extend the time limit of the cluster by DURATION. "none" removes the limit.

    At the limit, each machine powers itself off. If the limit has passed, DURATION counts from now. If
    --max-cost would be spent before the new limit, the machines power themselves off then.
    """
    from rain_deploy.verbs.extend import extend

    return session.call(extend, session.cluster, None if math.isinf(duration) else duration)
