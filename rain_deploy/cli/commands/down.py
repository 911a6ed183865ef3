"""rain-deploy down: results first, then everything of the cluster, then the proof."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rain_deploy.cli.command import option, verb
from rain_deploy.cli.show import text
from rain_deploy.core.wording import money
from rain_deploy.options.table import Group

if TYPE_CHECKING:
    from rain_deploy.cli.session import Session
    from rain_deploy.verbs.down import DownResult


def down_text(result: DownResult) -> text.Text:
    """Return what was pulled and deleted, and how it was verified."""
    if result.nothing:
        of_it = f"rain-deploy gc -c {result.cluster}"
        return [f"cluster {result.cluster}: no record of it here; to look in an account: {of_it}"]
    cost = f"; it cost {money(result.cost, result.currency)}" if result.cost is not None else ""
    return [
        *(f"pulled: {run}" for run in result.pulled),
        *(f"deleted: {text.clean(thing)}" for thing in result.deleted),
        "verified: nothing is left",
        *(f"  {text.clean(line)}" for line in result.certificate),
        f"cluster {result.cluster} is down, {text.seconds(result.seconds)}{cost}",
    ]


@verb("down", down_text, done=True, examples=("down", "down -c mine --discard-results --yes"))
@option(
    "--discard-results", is_flag=True, group=Group.OUTPUT, help="Do not pull results that are not here yet."
)
def down_command(session: Session, *, discard_results: bool) -> DownResult:
    """Pull results that are not here yet, delete everything of the cluster, and verify it.

    While a run is active it asks first; --yes cancels the run.
    """
    from rain_deploy.verbs.down import down

    out = session.flags.get("out")
    return session.call(down, session.cluster, discard_results=discard_results, out=out)
