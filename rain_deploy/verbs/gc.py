"""``gc``: everything of this tool in the account; what is left over of mine goes, through the API alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.destroy import delete_found, still_listed
from rain_deploy.cluster.leftovers import GcLine, Group, Here, groups, judge
from rain_deploy.cluster.plan import in_order_of_making
from rain_deploy.core.events import Notice, Result
from rain_deploy.core.spec import ClusterSpec
from rain_deploy.core.text import owner_tag
from rain_deploy.errors import DownIncomplete, Locked, RainDeployError
from rain_deploy.runs.finish import not_pulled
from rain_deploy.verbs.down import take_down


@dataclass(frozen=True, slots=True)
class GcResult(Result):
    """``gc``: ``deleting`` false is the dry run."""

    lines: tuple[GcLine, ...]
    deleting: bool
    cluster: str | None = None
    """The one that was named; None: all were looked at."""

    @property
    def delete_command(self) -> str:
        """What deletes all that may go of what was looked at."""
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


def gc(
    ctx: Context,
    spec: ClusterSpec,
    cluster: str | None,
    *,
    delete: bool,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> GcResult:
    """Return every cluster in the account and what becomes of it; ``cluster``: only those of that name.

    Nothing goes without ``delete``.  Which of it goes: see ``cluster.leftovers.judge``.
    """
    cloud = ctx.provider_for(spec.provider).cloud
    assert cloud is not None
    mine, named = owner_tag(spec.owner or ""), cluster is not None
    found = {key: group for key, group in groups(cloud.survey()).items() if cluster in {None, group.cluster}}
    lines = {}
    for key, group in found.items():  # by the record as it is after the survey
        verdict = judge(group, _here(ctx, group), mine, time.time(), named=named)
        action = "to delete" if verdict.goes else "kept"
        lines[key] = group.line(verdict.state, action, verdict.reason, verdict.next_step)
    going = {key: line for key, line in lines.items() if delete and line.action == "to delete"}
    if going:
        tried = {key: _deleted(ctx, spec, found[key], line) for key, line in going.items()}
        deleted = {key for key, line in tried.items() if line.action == "deleted"}
        left = still_listed(cloud, deleted, clock=clock, pause=pause)
        lines |= {key: _looked_again(line, left.get(key)) for key, line in tried.items()}
    return GcResult(lines=tuple(lines.values()), deleting=delete, cluster=cluster)


def _here(ctx: Context, group: Group) -> Here:
    recorded = next((cluster for cluster in ctx.store.clusters() if cluster.id == group.id), None)
    runs = not_pulled(ctx, recorded) if recorded else ()
    return Here(recorded, ctx.store.made(group.id), tuple(run.id for run in runs))


def _deleted(ctx: Context, spec: ClusterSpec, group: Group, line: GcLine) -> GcLine:
    ctx.emit(Notice(f"deleting what is left of cluster {group.cluster} ({group.id})"))
    recorded = _here(ctx, group).recorded
    try:
        if recorded is None:
            failed = delete_found(ctx.provider_for(spec.provider), in_order_of_making(group.found))
            reasons = "; ".join(error.message for error in failed.values())
            return replace(line, action="not deleted" if failed else "deleted", reason=reasons or line.reason)
        with ctx.change(recorded.name, "gc") as record:
            if not record.known or record.cluster != recorded:
                return replace(line, action="kept", reason="another command has changed it meanwhile")
            take_down(ctx, record, discard_results=True)
    except Locked as error:
        return replace(line, action="kept", reason=error.message)
    except RainDeployError as error:
        return replace(line, action="not deleted", reason=error.message)
    return replace(line, action="deleted")


def _looked_again(line: GcLine, left: Group | None) -> GcLine:
    """Return the line after a look at what the account still has of it."""
    if line.action == "kept":
        return line
    if left is None:
        return replace(line, action="deleted")
    reason = "it was deleted and is still listed" if line.action == "deleted" else line.reason
    return left.line(line.state, "not deleted", reason, line.next_step)
