"""``points``: one row per point of a run."""

from dataclasses import dataclass, replace

from rain_deploy.cluster.context import Context
from rain_deploy.core.events import Event, PointSeen, Result
from rain_deploy.node.wire import PointRow
from rain_deploy.results.points import Table
from rain_deploy.results.tally import Outlook
from rain_deploy.runs.follow import follow as follow_run
from rain_deploy.runs.outlook import outlook_of
from rain_deploy.runs.states import find_run, holder, run_file


@dataclass(frozen=True, slots=True)
class PointsResult(Result):
    """The result of ``points``: the newest row of each task, in the order of their ids."""

    cluster: str
    run: str
    rows: tuple[PointRow, ...]
    outlook: Outlook | None = None  # while the run goes on
    currency: str = ""


def points(ctx: Context, name: str, run: str | None = None, *, follow: bool = False) -> PointsResult:
    """Return a row per task of a run (default: the last); with ``follow`` when the run has ended."""
    record = find_run(ctx, name, run)
    cluster = holder(ctx, record)
    if cluster and follow:

        def only_points(event: Event) -> None:
            if isinstance(event, PointSeen):
                ctx.emit(event)

        follow_run(replace(ctx, emit=only_points), cluster, record)
    table = Table()
    run_file(ctx, cluster, record, "points.jsonl", table.feed)
    rows = table.rows(all_=True)
    if cluster is None:
        for row in rows if follow else ():
            ctx.emit(PointSeen(row))
        return PointsResult(cluster=name, run=record.id, rows=rows)
    ahead = None if all(row.ended for row in rows) else outlook_of(cluster, rows)
    return PointsResult(cluster=name, run=record.id, rows=rows, outlook=ahead, currency=cluster.currency)
