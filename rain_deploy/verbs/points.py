"""``points``: one row per point, from the server node or from the results here."""

from __future__ import annotations

from dataclasses import dataclass, replace

from rain_deploy.cluster.context import Context
from rain_deploy.core.events import Event, PointSeen
from rain_deploy.core.result import Result
from rain_deploy.errors import InputError
from rain_deploy.node.wire import PointRow, WireError
from rain_deploy.results.points import fold, parse_rows, read_json
from rain_deploy.runs.files import holder, pulled_file, remote_file
from rain_deploy.runs.follow import follow as follow_run
from rain_deploy.runs.states import find_run


@dataclass(frozen=True, slots=True)
class PointsResult(Result):
    """``points``: the newest row of each task, in order of task id."""

    cluster: str
    run: str
    rows: tuple[PointRow, ...]


def points(ctx: Context, name: str, run: str | None = None, *, follow: bool = False) -> PointsResult:
    """Return a row per task of a run (default: the last); with ``follow`` when the run has ended."""
    record = find_run(ctx, name, run)
    cluster = holder(ctx, record)
    if cluster is None:
        try:
            rows = read_json(pulled_file(record, "points.json"))
        except WireError as error:
            raise InputError(
                f"{record.out / 'points.json'} cannot be read: {error}",
                next_step=f"rain-deploy pull {record.id} -c {name}",
            ) from error
        return PointsResult(cluster=name, run=record.id, rows=rows)
    if follow:

        def only_points(event: Event) -> None:
            if isinstance(event, PointSeen):
                ctx.emit(event)

        follow_run(replace(ctx, emit=only_points), cluster, record)
    lines = remote_file(ctx, cluster, record, "points.jsonl").splitlines()
    return PointsResult(cluster=name, run=record.id, rows=fold(parse_rows(lines), all_=True))
