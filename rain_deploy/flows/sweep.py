"""``sweep``: up, run and down in one; down also when the script fails or Ctrl-C comes."""

from __future__ import annotations

from dataclasses import replace

from rain_deploy.core.events import Notice
from rain_deploy.core.spec import ClusterSpec, RunSpec
from rain_deploy.flows.context import Context
from rain_deploy.flows.down import down
from rain_deploy.flows.results import DownResult, RunResult, SweepResult
from rain_deploy.flows.run import run
from rain_deploy.flows.up import converge


def sweep(ctx: Context, spec: ClusterSpec, run_spec: RunSpec) -> SweepResult:
    """Everything from nothing to nothing.  The first error is raised once all is torn down.

    PullFailed of the teardown comes before it: the nodes stay, they hold what was computed.
    """
    started = converge(ctx, spec)
    try:
        result: RunResult = run(ctx, spec.name, run_spec)
    except BaseException:  # a bug of ours too must leave nothing behind
        ctx.emit(Notice(f"the run did not come to its end: {spec.name} is taken down, then you are told why"))
        _torn_down(ctx, spec)
        raise
    return SweepResult(up=started, run=result, down=_torn_down(ctx, spec))


def _torn_down(ctx: Context, spec: ClusterSpec) -> DownResult:
    """A sweep that ends cancels what is still active: that was its own run."""
    return down(replace(ctx, confirm=lambda _: True), spec.name)
