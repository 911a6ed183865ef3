"""rain-deploy check: what up would install or refuse."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rain_deploy.cli.cluster_options import ClusterFlags, announce, cluster_options, cluster_spec
from rain_deploy.cli.options import verb

if TYPE_CHECKING:
    from rain_deploy.cli.session import Session
    from rain_deploy.core.result import Result


@verb("check")
@cluster_options
def check_command(session: Session, **flags: Any) -> Result:
    """Look at what up needs, say what it would install or refuse, change nothing."""
    spec = cluster_spec(session, ClusterFlags.taken(flags), must_be_named=False)
    announce(session, spec)
    return session.flows.check(session.ctx, spec)
