"""rain-deploy status and list."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rain_deploy.cli.options import option, verb

if TYPE_CHECKING:
    from rain_deploy.cli.session import Session
    from rain_deploy.core.result import Result


@verb("status")
@option("--check", is_flag=True, help="Exit 3 unless everything is as recorded.")
def status_command(session: Session, *, check: bool) -> Result:
    """Show one cluster, node by node, as the machines themselves tell it."""
    return session.flows.status(session.ctx, session.cluster, check=check)


@verb("list")
def list_command(session: Session) -> Result:
    """Show all clusters of this home directory."""
    return session.flows.list_clusters(session.ctx)
