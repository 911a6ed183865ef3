"""``gc``: everything of this tool in the account; what is left over of mine goes, through the API alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.destroy import delete_found
from rain_deploy.cluster.leftovers import Group, Here, Key, groups, judge
from rain_deploy.cluster.plan import in_order_of_making
from rain_deploy.core.cluster import Cluster
from rain_deploy.core.events import Notice
from rain_deploy.core.owner import owner_tag
from rain_deploy.core.result import Result
from rain_deploy.core.spec import ClusterSpec
from rain_deploy.errors import (
    DownIncomplete,
    Locked,
    RainDeployError,
)
from rain_deploy.providers.base import Cloud
from rain_deploy.runs.home import not_pulled
from rain_deploy.verbs.down import take_down


@dataclass(frozen=True, slots=True)
class GcLine:
    """All that the account has of one cluster."""

    cluster: str
    id: str
    owner: str
    state: str
    """``living``, ``left``, ``expired`` or ``foreign``."""
    resources: tuple[str, ...]
    action: str
    """``kept``, ``to delete``, ``deleted`` or ``not deleted``."""
    reason: str
    next_step: str = ""


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


LAG_S = 60.0
"""How long a list may still show what was observed to be gone."""
PAUSE_S = 2.0


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
        lines[key] = _line(group, verdict.state, action, verdict.reason, verdict.next_step)
    if delete:
        tried = {
            k: _deleted(ctx, spec, found[k], line) for k, line in lines.items() if line.action == "to delete"
        }
        lines |= tried | _looked_again(cloud, tried, clock=clock, pause=pause)
    return GcResult(lines=tuple(lines.values()), deleting=delete, cluster=cluster)


def _line(group: Group, state: str, action: str, reason: str, next_step: str = "") -> GcLine:
    names = tuple(resource.label for resource in group.found)
    return GcLine(group.cluster, group.id, group.owner, state, names, action, reason, next_step)


def _here(ctx: Context, group: Group) -> Here:
    recorded = next((cluster for cluster in ctx.store.clusters() if cluster.id == group.id), None)
    runs = not_pulled(ctx, recorded) if recorded else ()
    return Here(recorded, ctx.store.made(group.id), tuple(run.id for run in runs))


def _deleted(ctx: Context, spec: ClusterSpec, group: Group, line: GcLine) -> GcLine:
    ctx.emit(Notice(f"deleting what is left of cluster {group.cluster} ({group.id})"))
    recorded = _here(ctx, group).recorded
    try:
        if recorded is not None:
            return _deleted_recorded(ctx, recorded, line)
        failed = delete_found(ctx.provider_for(spec.provider), in_order_of_making(group.found))
    except RainDeployError as error:
        return replace(line, action="not deleted", reason=error.message)
    if failed:
        return replace(line, action="not deleted", reason="; ".join(e.message for e in failed.values()))
    return replace(line, action="deleted")


def _deleted_recorded(ctx: Context, recorded: Cluster, line: GcLine) -> GcLine:
    try:
        with ctx.change(recorded.name, "gc") as record:
            if not record.known or record.cluster != recorded:
                return replace(line, action="kept", reason="another command has changed it meanwhile")
            take_down(ctx, record, discard_results=True)
    except Locked as error:
        return replace(line, action="kept", reason=error.message)
    return replace(line, action="deleted")


def _looked_again(
    cloud: Cloud, tried: dict[Key, GcLine], *, clock: Callable[[], float], pause: Callable[[float], None]
) -> dict[Key, GcLine]:
    """Look at what the account still has of what was to be deleted; lists may lag behind."""
    deadline_s = clock() + LAG_S
    while tried:
        left = {key: group for key, group in groups(cloud.survey()).items() if key in tried}
        if clock() > deadline_s or not any(tried[key].action == "deleted" for key in left):
            gone = {k: replace(line, action="deleted") for k, line in tried.items() if line.action != "kept"}
            return gone | {key: _still_there(group, tried[key]) for key, group in left.items()}
        pause(PAUSE_S)
    return {}


def _still_there(now: Group, line: GcLine) -> GcLine:
    if line.action == "kept":
        return line
    reason = "it was deleted and is still listed" if line.action == "deleted" else line.reason
    return _line(now, line.state, "not deleted", reason, line.next_step)
