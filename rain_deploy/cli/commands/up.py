"""rain-deploy up: machines, governors, a server; again: converges."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rain_deploy.cli.cluster_options import ClusterFlags, announce, cluster_options, cluster_spec
from rain_deploy.cli.options import option, verb

if TYPE_CHECKING:
    from rain_deploy.cli.session import Session
    from rain_deploy.core.result import Result


@verb("up")
@cluster_options
@option("--dry-run", is_flag=True, help="Print the plan, and what would run on which node; change nothing.")
def up_command(session: Session, *, dry_run: bool, **flags: Any) -> Result:
    """Bring up a cluster: N machines, N governors, one Rain server on the first.

    Running it again converges: what is as it should be is left alone.
    """
    spec = cluster_spec(session, ClusterFlags.taken(flags), must_be_named=not dry_run)
    announce(session, spec)
    return session.flows.up(session.ctx, spec, dry_run=dry_run)
