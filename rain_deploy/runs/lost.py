"""A run whose server node is out of reach: keep here what was heard of it, and say how to go on."""

import shlex

from rain_deploy.cluster.context import Context
from rain_deploy.core.cluster import Cluster
from rain_deploy.core.events import Notice
from rain_deploy.core.run import RunRecord
from rain_deploy.core.text import count, size
from rain_deploy.errors import RainDeployError
from rain_deploy.node.wire import RunStatus
from rain_deploy.results.heard import Heard
from rain_deploy.results.journals import copy_for
from rain_deploy.results.manifest import read_manifest
from rain_deploy.results.partial import partial_places
from rain_deploy.results.pull import PulledRun, pulled_before
from rain_deploy.state.drafts import noted


def keep_heard(
    ctx: Context, cluster: Cluster, record: RunRecord, heard: Heard, status: RunStatus
) -> PulledRun | None:
    """Put what was heard of a run into its results, and say what is here.

    None if that fails, or if results are here that were pulled after the run had ended.
    """
    if _was_over(record):
        ctx.emit(Notice(f"kept here: what was pulled of run {record.id} after its end, in {record.out}"))
        return None
    copy = copy_for(ctx.home, cluster)
    if (usage := copy.about.usage).segments:
        kept = f"{count(usage.records, 'result')} ({size(usage.bytes)}) of tasks"
        ctx.emit(Notice(f"kept here: {kept}, in {copy.path}"))
    try:
        with noted(ctx.home, *partial_places(record.out)):
            pulled = heard.land(record, status, lambda text: ctx.emit(Notice(text)))
    except (RainDeployError, OSError) as error:
        why = error.message if isinstance(error, RainDeployError) else error
        ctx.emit(Notice(f"the values of run {record.id} were not written: {why}", warning=True))
        return None
    ctx.reports.want(record.out)
    where = f"{record.out}: points.csv, and what the script printed"
    ctx.emit(Notice(f"kept here: {count(pulled.points, 'point')} of run {record.id}, in {where}"))
    return pulled


def all_here(ctx: Context, record: RunRecord) -> tuple[RunStatus, PulledRun] | None:
    """Return how a run ended, and its results, if all of them are here; else None."""
    recorded = next((run for run in ctx.store.runs(record.cluster) if run.id == record.id), record)
    return pulled_before(recorded)


def _was_over(record: RunRecord) -> bool:
    """Return whether the results were pulled after the run had ended."""
    manifest = read_manifest(record.out) or {}
    return manifest.get("run") == record.id and manifest.get("ended_s") is not None


def way_on(ctx: Context, cluster: Cluster, record: RunRecord) -> str:
    """Return the commands that start what is missing and run only the rest."""
    copy, name = copy_for(ctx.home, cluster), cluster.name
    journal = f" --journal {shlex.quote(str(copy.path))}" if copy.about.usage.segments else ""
    up = f"rain-deploy up -c {name}{journal}"
    return f"{up} && {run_again(record)}"


def run_again(record: RunRecord) -> str:
    """Return the command that runs the script again."""
    words = shlex.join((*record.again, record.script, *record.args))
    return f"rain-deploy run -c {record.cluster} {words}"
