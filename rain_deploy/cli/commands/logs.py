"""rain-deploy logs and points: what a run printed, and one row per point."""

from __future__ import annotations

import io
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import click

from rain_deploy.cli.command import NODE, option, run_argument, verb
from rain_deploy.cli.show import text
from rain_deploy.options.table import Group

if TYPE_CHECKING:
    from rain_deploy.cli.session import Session
    from rain_deploy.node.wire import Parameter, PointRow
    from rain_deploy.verbs.logs import LogsResult, PointsResult


def logs_text(result: LogsResult) -> text.Text:
    """Return what was printed, unchanged; what went to stderr goes to stderr."""
    if result.stderr:
        text.echo(result.stderr, nl=False, err=True)
    return [result.stdout]


@verb("logs", logs_text, follows=True, examples=("logs -f", "logs --node 2 --install"))
@run_argument
@option("-f", "--follow", is_flag=True, help="Keep printing until the run ends.")
@option("--node", kind=NODE, metavar="N", help="Show the logs of Rain on this node.")
@option("--boot", is_flag=True, help="Show what a rented machine printed when it first booted.")
@option("--install", is_flag=True, help="Show what the installation printed.")
def logs_command(
    session: Session, *, run: str | None, follow: bool, node: int | None, boot: bool, install: bool
) -> LogsResult:
    """Show what the script of RUN (default: the last) printed, or a node's log."""
    from rain_deploy.verbs.logs import NodeLog, node_log, script_log

    if follow and (node is not None or boot or install):
        raise click.UsageError("--follow follows the script; leave out --node, --boot and --install")
    if boot and install:
        raise click.UsageError("--boot and --install are two logs; name one")
    if node is None and not boot and not install:
        return session.call(script_log, session.cluster, run, follow=follow)
    log = NodeLog.BOOT if boot else NodeLog.INSTALL if install else NodeLog.SERVICES
    return session.call(node_log, session.cluster, node, log)


def points_text(result: PointsResult) -> text.Text:
    """Return a column per parameter and a row per point."""
    if not result.rows:
        return [f"run {result.run}: no points"]
    names = list(dict.fromkeys(name for row in result.rows for name in row.parameters))
    head = (">TASK", *(f">{name}" for name in names), ">VALUE", "STATE", "NODE", ">TOOK", "WHY")
    return [text.table(head, [_row(row, names) for row in result.rows])]


def _row(row: PointRow, names: list[str]) -> tuple[str, ...]:
    given = (_cell(row.parameters.get(name)) for name in names)
    return (
        str(row.task),
        *given,
        _cell(row.value),
        row.state,
        row.node or "",
        text.seconds(row.duration_s),
        _why(row),
    )


def _why(row: PointRow) -> str:
    return row.message if row.state == "failed" else ""


def _cell(value: Parameter | None) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _line(row: PointRow) -> str:
    """Return ``3 lr=0.1 units=32: 0.93 (finished on node-2)`` of a point that changed."""
    name = row.name or " ".join(f"{key}={value}" for key, value in row.parameters.items())
    value = "" if row.value is None else f": {_cell(row.value)}"
    node = f" on {row.node}" if row.node else ""
    why = f": {_why(row)}" if _why(row) else ""
    return text.clean(f"{row.task} {name}{value} ({row.state}{node}){why}")


def _show(row: PointRow, *, json: bool, every_task: bool) -> None:
    from rain_deploy.cli.show.envelope import event

    if every_task or row.point:
        text.echo(event("point", row=row) if json else _line(row))


@verb("points", points_text, follows=True, examples=("points", "points --follow"))
@run_argument
@option("--follow", is_flag=True, help="Print a line for each point that changes, until the run ends.")
@option("--all", "every_task", is_flag=True, group=Group.OUTPUT, help="Also show tasks that are not points.")
@option("--csv", "as_csv", is_flag=True, group=Group.OUTPUT, help="Print CSV instead of a table.")
def points_command(
    session: Session, *, run: str | None, follow: bool, every_task: bool, as_csv: bool
) -> PointsResult | int:
    """Show the points of RUN (default: the last) as a table, one row per point."""
    from rain_deploy.results.points import fold, write_csv
    from rain_deploy.verbs.logs import points

    if as_csv and (follow or session.options.json):
        raise click.UsageError("--csv takes neither --follow nor --json")
    if follow:
        session.sink.on_point = partial(_show, json=session.options.json, every_task=every_task)
    found = session.call(points, session.cluster, run, follow=follow)
    result = replace(found, rows=fold(found.rows, all_=every_task))
    if as_csv:
        table = io.StringIO()
        write_csv(result.rows, table)
        text.echo(table.getvalue(), nl=False)
        return 0
    return 0 if follow and not session.options.json else result
