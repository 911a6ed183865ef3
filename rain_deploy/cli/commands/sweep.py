"""rain-deploy sweep SCRIPT: up, run, down in one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rain_deploy.cli.command import SCRIPT_ENDS_OPTIONS, verb
from rain_deploy.cli.commands.down import down_text
from rain_deploy.cli.commands.run import run_spec, run_text, script_arguments
from rain_deploy.cli.commands.up import plan_text
from rain_deploy.cli.spec import announced, cluster_spec

if TYPE_CHECKING:
    from rain_deploy.cli.session import Session
    from rain_deploy.core.result import Result
    from rain_deploy.verbs.sweep import SweepResult


def sweep_text(result: SweepResult) -> list[str | bytes]:
    """Return the run's result, and that the cluster is down."""
    lines = run_text(result.run) if result.run else []
    return lines + (down_text(result.down)[-1:] if result.down else [])


@verb(
    "sweep",
    sweep_text,
    done=True,
    examples=(
        "sweep --provider local --nodes 2 hsearch.py",
        "sweep --nodes 4 --max-cost 10 train.py --fast",
    ),
    context_settings=SCRIPT_ENDS_OPTIONS,
)
@script_arguments
def sweep_command(session: Session, *, script: Path, args: tuple[str, ...]) -> Result:
    """Bring up a cluster, run SCRIPT with ARGS on it, pull the results, delete the cluster.

    The cluster is deleted also when the script fails or Ctrl-C comes.
    """
    from rain_deploy.verbs.sweep import sweep  # noqa: PLC0415 - not for --help
    from rain_deploy.verbs.up import up  # noqa: PLC0415

    dry_run = bool(session.flags.get("dry_run"))
    wanted = run_spec(session, script, args)
    spec = announced(session, cluster_spec(session, must_be_named=not dry_run))
    if not dry_run:
        return session.call(sweep, spec, wanted)
    session.show, session.done = plan_text, False
    return session.call(up, spec, dry_run=True)
