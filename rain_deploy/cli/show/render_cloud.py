"""Results about machines that cost money, as text."""

from __future__ import annotations

from rain_deploy.cli.show import text
from rain_deploy.cli.show.tables import nodes, table
from rain_deploy.core.wording import money
from rain_deploy.verbs.catalog import TypesResult, ZonesResult
from rain_deploy.verbs.extend import ExtendResult
from rain_deploy.verbs.gc import GcResult
from rain_deploy.verbs.scale import ScaleResult

HOURS_PER_DAY = 24


def types(result: TypesResult) -> list[str | bytes]:
    """A row for each type; those that the account may not use say so."""
    rows = [
        (
            kind.name,
            str(kind.cpus),
            f"{kind.memory_bytes / 2**30:g} GiB",
            str(kind.gpus) if kind.gpus else "",
            *(
                "?" if kind.per_hour is None else money(kind.per_hour * n, kind.currency)
                for n in (1, HOURS_PER_DAY)
            ),
            "" if kind.available else "not for this account here",
        )
        for kind in result.types
    ]
    head = ("TYPE", ">CPUS", ">MEMORY", ">GPUS", ">PER HOUR", ">PER DAY", "")
    source = f"; prices without disk: {text.clean(result.source)}" if result.source else ""
    return [*table(head, rows), f"zone {result.zone}{source}"]


def zones(result: ZonesResult) -> list[str | bytes]:
    """A row for each zone."""
    return table(("ZONE", ""), [(zone.name, "default" if zone.default else "") for zone in result.zones])


def gc(result: GcResult) -> list[str | bytes]:
    """A row for each cluster in the account, what of it goes, and how to make it go."""
    if not result.lines:
        of = f" for cluster {result.cluster}" if result.cluster else ""
        return [f"the account holds nothing of rain-deploy{of}"]
    rows = [
        (line.cluster, line.id, line.owner, line.state, line.action, line.reason) for line in result.lines
    ]
    head = ("CLUSTER", "ID", "OWNER", "STATE", "ACTION", "WHY")
    return [
        *table(head, rows, wrap=True),
        *(
            f"{line.action}: {text.clean(resource)} of {line.cluster} ({line.id})"
            for line in result.lines
            if line.action != "kept"
            for resource in line.resources
        ),
        *(f"to remove it: {text.clean(line.next_step)}" for line in result.lines if line.next_step),
        *_dry_run(result),
    ]


def _dry_run(result: GcResult) -> list[str]:
    if result.deleting:
        return []
    if any(line.action == "to delete" for line in result.lines):
        return [f"dry run; nothing was deleted; to delete: {result.delete_command}"]
    return ["dry run; there is nothing to delete"]


def scale(result: ScaleResult) -> list[str | bytes]:
    """What came and what went."""
    now = text.count(result.after, "node")
    if not (result.added or result.removed):
        return [f"cluster {result.cluster} has {now} as before", *nodes(result.nodes)]
    changes = (("added", result.added), ("removed", result.removed))
    return [
        f"cluster {result.cluster} has {now} now, {result.before} before, {text.seconds(result.seconds)}",
        *(f"{what}: {', '.join(names)}" for what, names in changes if names),
        *nodes(result.nodes),
        *_costs(result),
    ]


def _costs(result: ScaleResult) -> list[str]:
    """What the new size costs, and until when."""
    if result.per_hour is None:
        return []
    return [f"costs {money(result.per_hour, result.currency)} per hour; {text.limit(result.limit_s)}"]


def extend(result: ExtendResult) -> list[str | bytes]:
    """The new hour, and what the cluster costs until then."""
    return [
        f"cluster {result.cluster}: {text.limit(result.limit_s)}",
        f"costs {money(result.per_hour, result.currency)} per hour",
        f"told: {', '.join(result.nodes)}" if result.nodes else "no node could be told: only the labels were",
    ]
