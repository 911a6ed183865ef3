"""rain-deploy points, explain and journal: what tasks computed, why not, and what is kept of it."""

from __future__ import annotations

import io
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rain_deploy.cli.command import option, run_argument, verb
from rain_deploy.cli.session import Session, Shown
from rain_deploy.cli.show import text
from rain_deploy.cli.show.points import cell, line, outlook_lines
from rain_deploy.core.text import count
from rain_deploy.options.table import Group

_KEY_SHOWN = 16  # digits of a key

if TYPE_CHECKING:
    from rain_deploy.node.wire import PointRow
    from rain_deploy.verbs.results.explain import ExplainResult
    from rain_deploy.verbs.results.points import PointsResult


def points_text(result: PointsResult) -> text.Text:
    """Return a column per parameter and value, and a row per point; other tasks have no number."""
    from rain_deploy.results.points import numbered, parameter_names, state_of, value_names

    if not result.rows:
        return [f"run {result.run}: no points"]
    names = parameter_names(result.rows)
    values = value_names(result.rows)
    plain = not values or any(row.value is not None for row in result.rows)
    rows = []
    for number, row in numbered(result.rows):
        given = (cell(row.parameters.get(name)) for name in names)
        tail = (state_of(row), row.node or "", text.seconds(row.duration_s), row.message)
        shown = (str(number or ""), "" if row.parameters else row.name)
        got = (cell(row.values.get(name)) for name in values)
        rows.append((*shown, *given, *((cell(row.value),) if plain else ()), *got, *tail))
    columns = (f">{name}" for name in (*names, *(("VALUE",) if plain else ()), *values))
    head = (">NO", "NAME", *columns, "STATE", "NODE", ">TOOK", "REASON")
    return [text.table(head, rows), *outlook_lines(result.outlook, result.currency)]


class _Lines:
    """Prints a line of each point that ends, and another one if its value or its reason changes."""

    def __init__(self) -> None:
        self._printed: dict[tuple[int, int], tuple[object, ...]] = {}

    def show(self, row: PointRow) -> None:
        """Print the row, unless its task goes on or its line was printed; another attempt changes nothing."""
        told = (row.state, repr(row.value), repr(row.values), row.message)  # nan is not equal to itself
        task = row.session, row.task
        if row.ended and self._printed.get(task) != told:
            self._printed[task] = told
            text.echo(line(row))


@verb("points", "points --follow")
@run_argument
@option("--follow", is_flag=True, help="Print a line for each point that ends, until the run does.")
@option("--all", "every_task", is_flag=True, group=Group.OUTPUT, help="Also show tasks that are not points.")
@option("--csv", "as_csv", is_flag=True, group=Group.OUTPUT, help="Print CSV instead of a table.")
def points_command(
    session: Session, *, run: str | None, follow: bool, every_task: bool, as_csv: bool
) -> Shown:
    """Show the points of RUN (default: the last) as a table, one row per point.

    A point is a task with parameters in its name, such as "train size=32 lr=0.1". If no task has such a
    name, every task whose output the script keeps is a point.
    """
    from rain_deploy.results.points import fold, write_csv
    from rain_deploy.verbs.results.points import points

    lines = _Lines()

    def show(row: PointRow) -> None:
        if not every_task and not row.point:
            return
        if session.json:
            text.echo(text.event("point", row=row))
        else:
            lines.show(row)

    if as_csv and (follow or session.json):
        raise click.UsageError("--csv takes neither --follow nor --json")
    if follow:
        session.sink.on_point = show
    found = session.call(points, session.cluster, run, follow=follow)
    result = replace(found, rows=fold(found.rows, all_=every_task))
    if as_csv:
        table = io.StringIO()
        write_csv(result.rows, table)
        csv = table.getvalue()
        text.echo(text.clean(csv) if text.is_terminal(sys.stdout) else csv, nl=False)
        return 0
    return 0 if follow and not session.json else (result, points_text(result))


def explain_text(result: ExplainResult) -> text.Text:
    """Return what is known about a task, its error last."""
    from rain_deploy.results.points import state_of

    row = result.row
    point = f"point {result.number}" if result.number else f"task {row.task}"
    pairs = ", ".join(f"{name}={cell(value)}" for name, value in result.arguments.items())
    values = [cell(row.value)] if row.value is not None else []
    values += [f"{name}={cell(value)}" for name, value in row.values.items()]
    facts = [
        ("state", f"{state_of(row)}{_where(row)}"),
        ("value", " ".join(values)),
        *(("why", sentence) for sentence in result.why),
        ("arguments", pairs),
        ("key", row.key[:_KEY_SHOWN]),
        ("output", text.near(Path(result.directory)) if result.directory else ""),
    ]
    if len(result.attempts) > 1:
        told = (f"{one.attempt}: {state_of(one)}{_where(one)}" for one in result.attempts)
        facts += [("attempt", line) for line in told]
    lines = [f"{point} of run {result.run}: {result.name}"]
    lines += [f"  {label + ':':<11}{said}" for label, said in facts if said]
    error = f"\n{text.clean(result.error.rstrip())}\n".encode()  # bytes: its lines are not broken
    return [*map(text.clean, lines), *([error] if result.error else [])]


def _where(row: PointRow) -> str:
    """Return where and when a task was executed, and for how long."""
    node = f" on {row.node}" if row.node else ""
    at = f" at {text.moment(row.started_s)}" if row.started_s else ""
    took = "" if row.duration_s is None else f", {text.seconds(row.duration_s)}"
    return f"{', executed' if row.cached and (node or at) else ''}{node}{at}{took}"


@verb("explain 3", 'explain "lr=0.1 units=32"', "explain 1-12 hsearch")
@click.argument("point")
@run_argument
def explain_command(session: Session, *, point: str, run: str | None) -> Shown:
    """Explain POINT of RUN (default: the last): why it failed, was given up, or was computed again.

    POINT is the number that `rain-deploy points` shows, or words of the point's name, such as "lr=0.1
    units=32". Another task is named by its session and its number in Rain, such as 1-12.
    """
    from rain_deploy.verbs.results.explain import explain

    result = session.call(explain, session.cluster, point, run)
    return result, explain_text(result)


@verb("journal", "journal --prune -c mine")
@option("--prune", is_flag=True, help="Delete what is kept of this cluster's tasks.")
def journal_command(session: Session, *, prune: bool) -> Shown:
    """Show the results that are kept of finished tasks, so that no run computes them again.

    They are kept on the server node of the cluster, and as copies on this machine, also of clusters that are
    gone. --prune asks, and then deletes what is kept of the cluster; the next run computes it again.
    """
    from rain_deploy.verbs.journal import journal

    result = session.call(journal, session.cluster, prune=prune)
    rows = [
        (
            line.where,
            line.cluster,
            str(line.usage.records),
            text.size(line.usage.bytes),
            text.moment(line.usage.newest_s),
            f"{count(line.usage.damaged, 'file')} damaged" if line.usage.damaged else "",
            line.action if prune else "",
        )
        for line in result.lines
    ]
    head = ("WHERE", "CLUSTER", ">RESULTS", ">SIZE", "NEWEST", "NOTE", "ACTION")
    return result, [text.table(head, rows)] if rows else ["nothing is kept"]
