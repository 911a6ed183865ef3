"""The functions of the API.  Each calls its verb, as the command of that name does; nothing is printed."""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, Unpack

import rain_deploy.verbs.down as down_verb
import rain_deploy.verbs.results.points as points_verb
import rain_deploy.verbs.run as run_verb
import rain_deploy.verbs.runs as runs_verbs
import rain_deploy.verbs.scale as scale_verb
import rain_deploy.verbs.status as status_verb
import rain_deploy.verbs.sweep as sweep_verb
import rain_deploy.verbs.up as up_verb
from rain_deploy.api.call import Place, Script, called, settings_of
from rain_deploy.cluster.context import Confirm
from rain_deploy.cluster.install import PlanResult
from rain_deploy.core.events import EventSink
from rain_deploy.options.spec import refuse_rented
from rain_deploy.runs.finish import RunResult
from rain_deploy.verbs.down import DownResult
from rain_deploy.verbs.results.points import PointsResult
from rain_deploy.verbs.runs import CancelResult, PullResult
from rain_deploy.verbs.scale import ScaleResult
from rain_deploy.verbs.status import StatusResult
from rain_deploy.verbs.sweep import SweepResult
from rain_deploy.verbs.up import UpResult


class Common(TypedDict, total=False):
    """Keywords that every function takes."""

    cluster: str
    """The name of the cluster.  The default is "default"."""
    home: Place | None
    """The directory of state, caches and keys.  The default is that of the command line."""
    cwd: Place | None
    """The directory for relative paths and results.  The default is the current directory."""
    config: Place | None
    """The file to read instead of ``rain-deploy.toml`` in ``cwd``."""
    progress: EventSink | None
    """A function that gets each event, from one thread at a time."""
    yes: bool
    """Answer yes to every question, about money or about runs that would be cancelled."""
    confirm: Confirm | None
    """A function that gets each question and returns True for yes."""


class ClusterKeywords(Common, total=False):
    """Keywords of ``up`` and ``plan``."""

    nodes: int | None
    provider: str | None
    hosts: Place | Sequence[str] | None
    host_key: Place | None
    trust_network: str | Sequence[str] | None
    ssh_port: int | None
    min_nodes: int | None
    cpus_per_node: int | None
    keep_partial: bool | None
    journal: str | None
    owner: str | None
    zone: str | None
    instance_type: str | None
    disk_size: int | None
    template: str | None
    ttl: float | str | None
    idle: float | str | None
    max_cost: float | None
    allow_ip: str | Sequence[str] | None
    anti_affinity: bool | None
    prices: Mapping[str, object] | None
    requirements: Place | None
    packages: Sequence[Place] | None
    upgrade: bool | None
    apt: Sequence[str] | None
    setup: Place | None
    engine_url: str | None
    engine_sha256: str | None


class _ScriptKeywords(Common, total=False):
    files: Sequence[Place] | None
    env: Mapping[str, str] | None
    timeout: float | str | None
    fresh: bool | None
    fail_fast: bool | None
    replace_lost: bool | None
    companion: bool | None
    wait: bool | None
    out: Place | None


class RunKeywords(_ScriptKeywords, total=False):
    """Keywords of ``run``."""

    detach: bool | None
    max_cost: float | None
    then_off: bool | None


class SweepKeywords(ClusterKeywords, _ScriptKeywords, total=False):
    """Keywords of ``sweep``."""


def up(**keywords: Unpack[ClusterKeywords]) -> UpResult:
    """Create a cluster, or repair an existing one."""
    with called("up", **keywords) as call:
        return up_verb.up(call.ctx, call.cluster_spec())


def plan(**keywords: Unpack[ClusterKeywords]) -> PlanResult:
    """Return what ``up`` would do with the same keywords, but change nothing."""
    with called("up", **keywords) as call:
        return up_verb.plan(call.ctx, call.cluster_spec(must_be_named=False))


def run(script: Script, args: Sequence[Any] = (), **keywords: Unpack[RunKeywords]) -> RunResult:
    """Run a script or a function on the cluster, and pull its results.

    If the script fails, ``run`` raises no exception; the error is in ``problem`` of the result.  ``value`` of
    the result is what the function returned (as JSON); it raises ``problem`` if the function failed.
    """
    with called("run", **keywords) as call:
        wanted = call.run_spec(script, args)
        if recorded := call.ctx.store.cluster(call.cluster):
            refuse_rented(recorded.provider, call.given)
        machines = call.cluster_spec(must_be_named=False) if wanted.replace_lost else None
        return run_verb.run(call.ctx, call.cluster, wanted, machines)


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
        return points_verb.points(call.ctx, call.cluster, run, follow=follow)


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


def down(
    *,
    discard_results: bool = False,
    out: Place | None = None,
    forget: Sequence[str] = (),
    **common: Unpack[Common],
) -> DownResult:
    """Pull the results that are not here yet, delete the cluster, and check that nothing is left.

    ``forget``: nodes that are gone for good, or "all"; ``forgotten`` of the result says what may be left.
    """
    with called("down", out=out, **common) as call:
        return down_verb.down(
            call.ctx,
            call.cluster,
            discard_results=discard_results,
            out=call.given.get("out"),
            forget=tuple(forget),
        )


for _function, _verb in ((up, "up"), (plan, "up"), (run, "run"), (sweep, "sweep")):
    _listed = "".join(f"\n    {name}: {text}" for name, text in settings_of(_verb).items())
    _also = ", ".join(Common.__annotations__)
    _function.__doc__ = f"{_function.__doc__}\n\n    Settings:{_listed}\n    As every function: {_also}\n"
