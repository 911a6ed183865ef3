"""Names and labels of what is ours at Exoscale, and reading them back: pure.

Instances carry labels.  Keys and groups cannot, so their names say owner, cluster and cluster id; the
ids keep two clusters of one name apart.  What is not ours by these rules is never touched.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from rain_deploy.core.machine import Intent, Resource, node_index
from rain_deploy.core.owner import owner_tag

KEY, GROUP, SPREAD, INSTANCE = "ssh-key", "security-group", "anti-affinity-group", "instance"
KINDS = (KEY, GROUP, SPREAD, INSTANCE)
"""In the order of making: each needs what stands before it."""
PER_SPREAD = 8
"""Instances that one anti-affinity group takes."""
_FIRST = {KEY: "ssh", GROUP: "group", SPREAD: "spread"}
_SHARED = re.compile(r"rain-deploy_(o-[a-z0-9-]+)_([a-z0-9-]+)_([0-9a-z-]+)(?:_([1-9][0-9]{0,2}))?")
_MARK = ("rain-deploy", "v1")
_OWNER, _CLUSTER, _ID, _NODE, _EXPIRES = (
    f"rain-deploy-{what}" for what in ("owner", "cluster", "id", "node", "expires")
)


def labels(intent: Intent) -> dict[str, str]:
    """Of an instance.  Every value begins with a letter, as Exoscale asks."""
    return {
        _MARK[0]: _MARK[1],
        _OWNER: owner_tag(intent.owner),
        _CLUSTER: f"c-{intent.cluster}",
        _ID: f"i-{intent.cluster_id}",
        _NODE: intent.name,
        **expiry_label(intent.expires_s),
    }


def expiry_label(expires_s: float | None) -> dict[str, str]:
    """The one label that changes: epoch seconds of the time limit."""
    return {_EXPIRES: "never" if expires_s is None else f"t{int(expires_s)}"}


def instance_name(intent: Intent) -> str:
    """A host name, which it becomes: at most 51 letters, digits and dashes."""
    return f"rd-{intent.cluster}-{intent.cluster_id}-{node_index(intent.name)}"


def spread_name(number: int) -> str:
    """Our name of an anti-affinity group."""
    return f"spread-{number}"


def spread_number(name: str) -> int:
    """1 for ``spread-1``."""
    return int(name.rpartition("-")[2])


def shared_name(intent: Intent) -> str:
    """Of a key or a group; anti-affinity groups are numbered."""
    name = f"rain-deploy_{owner_tag(intent.owner)}_{intent.cluster}_{intent.cluster_id}"
    return f"{name}_{spread_number(intent.name)}" if intent.kind == SPREAD else name


def description(intent: Intent) -> str:
    """Of a group, for people who meet it in the portal."""
    return f"made by rain-deploy for cluster {intent.cluster} ({intent.cluster_id}) of {intent.owner}"


def found_shared(kind: str, name: str, ref: str) -> Resource | None:
    """What a key or group says by its name; None when it is not of this tool."""
    match = _SHARED.fullmatch(name)
    if match is None:
        return None
    owner, cluster, cluster_id, number = match.groups()
    ours = f"{_FIRST[kind]}-{number}" if number else _FIRST[kind]
    return Resource(cluster_id, kind, ours, ref, owner=owner, cluster=cluster)


def found_instance(row: Mapping[str, Any], zone: str, types: Mapping[str, str]) -> Resource | None:
    """What an instance's labels say; None when it is not of this tool.

    ``types``: names of instance types by id.  A member of an instance pool has the pool's labels and is the
    pool's to delete, so it is none of ours.
    """
    told = row.get("labels") or {}
    if told.get(_MARK[0]) != _MARK[1] or row.get("manager"):
        return None
    node = told.get(_NODE, "")
    kind_id = (row.get("instance-type") or {}).get("id", "")
    return Resource(
        told.get(_ID, "").removeprefix("i-"),
        INSTANCE,
        node,
        f"{zone}/{row['id']}",
        owner=told.get(_OWNER, ""),
        cluster=told.get(_CLUSTER, "").removeprefix("c-"),
        zone=zone,
        state=row.get("state", ""),
        address=row.get("public-ip", ""),
        instance_type=types.get(kind_id, kind_id),
        created_s=_moment(row.get("created-at", "")),
        expires_s=_expiry(told.get(_EXPIRES, "")),
    )


def in_order(found: Resource) -> tuple[object, ...]:
    """Return a sorting key: by cluster, then in the order of making."""
    number = spread_number(found.name) if found.kind == SPREAD else found.index
    return found.cluster, found.cluster_id, KINDS.index(found.kind), number, found.created_s or 0.0


def _moment(text: str) -> float | None:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None


def _expiry(text: str) -> float | None:
    return float(text[1:]) if re.fullmatch(r"t[0-9]{1,12}", text) else None
