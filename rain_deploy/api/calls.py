"""The functions of the API.  Each calls its verb, as the command of that name does; nothing is printed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, Unpack

import rain_deploy.verbs.down as down_verb
import rain_deploy.verbs.logs as logs_verbs
import rain_deploy.verbs.run as run_verb
import rain_deploy.verbs.runs as runs_verbs
import rain_deploy.verbs.scale as scale_verb
import rain_deploy.verbs.status as status_verb
import rain_deploy.verbs.sweep as sweep_verb
import rain_deploy.verbs.up as up_verb
from rain_deploy.api.call import Script, called, settings_of
from rain_deploy.api.keywords import ClusterKeywords, Common, Place, RunKeywords, SweepKeywords
from rain_deploy.cluster.install import PlanResult
from rain_deploy.options.spec import refuse_rented
from rain_deploy.runs.finish import RunResult
from rain_deploy.verbs.down import DownResult
from rain_deploy.verbs.logs import PointsResult
from rain_deploy.verbs.runs import CancelResult, PullResult
from rain_deploy.verbs.scale import ScaleResult
from rain_deploy.verbs.status import StatusResult
from rain_deploy.verbs.sweep import SweepResult
from rain_deploy.verbs.up import UpResult

Function = TypeVar("Function", bound=Callable[..., object])


def _takes(verb: str) -> Callable[[Function], Function]:
    """Return a decorator that adds the settings of this verb to the documentation of a function."""

    def decorate(function: Function) -> Function:
        listed = "".join(f"\n    {name}: {text}" for name, text in settings_of(verb).items())
        function.__doc__ = f"{function.__doc__}\n\n    Settings:{listed}\n"
        return function

    return decorate


@_takes("up")
def up(**keywords: Unpack[ClusterKeywords]) -> UpResult:
    """Create a cluster, or repair an existing one."""
    with called("up", **keywords) as call:
        return up_verb.up(call.ctx, call.cluster_spec())


@_takes("up")
def plan(**keywords: Unpack[ClusterKeywords]) -> PlanResult:
    """Return what ``up`` would do with the same keywords, but change nothing."""
    with called("up", **keywords) as call:
        return up_verb.plan(call.ctx, call.cluster_spec(must_be_named=False))


@_takes("run")
def run(script: Script, args: Sequence[Any] = (), **keywords: Unpack[RunKeywords]) -> RunResult:
    """Run a script or a function on the cluster, and pull its results.

    If the script fails, ``run`` raises no exception; the error is in ``problem`` of the result.  ``value`` of
    the result is what the function returned (as JSON); it raises ``problem`` if the function failed.
    """
    with called("run", **keywords) as call:
        wanted = call.run_spec(script, args)
        if living := call.ctx.store.cluster(call.cluster):
            refuse_rented(living.provider, call.given)
        return run_verb.run(call.ctx, call.cluster, wanted)


@_takes("sweep")
def sweep(script: Script, args: Sequence[Any] = (), **keywords: Unpack[SweepKeywords]) -> SweepResult:
    """Create a cluster, run a script or a function on it, pull the results, and delete the cluster."""
    with called("sweep", **keywords) as call:
        wanted = call.run_spec(script, args)
        return sweep_verb.sweep(call.ctx, call.cluster_spec(), wanted)


def scale(nodes: int, **common: Unpack[Common]) -> ScaleResult:
    """Add or remove nodes until the cluster has this number."""
    with called("up", nodes=nodes, **common) as call:
        return scale_verb.scale(call.ctx, call.cluster_spec(must_be_named=False), nodes)


def status(*, check: bool = False, **common: Unpack[Common]) -> StatusResult:
    """Return the state of a cluster and its nodes.  With ``check``, drift is a ``problem``."""
    with called("status", **common) as call:
        return status_verb.status(call.ctx, call.cluster, check=check)


def points(run: str | None = None, *, follow: bool = False, **common: Unpack[Common]) -> PointsResult:
    """Return one row per task of a run (default: the last).  With ``follow``, wait for the end of the run."""
    with called("points", **common) as call:
        return logs_verbs.points(call.ctx, call.cluster, run, follow=follow)


def attach(run: str | None = None, *, out: Place | None = None, **common: Unpack[Common]) -> RunResult:
    """Follow a run (default: the last) from its first line to its end, and pull its results."""
    with called("attach", out=out, **common) as call:
        return runs_verbs.attach(call.ctx, call.cluster, run, out=call.given.get("out"))


def cancel(run: str | None = None, **common: Unpack[Common]) -> CancelResult:
    """Cancel a run (default: the last), and wait until it has ended."""
    with called("cancel", **common) as call:
        return runs_verbs.cancel(call.ctx, call.cluster, run)


def pull(
    run: str | None = None, *, all_runs: bool = False, out: Place | None = None, **common: Unpack[Common]
) -> PullResult:
    """Pull the results of a run again (default: the last), or those of all runs."""
    with called("pull", out=out, **common) as call:
        return runs_verbs.pull(call.ctx, call.cluster, run, all_runs=all_runs, out=call.given.get("out"))


def down(*, discard_results: bool = False, out: Place | None = None, **common: Unpack[Common]) -> DownResult:
    """Pull the results that are not here yet, delete the cluster, and check that nothing is left."""
    with called("down", out=out, **common) as call:
        out_dir = call.given.get("out")
        return down_verb.down(call.ctx, call.cluster, discard_results=discard_results, out=out_dir)
