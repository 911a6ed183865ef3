"""rain-deploy down: results first, then everything of the cluster, then the proof."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rain_deploy.cli.options import PATH, option, verb

if TYPE_CHECKING:
    from rain_deploy.cli.session import Session
    from rain_deploy.core.result import Result


@verb("down")
@option("--discard-results", is_flag=True, help="Do not pull results that are not here yet.")
@option("--out", type=PATH, metavar="DIR", help="Results go here [default: where run was typed].")
def down_command(session: Session, *, discard_results: bool, out: Path | None) -> Result:
    """Pull results that are not here yet, delete everything of the cluster, and prove it.

    With a run active it asks; --yes cancels the run first.
    """
    place = Path.cwd() / out if out else None
    return session.flows.down(session.ctx, session.cluster, discard_results=discard_results, out=place)
