"""rain-deploy sweep SCRIPT: up, run, down in one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rain_deploy.cli.cluster_options import ClusterFlags, announce, cluster_options, cluster_spec
from rain_deploy.cli.options import verb
from rain_deploy.cli.run_options import SCRIPT_ENDS_OPTIONS, RunFlags, run_options, run_spec

if TYPE_CHECKING:
    from rain_deploy.cli.session import Session
    from rain_deploy.core.result import Result


@verb("sweep", context_settings=SCRIPT_ENDS_OPTIONS)
@cluster_options
@run_options
def sweep_command(session: Session, **flags: Any) -> Result:
    """Bring up a cluster, run SCRIPT with ARGS on it, pull the results, take it down.

    It is taken down also when the script fails or Ctrl-C comes.
    """
    wanted = run_spec(session, RunFlags.taken(flags))
    spec = cluster_spec(session, ClusterFlags.taken(flags), must_be_named=True)
    announce(session, spec)
    return session.flows.sweep(session.ctx, spec, wanted)
