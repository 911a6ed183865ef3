"""rain-deploy run SCRIPT: on the cluster, followed from here, results brought home."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rain_deploy.cli.options import option, verb
from rain_deploy.cli.provider_choice import refuse_cloud_flags
from rain_deploy.cli.run_options import SCRIPT_ENDS_OPTIONS, RunFlags, run_options, run_spec

if TYPE_CHECKING:
    from rain_deploy.cli.session import Session
    from rain_deploy.core.result import Result


@verb("run", context_settings=SCRIPT_ENDS_OPTIONS)
@option("-d", "--detach", is_flag=True, help="Return as soon as it is in line.")
@option("--then-off", is_flag=True, help="Power the machines off once the run has ended.")
@run_options
def run_command(session: Session, *, detach: bool, then_off: bool, **flags: Any) -> Result:
    """Run SCRIPT with ARGS on the cluster, unedited, and bring its results home.

    Everything after SCRIPT is the script's.  Ctrl-C stops following; the run goes on.
    """
    spec = run_spec(session, RunFlags.taken(flags), detach=detach, then_off=then_off)
    living = session.ctx.store.cluster(session.cluster) if then_off else None
    if living is not None:
        refuse_cloud_flags(living.provider, ("--then-off",))
    return session.flows.run(session.ctx, session.cluster, spec)
