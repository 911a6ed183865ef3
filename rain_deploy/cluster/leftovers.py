"""What an account has of each cluster, and which of it is left over.  Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from rain_deploy.core.cluster import Cluster
from rain_deploy.core.machine import Resource
from rain_deploy.core.text import hour


class Key(NamedTuple):
    """What a cluster in an account is known by: whoever can label a machine can give it another's id."""

    id: str
    cluster: str
    owner: str


@dataclass(frozen=True, slots=True)
class GcLine:
    """All that the account has of one cluster of one owner."""

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


def groups(found: Iterable[Resource]) -> dict[Key, tuple[Resource, ...]]:
    """Return everything that an account has, by cluster and owner."""
    grouped: dict[Key, list[Resource]] = {}
    for resource in found:
        key = Key(resource.cluster_id, resource.cluster, resource.owner)
        grouped.setdefault(key, []).append(resource)
    return {key: tuple(of_one) for key, of_one in grouped.items()}


def judge(
    key: Key,
    found: tuple[Resource, ...],
    recorded: Cluster | None,
    mine: str,
    now_s: float,
    *,
    made: bool,
    named: bool,
    not_pulled: tuple[str, ...] = (),
) -> GcLine:
    """Return what becomes of a group: ``kept`` or ``to delete``.

    Another owner's (not ``mine``) is never touched.  What goes: a cluster that this home ``made`` and has no
    more on record; one that has passed its time limit and holds no runs that are ``not_pulled``; one that was
    ``named`` and does not live here.  One on record goes when its labels and its record agree.
    """
    labels = tuple(resource.label for resource in found)

    def line(state: str, action: str, reason: str, next_step: str = "") -> GcLine:
        return GcLine(key.cluster, key.id, key.owner, state, labels, action, reason, next_step)

    if key.owner != mine:
        return line("foreign", "kept", "it has another owner")
    limits = [resource.expires_s for resource in found if resource.is_machine]
    known = [limit for limit in limits if limit is not None]
    limit_s = max(known) if known and len(known) == len(limits) else None  # of the last; None: one never ends
    expired = limit_s is not None and limit_s <= now_s
    if recorded is not None:
        down = f"rain-deploy down -c {recorded.name}"
        if not (expired and recorded.bill and recorded.bill.passed(now_s)):
            return line("living", "kept", "a cluster of this home", down)
        if not_pulled and not named:
            return line("expired", "kept", f"results of {not_pulled[-1]} are not pulled yet", down)
        limit_s = recorded.limit_s
    elif made or named:
        lost = "this home made it and no longer has it on record"
        return line("left", "to delete", lost if made else "not a cluster of this home; you named it")
    if expired:
        return line("expired", "to delete", f"its time limit was {hour(limit_s or 0.0, now_s)}")
    until = f"its time limit: {hour(limit_s, now_s)}" if limit_s else "it has no time limit"
    delete = f"rain-deploy gc --delete -c {key.cluster}"
    return line("living", "kept", f"another home of yours may use it; {until}", delete)
