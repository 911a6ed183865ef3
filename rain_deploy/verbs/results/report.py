"""``report``: make the report of results that are here again."""

from dataclasses import dataclass
from pathlib import Path

from rain_deploy.cluster.context import Context
from rain_deploy.core.events import Result
from rain_deploy.errors import InputError
from rain_deploy.results.report.maker import NoReport
from rain_deploy.results.report.renew import renew_report
from rain_deploy.runs.states import find_run


@dataclass(frozen=True, slots=True)
class ReportResult(Result):
    """The result of ``report``."""

    cluster: str
    run: str
    path: Path  # of the page


def report(ctx: Context, name: str, run: str | None = None) -> ReportResult:
    """Make report.html of a run (default: the last) from its results here; no node is asked."""
    record = find_run(ctx, name, run)
    try:
        path = renew_report(record.out, ctx.reports.make)
    except NoReport as error:
        message = f"run {record.id} has no report: {error}"
        raise InputError(message, next_step=f"rain-deploy pull {record.id} -c {name}") from error
    return ReportResult(cluster=name, run=record.id, path=path)
