"""``gc``: everything of this tool in the account; what is left over of mine goes, through the API alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.removing import remove
from rain_deploy.core.cluster import Cluster
from rain_deploy.core.events import Notice
from rain_deploy.core.machine import Resource
from rain_deploy.core.owner import owner_tag
from rain_deploy.core.result import Result
from rain_deploy.core.spec import ClusterSpec
from rain_deploy.core.wording import hour
from rain_deploy.errors import (
    DownIncomplete,
    Locked,
    RainDeployError,
)
from rain_deploy.providers.base import Provider
from rain_deploy.verbs.down import tear_down


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
"""So long a list may show what was observed to be gone."""
PAUSE_S = 2.0
_Key = tuple[str, str, str]
"""Cluster id, cluster, owner: whoever can label a machine can give it another's id."""


@dataclass(frozen=True, slots=True)
class _Group:
    """All that the account has of one cluster of one owner."""

    id: str
    cluster: str
    owner: str
    found: tuple[Resource, ...]

    def limit_s(self) -> float | None:
        """When the last of its machines powers itself off; None where one never does, or there is none."""
        limits = [found.expires_s for found in self.found if found.is_machine]
        known = [limit for limit in limits if limit is not None]
        return max(known) if known and len(known) == len(limits) else None

    def line(self, state: str, action: str, reason: str, next_step: str = "") -> GcLine:
        names = tuple(f"{found.kind} {found.name}" for found in self.found)
        return GcLine(self.cluster, self.id, self.owner, state, names, action, reason, next_step)


def gc(
    ctx: Context,
    spec: ClusterSpec,
    cluster: str | None,
    *,
    delete: bool,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> GcResult:
    """Every cluster in the account and what becomes of it; ``cluster``: only those of that name.

    Another owner's is never touched.  Of mine goes: what this home gave the id of and has no more on record,
    what has passed its time limit and holds no results that are not home, and what is named and not living
    here.  Nothing goes without ``delete``.
    """
    provider = ctx.provider_for(spec.provider)
    mine, named = owner_tag(spec.owner or ""), cluster is not None
    groups = {key: group for key, group in _groups(provider).items() if cluster in {None, group.cluster}}
    lines = {key: _judged(ctx, mine, group, named=named) for key, group in groups.items()}
    if delete:
        tried = {
            key: _deleted(ctx, provider, groups[key], line)
            for key, line in lines.items()
            if line.action == "to delete"
        }
        lines |= tried | _looked_again(provider, tried, clock=clock, pause=pause)
    return GcResult(lines=tuple(lines.values()), deleting=delete, cluster=cluster)


def _groups(provider: Provider) -> dict[_Key, _Group]:
    assert provider.cloud is not None
    grouped: dict[_Key, list[Resource]] = {}
    for found in provider.cloud.survey():
        grouped.setdefault((found.cluster_id, found.cluster, found.owner), []).append(found)
    return {key: _Group(*key, tuple(of_one)) for key, of_one in grouped.items()}


def _judged(ctx: Context, mine: str, group: _Group, *, named: bool) -> GcLine:
    """By the record as it is now, after the survey: what is being made is on record before it exists."""
    now_s = time.time()
    limit_s = group.limit_s()
    expired = limit_s is not None and limit_s <= now_s
    if group.owner != mine:
        return group.line("foreign", "kept", "it has another owner")
    recorded = _recorded(ctx, group)
    if recorded is not None:
        return _judged_recorded(ctx, group, recorded, expired=expired, named=named)
    if ctx.store.made(group.id):
        return group.line("left", "to delete", "this home made it and has no such cluster any more")
    return _judged_elsewhere(group, limit_s, now_s, named=named)


def _judged_elsewhere(group: _Group, limit_s: float | None, now_s: float, *, named: bool) -> GcLine:
    """Of another home of this owner, or of one that is gone."""
    if named:
        return group.line("left", "to delete", "no cluster of this home; you named it")
    delete = f"rain-deploy gc --delete -c {group.cluster}"
    if limit_s is None or limit_s > now_s:
        until = f"its time limit: {hour(limit_s, now_s)}" if limit_s else "it has no time limit"
        return group.line("living", "kept", f"another home of yours may use it; {until}", delete)
    return group.line("expired", "to delete", f"its time limit was {hour(limit_s, now_s)}")


def _judged_recorded(ctx: Context, group: _Group, recorded: Cluster, *, expired: bool, named: bool) -> GcLine:
    """A cluster on record here: its label and its record must agree that its time is over."""
    down = f"rain-deploy down -c {recorded.name}"
    if not (expired and recorded.limit_s is not None and recorded.limit_s <= time.time()):
        return group.line("living", "kept", "a cluster of this home", down)
    held = [run for run in ctx.store.runs(recorded.name) if run.cluster_id == group.id and not run.pulled]
    if held and not named:
        return group.line("expired", "kept", f"results of {held[-1].id} are not home", down)
    return group.line("expired", "to delete", f"its time limit was {hour(recorded.limit_s, time.time())}")


def _recorded(ctx: Context, group: _Group) -> Cluster | None:
    return next((cluster for cluster in ctx.store.clusters() if cluster.id == group.id), None)


def _deleted(ctx: Context, provider: Provider, group: _Group, line: GcLine) -> GcLine:
    ctx.emit(Notice(f"deleting what is left of cluster {group.cluster} ({group.id})"))
    recorded = _recorded(ctx, group)
    try:
        if recorded is not None:
            return _deleted_recorded(ctx, recorded, line)
        # Machines last in the order of making: they are the first to go.
        resources = sorted((found for found in group.found), key=lambda r: r.is_machine)
        _, failed = remove(ctx, provider, tuple(resources))
    except RainDeployError as error:
        return replace(line, action="not deleted", reason=error.message)
    if failed:
        return replace(line, action="not deleted", reason="; ".join(e.message for e in failed.values()))
    return replace(line, action="deleted")


def _deleted_recorded(ctx: Context, recorded: Cluster, line: GcLine) -> GcLine:
    try:
        with ctx.store.lock(recorded.name, "gc"):
            if ctx.store.cluster(recorded.name) != recorded:
                return replace(line, action="kept", reason="another command has changed it meanwhile")
            tear_down(ctx, recorded, discard_results=True)
    except Locked as error:
        return replace(line, action="kept", reason=error.message)
    return replace(line, action="deleted")


def _looked_again(
    provider: Provider,
    tried: dict[_Key, GcLine],
    *,
    clock: Callable[[], float],
    pause: Callable[[float], None],
) -> dict[_Key, GcLine]:
    """What the account has now of what was to be deleted; lists may lag behind."""
    deadline_s = clock() + LAG_S
    while tried:
        left = {key: group for key, group in _groups(provider).items() if key in tried}
        if clock() > deadline_s or not any(tried[key].action == "deleted" for key in left):
            gone = {key: replace(line, action="deleted") for key, line in tried.items() if _was_tried(line)}
            return gone | {key: _still_there(group, tried[key]) for key, group in left.items()}
        pause(PAUSE_S)
    return {}


def _was_tried(line: GcLine) -> bool:
    return line.action != "kept"


def _still_there(now: _Group, line: GcLine) -> GcLine:
    if not _was_tried(line):
        return line
    reason = "it was deleted and is still listed" if line.action == "deleted" else line.reason
    return now.line(line.state, "not deleted", reason, line.next_step)
