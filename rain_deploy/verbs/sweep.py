"""``sweep``: up, run and down in one; down also when the script fails or Ctrl-C comes."""

import contextlib
import time
from dataclasses import dataclass, replace

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.destroy import delete
from rain_deploy.core.events import Notice, Result
from rain_deploy.core.run import RunRecord
from rain_deploy.core.spec import ClusterSpec, RunSpec
from rain_deploy.core.text import count, hour
from rain_deploy.errors import Declined, PullFailed, RainDeployError
from rain_deploy.node.wire import PointRow, WireError
from rain_deploy.results.points import count_states, read_json
from rain_deploy.runs.finish import RunResult
from rain_deploy.verbs.down import DownResult, down
from rain_deploy.verbs.run import run
from rain_deploy.verbs.up import UpResult, up


@dataclass(frozen=True, slots=True)
class SweepResult(Result):
    """The results of ``up``, ``run`` and ``down``; None for a step that did not happen."""

    up: UpResult
    run: RunResult | None
    down: DownResult | None

    @property
    def problem(self) -> RainDeployError | None:
        return self.run.problem if self.run else None


def sweep(ctx: Context, spec: ClusterSpec, run_spec: RunSpec) -> SweepResult:
    """Bring a cluster up, run, and take it down.  The first error is raised once all is torn down.

    PullFailed of the teardown comes before it: the server node stays, it holds what was computed.  Raises
    Declined where a cluster of the name is there and the user does not agree that it goes too.
    """
    name = spec.name
    too = f"Cluster {name} is there already: take it down at the end, with all runs that are on it?"
    if ctx.store.cluster(name) and not ctx.confirm(too):
        raise Declined(f"cluster {name} did not change", next_step=f"rain-deploy run SCRIPT -c {name}")
    started = up(ctx, spec)
    before = {record.id for record in ctx.store.runs(name)}
    try:
        result: RunResult = run(ctx, name, run_spec, spec)
    except BaseException:  # a bug of ours too must leave nothing behind
        ctx.emit(Notice(f"the run did not finish; deleting {name}"))
        ended = torn_down(ctx, name)
        own = [how_ended(record) for record in ctx.store.runs(name) if record.id not in before]
        for line in (*own, *ended.lines, f"cluster {name} is down{ended.costs}"):
            ctx.emit(Notice(line))
        raise
    if result.again:  # its cluster goes, and the next one gets what is kept
        result = replace(result, again="the same command again: it computes only what is missing")
    return SweepResult(up=started, run=result, down=torn_down(ctx, name))


def how_ended(record: RunRecord) -> str:
    """Return how a run ended, how many of its points finished, and where its results are."""
    ending = f"run {record.id}: {record.outcome or record.state}"
    if not record.pulled:
        return f"{ending}; no results were pulled"
    rows: tuple[PointRow, ...] = ()
    with contextlib.suppress(OSError, WireError):
        rows = tuple(row for row in read_json((record.out / "points.json").read_bytes()) if row.point)
    finished = (
        f"; {count_states(rows).get('finished', 0)} of {count(len(rows), 'point')} finished" if rows else ""
    )
    return f"{ending}{finished}; results: {record.out}"


def torn_down(ctx: Context, name: str) -> DownResult:
    """Take the cluster down and cancel what is active: that was the sweep's own run.

    Raises PullFailed; of machines that cost, only the server's is left then: it holds the results.
    """
    try:
        return down(replace(ctx, confirm=lambda _: True), name)
    except PullFailed as error:
        with ctx.change(name, "sweep") as record:
            if (cluster := record.cluster).bill is None:
                raise
            server = cluster.server.name
            others = tuple(r for r in record.resources if r.is_machine and r.name != server)
            _, failed = delete(ctx, record, others)
            record.drop_nodes({node.name for node in cluster.every_node if node.name != server})
        until = f", until {hour(cluster.limit_s, time.time())}" if cluster.limit_s else ""
        error.still_running = ", ".join((f"{server} of {name}, which holds the results{until}", *failed))
        raise
