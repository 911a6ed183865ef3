"""rain-deploy points: one row per point."""

from __future__ import annotations

import io
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import click

from rain_deploy.cli.options import option, verb
from rain_deploy.cli.show.output import echo

if TYPE_CHECKING:
    from rain_deploy.cli.session import Session
    from rain_deploy.core.result import Result


@verb("points", follows=True)
@click.argument("run", required=False)
@option("--follow", is_flag=True, help="A line for each point as it changes, until the run ends.")
@option("--all", "every_task", is_flag=True, help="Tasks that are no points too.")
@option("--csv", "as_csv", is_flag=True, help="CSV instead of a table.")
def points_command(
    session: Session, *, run: str | None, follow: bool, every_task: bool, as_csv: bool
) -> Result | int:
    """Show a row for each point of RUN (default: the last)."""
    from rain_deploy.results.points import fold, write_csv  # noqa: PLC0415 - not for --help

    if as_csv and (follow or session.options.json):
        raise click.UsageError("--csv is a form of its own; leave out --follow and --json")
    if follow:
        session.sink.on_point = partial(_show, json=session.options.json, every_task=every_task)
    found = session.flows.points(session.ctx, session.cluster, run, follow=follow)
    result = replace(found, rows=fold(found.rows, all_=every_task))
    if as_csv:
        table = io.StringIO()
        write_csv(result.rows, table)
        echo(table.getvalue(), nl=False)
        return 0
    return 0 if follow and not session.options.json else result


def _show(row: dict[str, object], *, json: bool, every_task: bool) -> None:
    from rain_deploy.cli.show.envelope import event  # noqa: PLC0415 - not for --help
    from rain_deploy.cli.show.points_table import point_line  # noqa: PLC0415

    if every_task or row.get("point") is True:
        echo(event("point", row=row) if json else point_line(row))
