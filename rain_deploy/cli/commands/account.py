"""rain-deploy types, zones, gc, clean and completion: what the cloud and this machine have of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from rain_deploy.cli.command import option, verb
from rain_deploy.cli.session import Session, Shown
from rain_deploy.cli.show import text
from rain_deploy.core.text import DAY_S, HOUR_S, money
from rain_deploy.options.table import CLOUD

if TYPE_CHECKING:
    from rain_deploy.core.spec import ClusterSpec


_STATES = {"living": "in use"}  # what a person reads instead


def account_spec(session: Session) -> ClusterSpec:
    """Return in which cloud and zone to look, and for whose resources."""
    from rain_deploy.options.spec import cluster_spec, merged

    given = merged(session.flags, session.toml)
    settings = {name: given[name] for name in ("zone", "prices", "owner") if name in given}
    return cluster_spec(session.cluster, (session.flags.get("provider", CLOUD), "named"), settings)


@verb("types", "types --zone de-fra-1")
def types_command(session: Session) -> Shown:
    """Show the instance types of a zone with their prices, cheapest first."""
    from rain_deploy.verbs.list import types

    result, rows = session.call(types, account_spec(session)), []
    for kind in result.types:
        price, gpus = kind.per_hour, str(kind.gpus) if kind.gpus else ""
        costs = ["?" if price is None else money(price * n, kind.currency) for n in (1, DAY_S // HOUR_S)]
        size = (str(kind.cpus), f"{kind.memory_bytes / 2**30:g} GiB", gpus)
        rows.append((kind.name, *size, *costs, "" if kind.available else "not for this account here"))
    head = ("TYPE", ">CPUS", ">MEMORY", ">GPUS", ">PER HOUR", ">PER DAY", "NOTE")
    source = f"; prices without disk: {text.clean(result.source)}" if result.source else ""
    return result, [text.table(head, rows), f"zone {result.zone}{source}"]


@verb("zones", "zones --json")
def zones_command(session: Session) -> Shown:
    """Show the zones where you can rent machines."""
    from rain_deploy.verbs.list import zones

    result = session.call(zones, account_spec(session))
    rows = [(zone.name, "default" if zone.default else "") for zone in result.zones]
    return result, [text.table(("ZONE", "NOTE"), rows)]


@verb("gc", "gc --delete -c mine")
@option("--delete", is_flag=True, help="Delete what is left over. [default: only show it]")
def gc_command(session: Session, *, delete: bool) -> Shown:
    """Find clusters that are left in the cloud account, in all zones.

    It shows the clusters of all owners. --delete deletes only your own, if their time limit has passed or if
    there is no record of them here. It keeps a cluster that another machine may still use, and one with
    results that are not pulled yet; add -c NAME to delete such a cluster too. Its results are then lost.
    """
    from rain_deploy.verbs.gc import gc

    named = click.get_current_context().get_parameter_source("cluster") is not ParameterSource.DEFAULT
    result = session.call(gc, account_spec(session), session.cluster if named else None, delete=delete)
    lines = result.lines
    if not lines:
        of = f" for cluster {result.cluster}" if result.cluster else ""
        return result, [f"the account holds nothing of rain-deploy{of}"]
    rows = []
    for line in lines:
        which = (line.cluster, line.id, line.owner, ", ".join(line.zones))
        rows.append((*which, _STATES.get(line.state, line.state), line.action, line.reason))
    dry_run = "dry run; there is nothing to delete"
    if any(line.action == "to delete" for line in lines):
        dry_run = f"dry run; nothing was deleted; to delete: {result.delete_command}"
    return result, [
        text.table(("CLUSTER", "ID", "OWNER", "ZONE", "STATE", "ACTION", "WHY"), rows, wrap=True),
        *(
            f"{line.action}: {text.clean(resource)} of {line.cluster} ({line.id})"
            for line in lines
            if line.action != "kept"
            for resource in line.resources
        ),
        *(f"to remove it: {text.clean(line.next_step)}" for line in lines if line.next_step),
        *([] if result.deleting else [dry_run]),
    ]


@verb("clean", "clean --all --yes")
@option("--all", "everything", is_flag=True, help="Also remove what the next up needs.")
def clean_command(session: Session, *, everything: bool) -> Shown:
    """List what can be removed from the caches of this machine, ask, and remove it.

    It keeps what a cluster of this machine uses, and what an up without --with and --requirements needs. With
    --all, it removes the latter too: the next up then builds the engine and downloads the packages again.
    Results and records stay.
    """
    from rain_deploy.verbs.clean import clean

    result = session.call(clean, everything=everything)
    rows = [
        (line.what, text.size(line.bytes), line.action, line.reason, str(line.path))
        for line in result.lines
        if line.action != "removed"  # those were named before they went
    ]
    if not result.lines:
        return result, ["the caches are empty"]
    removed, kept = (text.size(result.bytes_of(action)) for action in ("removed", "kept"))
    return result, [
        *([text.table(("WHAT", ">SIZE", "ACTION", "WHY", "WHERE"), rows, wrap=True)] if rows else []),
        f"removed {removed}, kept {kept}",
    ]


@verb(interactive=True)
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
def completion_command(session: Session, *, shell: str) -> Shown:
    """Print the completion script for a shell. For bash: eval "$(rain-deploy completion bash)"."""
    from click.shell_completion import get_completion_class

    del session
    made = get_completion_class(shell)
    assert made is not None
    root = click.get_current_context().find_root().command
    click.echo(made(root, {}, "rain-deploy", "_RAIN_DEPLOY_COMPLETE").source())
    return 0
