"""``rehearse``: try a script's plan on a local node, of each kind of task only the first."""

import contextlib
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from rain_deploy import errors
from rain_deploy.cluster.context import Context
from rain_deploy.core.cluster import Cluster
from rain_deploy.core.events import Event, Notice, Result, ResultsPlace
from rain_deploy.core.run import RunRecord
from rain_deploy.core.spec import ClusterSpec, RunSpec
from rain_deploy.node.wire import NeededModule, Outcome, Rehearsal, RehearsedKind, WireError, read
from rain_deploy.results.journals import delete_copies
from rain_deploy.results.report.maker import Reports
from rain_deploy.runs.finish import RunResult
from rain_deploy.runs.shipping import collect
from rain_deploy.runs.states import run_file
from rain_deploy.verbs.down import down
from rain_deploy.verbs.rehearsal.versions import version_gaps
from rain_deploy.verbs.run import run
from rain_deploy.verbs.up import up

VARIABLE = "RAIN_DEPLOY_REHEARSE"


@dataclass(frozen=True, slots=True)
class RehearseResult(Result):
    """The result of ``rehearse``."""

    script: str
    outcome: str  # how the first run ended, as in RunResult
    exit_code: int | None
    seconds: float
    kinds: tuple[RehearsedKind, ...] = ()
    memory_bytes: int = 0  # the most memory of a task's process; 0: not known
    ended: str = ""  # where and why the script ended before its end
    left: str = ""  # which lines were not tried
    compared: bool = False  # the plan was made twice
    findings: tuple[str, ...] = ()  # what may go wrong on the nodes, one sentence each
    details: str = field(default="", repr=False)  # the error of the first task that failed
    advice: str = ""

    @property
    def problem(self) -> errors.RainDeployError | None:
        """Return the script's own error, or that of a task."""
        next_step = self.advice or "correct it, then rehearse it again"
        message = f"the rehearsal of {self.script} failed"
        if failed := [kind for kind in self.kinds if kind.error]:
            error = f"{message}: task {failed[0].tried} raised {failed[0].error}"
            return errors.PointsFailed(error, details=self.details or None, next_step=next_step)
        if self.outcome == Outcome.DONE:
            return None
        if self.outcome == Outcome.FAILED:
            return errors.ScriptFailed(f"{message}: exit code {self.exit_code}", next_step=next_step)
        return errors.EngineError(f"{message}: {self.details or self.outcome}", next_step=next_step)


def rehearse(ctx: Context, spec: ClusterSpec, wanted: RunSpec) -> RehearseResult:
    """Bring a local node up, run the script twice on it, and take it down.

    The first run runs the first task of each kind.  The second runs none: it shows which tasks' keys differ
    from run to run.
    """
    started_s = time.monotonic()
    shipment = collect(wanted, ctx.cwd, ctx.home)
    up(ctx, spec)
    try:
        with tempfile.TemporaryDirectory(dir=ctx.home, prefix="rehearsal-") as out:
            first, found = _run(ctx, spec.name, wanted, "first", Path(out, "1"))
            again = Rehearsal()
            if compared := first.problem is None and bool(found.kinds):
                ctx.emit(Notice("making the plan once more, to compare it"))
                silent = replace(ctx, emit=lambda _event: None)
                cluster = _cluster(ctx, spec.name)
                earlier = cluster.layout.run(first.run)
                second, again = _run(silent, spec.name, wanted, earlier, Path(out, "2"))
                compared = second.problem is None
        gaps = tuple(_gaps(ctx, spec.name, shipment.imports))
    finally:
        down(replace(ctx, confirm=lambda _question: True), spec.name, discard_results=True)
        with contextlib.suppress(OSError):  # they fit no run: a rehearsal has a variable of its own
            delete_copies(ctx.home, spec.name)
    return RehearseResult(
        script=wanted.script.name,
        outcome=first.outcome,
        exit_code=first.exit_code,
        seconds=time.monotonic() - started_s,
        kinds=found.kinds,
        memory_bytes=found.memory_bytes,
        ended=found.ended,
        left=found.left,
        compared=compared,
        findings=(*shipment.missing, *first.warnings, *gaps, *again.unstable),
        details=first.first_failure or first.message,
        advice=_again(spec.name, first.advice),
    )


def _run(ctx: Context, name: str, wanted: RunSpec, mode: str, out: Path) -> tuple[RunResult, Rehearsal]:
    """Run the script in a mode of the rehearsal, and return what it found."""
    env = (*wanted.env, (VARIABLE, mode))

    def emit(event: Event) -> None:
        """Leave out where the results go: they are deleted with the node."""
        if not isinstance(event, ResultsPlace):
            ctx.emit(event)

    try:
        result = run(
            replace(ctx, emit=emit, reports=Reports()),
            name,
            replace(wanted, env=env, out=out, companion=True, detach=False),
        )
    except errors.InputError as error:
        error.next_step = _again(name, error.next_step or "") or None
        raise
    record = next(each for each in ctx.store.runs(name) if each.id == result.run)
    return result, _found(ctx, _cluster(ctx, name), record)


def _found(ctx: Context, cluster: Cluster, record: RunRecord) -> Rehearsal:
    text = run_file(ctx, cluster, record, "companion/rehearsal.json")
    try:
        return read(Rehearsal, text) if text else Rehearsal()
    except WireError as error:
        raise errors.StateError(f"the rehearsal left a damaged record: {error}") from error


def _cluster(ctx: Context, name: str) -> Cluster:
    cluster = ctx.store.cluster(name)
    if cluster is None:
        raise errors.StateError(f"cluster {name} was deleted during the rehearsal")
    return cluster


def _gaps(ctx: Context, name: str, imports: tuple[NeededModule, ...]) -> Iterator[str]:
    kept = ctx.store.environment(_cluster(ctx, name).id)
    if kept:
        yield from version_gaps(imports, kept[1].lock_text)


def _again(name: str, advice: str) -> str:
    """Return advice that fits a rehearsal: its node is gone, so flags go to the same command."""
    before, found, flags = advice.partition(f"rain-deploy up -c {name} ")
    if not found:
        return advice.replace("run again", "rehearse again")
    why = before.removesuffix("the same command again, after: ")
    return f"{why}rehearse it again with {flags}, and give the same to `up`"
