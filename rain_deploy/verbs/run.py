"""``run``: ship the script and what it needs, queue it, follow it, pull its results."""

import contextlib
import shlex
import time
from dataclasses import replace

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.lookup import living
from rain_deploy.cluster.plan import limit_sentence
from rain_deploy.core.cluster import Cluster
from rain_deploy.core.events import Notice, ResultsPlace, RunChanged
from rain_deploy.core.run import RunState, Shipment
from rain_deploy.core.spec import ClusterSpec, RunSpec
from rain_deploy.core.text import hour, money, size, some, span
from rain_deploy.errors import Declined, InputError, Locked, StateError, UsageError
from rain_deploy.parts.machine import THEN_OFF_S
from rain_deploy.runs.finish import RunResult, end_of
from rain_deploy.runs.follow import follow, queue, shipped, withdraw
from rain_deploy.runs.outlook import cost_cap
from rain_deploy.runs.replacing import Replacing
from rain_deploy.runs.shipping import ASK_ABOVE_BYTES, collect
from rain_deploy.verbs.up import carry_out


def run(ctx: Context, name: str, spec: RunSpec, machines: ClusterSpec | None = None) -> RunResult:
    """Run the script on the cluster and return with its results here, or at once with ``detach``.

    ``machines``: the user's settings for machines, with which lost ones are created again.
    """
    if spec.replace_lost and spec.detach:
        nobody = "with --detach nobody is there to create machines; nodes never get the key of your account"
        raise UsageError(f"--replace-lost: {nobody}", next_step="leave out one of the two")
    cluster = living(ctx, name)
    _check_limit(ctx, cluster, then_off=spec.then_off)
    spec = _capped(ctx, cluster, spec)
    shipment = collect(spec, ctx.cwd, ctx.home)
    _agree(ctx, shipment)
    with contextlib.ExitStack() as locked:
        locked.enter_context(ctx.store.lock(cluster.name, "run"))
        record, stage = shipped(ctx, cluster, spec, shipment)
        ctx.emit(RunChanged(record.id, RunState.SHIPPED))
        accepted = ResultsPlace(f"results go to {record.out}")
        if spec.detach:
            record = queue(ctx, cluster, record, spec)
            ctx.emit(accepted)
            result = RunResult(name, record.id, record.state, "", None, record.out, 0.0)  # it has not ended
            return replace(result, detached=True, pulled=False, limit_s=cluster.limit_s)

        ctx.reports.warm()

        def in_line() -> None:
            ctx.emit(accepted)
            with contextlib.suppress(StateError):  # a full disk here ends no run
                ctx.store.save_run(replace(record, state=RunState.QUEUED))
            locked.close()

        wanted = machines if spec.replace_lost else None
        try:
            with Replacing(ctx, cluster, stage, carry_out, wanted) as replacing:
                hear = replacing.take
                followed = follow(ctx, cluster, record, queued=spec, in_line=in_line, take_state=hear)
        except (Locked, InputError):  # the server node refused it
            ctx.store.forget_run(record)
            withdraw(ctx, cluster, record)
            raise
    return end_of(ctx, cluster, record, followed)


def _check_limit(ctx: Context, cluster: Cluster, *, then_off: bool) -> None:
    """Report when the machines power themselves off.  Raises InputError if that time has passed."""
    if cluster.bill is None:
        if then_off:
            message = f"--then-off: machines of provider {cluster.provider} are never powered off"
            raise InputError(message, next_step="the same command without --then-off")
        return
    name, limit = cluster.name, limit_sentence(cluster, time.time())
    if cluster.bill.passed(time.time()):
        again = f"rain-deploy extend 2h -c {name} && rain-deploy up -c {name}"
        raise InputError(f"the time limit of {name} has passed: {limit}", next_step=again)
    ctx.emit(Notice(limit))
    if then_off:
        at = f", or at {hour(cluster.limit_s, time.time())} if that is earlier" if cluster.limit_s else ""
        off = f"--then-off: all machines are off {span(THEN_OFF_S)} after the run has ended{at}"
        extend = f"once it has ended, `rain-deploy extend 1h -c {name}` keeps them on"
        ctx.emit(Notice(f"{off}; results stay on the disks; {extend}"))


def _capped(ctx: Context, cluster: Cluster, spec: RunSpec) -> RunSpec:
    """Turn --max-cost into the time after which the run has cost that, and report it.  Raises InputError."""
    bill = cluster.bill
    if spec.max_cost is None or bill is None or not bill.per_hour_running:
        return spec
    cap = cost_cap(spec.max_cost, bill.per_hour_running, bill.currency)
    hourly = money(bill.per_hour_running, bill.currency)
    ctx.emit(
        Notice(f"{cap.words}: the run ends after {span(cap.seconds)} at the latest, at {hourly} per hour")
    )
    return replace(spec, cap=cap)


def _agree(ctx: Context, shipment: Shipment) -> None:
    """Report what is shipped, and ask if it is large.  Raises Declined if the user does not agree."""
    for sentence in shipment.missing:
        ctx.emit(Notice(sentence))
    names = some([file.path for file in shipment.files])
    ctx.emit(Notice(f"sending {names} ({size(shipment.total_bytes)})"))
    for one in shipment.unsent:
        counted = f"{'over ' * one.more}{one.files} file{'s' * (one.files > 1)}, {size(one.size_bytes)}"
        flag = f"--files {shlex.quote(one.flag)}"
        ctx.emit(Notice(f"found but not sent: {one.name} ({counted}); to send it: {flag}"))
    large = f"{shipment.total_bytes / 1e6:.0f} MB would be sent to every node. Continue?"
    if shipment.total_bytes > ASK_ABOVE_BYTES and not ctx.confirm(large):
        raise Declined("nothing was sent and nothing was started")
