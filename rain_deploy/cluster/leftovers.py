"""What an account has of each cluster, and which of it is left over.  Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rain_deploy.core.cluster import Cluster
from rain_deploy.core.machine import Resource
from rain_deploy.core.text import hour, owner_tag

Key = tuple[str, str, str]
"""Cluster id, cluster, owner: whoever can label a machine can give it another's id."""


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
class Group:
    """Everything that the account has of one cluster of one owner."""

    id: str
    cluster: str
    owner: str
    found: tuple[Resource, ...]

    def is_of(self, cluster: str, owner: str) -> bool:
        """Return True for what this owner has made of a cluster of that name."""
        return (self.cluster, self.owner) == (cluster, owner_tag(owner))

    @property
    def limit_s(self) -> float | None:
        """When the last of its machines powers itself off; None where one never does, or there is none."""
        limits = [found.expires_s for found in self.found if found.is_machine]
        known = [limit for limit in limits if limit is not None]
        return max(known) if known and len(known) == len(limits) else None

    def line(self, state: str, action: str, reason: str, next_step: str = "") -> GcLine:
        """Return the group as it is shown."""
        names = tuple(resource.label for resource in self.found)
        return GcLine(self.cluster, self.id, self.owner, state, names, action, reason, next_step)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a group.  ``state``: ``living``, ``left``, ``expired`` or ``foreign``."""

    state: str
    goes: bool
    reason: str
    next_step: str = ""


@dataclass(frozen=True, slots=True)
class Here:
    """What this home knows of a group."""

    recorded: Cluster | None
    made: bool
    """The cluster's id was given by this home."""
    not_pulled: tuple[str, ...] = ()
    """Runs of the cluster whose results are not here."""


def groups(found: Iterable[Resource]) -> dict[Key, Group]:
    """Return the groups of everything that an account has."""
    grouped: dict[Key, list[Resource]] = {}
    for resource in found:
        grouped.setdefault((resource.cluster_id, resource.cluster, resource.owner), []).append(resource)
    return {key: Group(*key, tuple(of_one)) for key, of_one in grouped.items()}


def judge(group: Group, here: Here, mine: str, now_s: float, *, named: bool) -> Verdict:
    """Return what becomes of a group.

    Another owner's (not ``mine``) is never touched.  What goes: a cluster that this home made and has no more
    on record; one that has passed its time limit and holds no results that are not pulled; one that was
    ``named`` and does not live here.
    """
    limit_s = group.limit_s
    expired = limit_s is not None and limit_s <= now_s
    if group.owner != mine:
        return Verdict("foreign", goes=False, reason="it has another owner")
    if here.recorded is not None:
        return _judge_recorded(here, now_s, expired=expired, named=named)
    if here.made:
        return Verdict("left", goes=True, reason="this home made it and no longer has it on record")
    if named:
        return Verdict("left", goes=True, reason="not a cluster of this home; you named it")
    if expired:
        return Verdict("expired", goes=True, reason=f"its time limit was {hour(limit_s or 0.0, now_s)}")
    until = f"its time limit: {hour(limit_s, now_s)}" if limit_s else "it has no time limit"
    delete = f"rain-deploy gc --delete -c {group.cluster}"
    return Verdict(
        "living", goes=False, reason=f"another home of yours may use it; {until}", next_step=delete
    )


def _judge_recorded(here: Here, now_s: float, *, expired: bool, named: bool) -> Verdict:
    """A cluster on record here goes when its labels and its record agree that its time is over."""
    cluster = here.recorded
    assert cluster is not None
    down = f"rain-deploy down -c {cluster.name}"
    if not (expired and cluster.bill and cluster.bill.passed(now_s)):
        return Verdict("living", goes=False, reason="a cluster of this home", next_step=down)
    if here.not_pulled and not named:
        reason = f"results of {here.not_pulled[-1]} are not pulled yet"
        return Verdict("expired", goes=False, reason=reason, next_step=down)
    return Verdict("expired", goes=True, reason=f"its time limit was {hour(cluster.limit_s or 0.0, now_s)}")
