"""rain-deploy run SCRIPT: on the cluster, followed from here, results brought home."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rain_deploy.cli.options import option, verb
from rain_deploy.cli.run_options import SCRIPT_ENDS_OPTIONS, RunFlags, run_options, run_spec

if TYPE_CHECKING:
    from rain_deploy.cli.session import Session
    from rain_deploy.flows.results import Result


@verb("run", context_settings=SCRIPT_ENDS_OPTIONS)
@option("-d", "--detach", is_flag=True, help="Return as soon as it is in line.")
@run_options
def run_command(session: Session, *, detach: bool, **flags: Any) -> Result:
    """Run SCRIPT with ARGS on the cluster, unedited, and bring its results home.

    Everything after SCRIPT is the script's.  Ctrl-C stops following; the run goes on.
    """
    spec = run_spec(session, RunFlags.taken(flags), detach=detach)
    return session.flows.run(session.ctx, session.cluster, spec)
