"""``explain``: why a point was computed again, failed, was given up, or was not run."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from rain_deploy.cluster.context import Context
from rain_deploy.core.events import Result
from rain_deploy.node.wire import PointRow, Values
from rain_deploy.results.details import detail_of, find_task, history
from rain_deploy.results.points import parse_rows
from rain_deploy.runs.states import find_run, holder, run_details, run_file


@dataclass(frozen=True, slots=True)
class ExplainResult(Result):
    """What is known about one task of a run."""

    cluster: str
    run: str
    number: int  # in the table of points; 0 of a task that is no point
    name: str
    row: PointRow  # how it stands
    why: tuple[str, ...]  # sentences
    arguments: Values = field(default_factory=dict)  # numbers and short texts that the script passes
    error: str = ""  # the whole text
    attempts: tuple[PointRow, ...] = ()  # how it ended in each; ``lost`` if the attempt was
    directory: str = ""  # what it printed, plotted and wrote, if that is here


def explain(ctx: Context, name: str, point: str, run: str | None = None) -> ExplainResult:
    """Explain a point of a run (default: the last).  Raises InputError if there is no such point."""
    record = find_run(ctx, name, run)
    cluster = holder(ctx, record)
    lines = run_file(ctx, cluster, record, "points.jsonl").splitlines()
    number, row = find_task(parse_rows(lines), point, record)
    detail = detail_of(run_details(ctx, cluster, record), row)
    return ExplainResult(
        cluster=name,
        run=record.id,
        number=number,
        name=row.title,
        row=row,
        why=tuple(_why(row, missed=detail.missed, unkept=detail.unkept)),
        arguments=detail.arguments,
        error=detail.error,
        attempts=history(lines, row),
        directory=next(map(str, record.out.glob(f"tasks/{row.session}-{row.task}-*")), ""),
    )


def _why(row: PointRow, *, missed: str, unkept: str) -> Iterator[str]:
    """Yield sentences: why the task ended so, and why it was executed instead of taken from the journal."""
    if row.message:
        yield row.message
    if row.cached:
        what = "failure" if row.state == "failed" else "result"
        yield f"its {what} was in the journal: nothing was executed"
    elif row.started_s is not None and missed:
        yield f"it was executed: {missed}"
    elif row.started_s is not None and row.key:
        yield "it was executed: no result of it was stored before"
    if not row.key and row.state == "finished":
        yield f"its result is not kept in the journal: {unkept or 'nothing watched the run'}"
