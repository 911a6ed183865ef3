"""``gc``: everything of this tool in the account; what is left over of mine goes, through the API alone."""

import contextlib
import time
from dataclasses import dataclass, replace

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.destroy import by_kind
from rain_deploy.cluster.plan import GcLine, groups, in_order_of_making, judge
from rain_deploy.cluster.seen import Account, viewed
from rain_deploy.core.cluster import Cluster
from rain_deploy.core.events import Notice, Result
from rain_deploy.core.machine import Resource
from rain_deploy.core.spec import ClusterSpec
from rain_deploy.core.text import owner_tag
from rain_deploy.errors import Declined, DownIncomplete, Locked, RainDeployError
from rain_deploy.runs.finish import not_pulled
from rain_deploy.verbs.down import take_down

LAG_S = 60.0  # how long a list may still show what was observed to be gone
PAUSE_S = 2.0


@dataclass(frozen=True, slots=True)
class GcResult(Result):
    """``gc``: ``deleting`` false is the dry run."""

    lines: tuple[GcLine, ...]
    deleting: bool
    cluster: str | None = None  # the one that was named; None: all were looked at

    @property
    def delete_command(self) -> str:
        """Return the command that deletes what this result lists as ``to delete``."""
        return "rain-deploy gc --delete" + (f" -c {self.cluster}" if self.cluster else "")

    @property
    def problem(self) -> RainDeployError | None:
        left = [line for line in self.lines if line.action == "not deleted"]
        if not left:
            return None
        what = "; ".join(f"cluster {line.cluster} ({line.id}): {line.reason}" for line in left)
        return DownIncomplete(
            f"not everything could be deleted: {what}",
            still_running=", ".join(name for line in left for name in line.resources),
            next_step=self.delete_command,
        )


def gc(ctx: Context, spec: ClusterSpec, cluster: str | None, *, delete: bool) -> GcResult:
    """Return every cluster in the account and what becomes of it; ``cluster``: only those of that name.

    Nothing goes without ``delete`` and a yes.  Which of it goes: see ``cluster.plan.judge``.
    """
    cloud = ctx.provider_for(spec.provider).cloud
    assert cloud is not None
    mine, named = owner_tag(spec.owner or ""), cluster is not None
    with contextlib.nullcontext() if delete else viewed(ctx, spec.provider):
        survey = cloud.survey()
    found = {key: all_of for key, all_of in groups(survey).items() if cluster in {None, key.cluster}}
    lines, records = {}, {cluster.id: cluster for cluster in ctx.store.clusters()}  # after the survey
    account = Account(survey, key=cloud.account)
    for lost in records.values():
        if cluster in {None, lost.name} and (elsewhere := account.about(lost).silent):
            ctx.emit(Notice(elsewhere.sentence))
    for key, all_of in found.items():
        recorded = records.get(key.id)
        runs = tuple(run.id for run in not_pulled(ctx, recorded)) if recorded else ()
        made, now_s = ctx.store.made(key.id), time.time()
        lines[key] = judge(key, all_of, recorded, mine, now_s, made=made, named=named, not_pulled=runs)
    going = [key for key, line in lines.items() if delete and line.action == "to delete"]
    for key in going:
        what = f"cluster {key.cluster} ({key.id}), {lines[key].reason}"
        ctx.emit(Notice(f"to delete: {what}: {', '.join(lines[key].resources)}"))
    names = ", ".join(f"{key.cluster} ({key.id})" for key in going)
    if going and not ctx.confirm(f"Delete everything in the account that belongs to {names}?"):
        raise Declined("nothing was deleted")
    for key in going:
        lines[key] = _deleted(ctx, spec, records.get(key.id), found[key], lines[key])
    if going:
        deleted, deadline_s = {key for key in going if lines[key].action == "deleted"}, ctx.clock() + LAG_S
        reported = False
        while (left := groups(cloud.survey())).keys() & deleted and ctx.clock() <= deadline_s:
            if not reported:
                ctx.emit(Notice(f"waiting until lists no longer show what was deleted (up to {LAG_S:.0f} s)"))
                reported = True
            ctx.pause(PAUSE_S)
        lines |= {key: _looked_again(lines[key], left.get(key, ())) for key in going}
    return GcResult(lines=tuple(lines.values()), deleting=delete, cluster=cluster)


def _deleted(
    ctx: Context, spec: ClusterSpec, recorded: Cluster | None, found: tuple[Resource, ...], line: GcLine
) -> GcLine:
    """Delete a group and return its line; it is kept where another command has it or has changed it.

    ``recorded``: as it was when it was judged.
    """
    ctx.emit(Notice(f"deleting what is left of cluster {line.cluster} ({line.id})"))
    try:
        if recorded is None:
            _, failed = by_kind(in_order_of_making(found), ctx.provider_for(spec.provider).delete)
            reasons = "; ".join(error.message for error in failed.values())
            return replace(line, action="not deleted" if failed else "deleted", reason=reasons or line.reason)
        with ctx.change(recorded.name, "gc", ending=True) as record:
            if not record.known or record.cluster != recorded:
                return replace(line, action="kept", reason="another command has changed it meanwhile")
            take_down(ctx, record, discard_results=True)
    except Locked as error:
        return replace(line, action="kept", reason=error.message)
    except RainDeployError as error:
        return replace(line, action="not deleted", reason=error.message)
    return replace(line, action="deleted")


def _looked_again(line: GcLine, left: tuple[Resource, ...]) -> GcLine:
    """Return the line after a look at what the account still has of it."""
    if line.action == "kept" or not left:
        return line if line.action == "kept" else replace(line, action="deleted")
    reason = "it was deleted and is still listed" if line.action == "deleted" else line.reason
    labels = tuple(resource.label for resource in left)
    return replace(line, resources=labels, action="not deleted", reason=reason)
