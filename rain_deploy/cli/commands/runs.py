"""rain-deploy runs, attach, cancel, pull: a run, by id or the last one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from rain_deploy.cli.options import PATH, option, verb

if TYPE_CHECKING:
    from rain_deploy.cli.session import Session
    from rain_deploy.core.result import Result


@verb("runs")
def runs_command(session: Session) -> Result:
    """Show the runs of a cluster, oldest first."""
    return session.flows.runs(session.ctx, session.cluster)


@verb("attach")
@click.argument("run", required=False)
@option("--out", type=PATH, metavar="DIR", help="Results go here [default: where run was typed].")
def attach_command(session: Session, *, run: str | None, out: Path | None) -> Result:
    """Follow RUN (default: the last) from its first line, and bring its results home.

    Ctrl-C stops following; the run goes on.
    """
    return session.flows.attach(session.ctx, session.cluster, run, out=Path.cwd() / out if out else None)


@verb("cancel")
@click.argument("run", required=False)
def cancel_command(session: Session, *, run: str | None) -> Result:
    """End RUN (default: the last)."""
    return session.flows.cancel(session.ctx, session.cluster, run)


@verb("pull")
@click.argument("run", required=False)
@option("--all", "all_runs", is_flag=True, help="Of every run.")
@option("--out", type=PATH, metavar="DIR", help="Results go here [default: where run was typed].")
def pull_command(session: Session, *, run: str | None, all_runs: bool, out: Path | None) -> Result:
    """Bring the results of RUN (default: the last) again."""
    if run and all_runs:
        raise click.UsageError("name a run or say --all, not both")
    place = Path.cwd() / out if out else None
    return session.flows.pull(session.ctx, session.cluster, run, all_runs=all_runs, out=place)
