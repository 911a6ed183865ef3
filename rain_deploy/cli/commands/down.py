"""rain-deploy down: results first, then everything of the cluster, then the proof."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rain_deploy.cli.command import option, verb
from rain_deploy.cli.commands.account import account_spec
from rain_deploy.cli.show import text
from rain_deploy.core.text import money
from rain_deploy.options.table import Group

if TYPE_CHECKING:
    from rain_deploy.cli.session import Session
    from rain_deploy.verbs.down import DownResult


def down_text(result: DownResult) -> text.Text:
    """Return what was pulled and deleted, and how it was verified."""
    if result.nothing:
        looked = "; ".join(result.certificate) or f"to look in an account: rain-deploy gc -c {result.cluster}"
        return [f"cluster {result.cluster}: no record of it here; {looked}"]
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
    """Pull the results that are not here yet, delete the cluster, and check that nothing is left.

    If a run is active, it asks first; --yes cancels the run. If there is no record of the cluster on this
    machine, it looks in your cloud account and shows what it finds there, but deletes nothing.
    """
    from rain_deploy.verbs.down import down

    out = session.flags.get("out")
    account = account_spec(session) if session.app.credentials() else None
    return session.call(down, session.cluster, discard_results=discard_results, out=out, account=account)
