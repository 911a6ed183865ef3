"""Names and labels of what belongs to this tool at Exoscale, and reading them back: pure.

Instances carry labels.  Keys and groups cannot, so their names say owner, cluster and cluster id; the id
keeps two clusters of one name apart.  Anything without these marks is never touched.
"""

import contextlib
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from rain_deploy.core.machine import Intent, Resource, node_index
from rain_deploy.core.text import owner_tag

KEY, GROUP, SPREAD, INSTANCE = "ssh-key", "security-group", "anti-affinity-group", "instance"
KINDS = (KEY, GROUP, SPREAD, INSTANCE)  # in the order of creation: each needs those before it
NAMES = {KEY: "ssh", GROUP: "group", SPREAD: "spread"}
"""Our names of what machines share; anti-affinity groups have a number too: ``spread-1``."""
_SHARED = re.compile(r"rain-deploy_(o-[a-z0-9-]+)_([a-z0-9-]+)_([0-9a-z-]+)(?:_([1-9][0-9]{0,2}))?")
_MARK = ("rain-deploy", "v1")
_OWNER, _CLUSTER, _ID, _NODE, _EXPIRES = (
    f"rain-deploy-{what}" for what in ("owner", "cluster", "id", "node", "expires")
)


def labels(intent: Intent) -> dict[str, str]:
    """Return the labels of an instance.  Every value begins with a letter, as Exoscale demands."""
    return {
        _MARK[0]: _MARK[1],
        _OWNER: owner_tag(intent.owner),
        _CLUSTER: f"c-{intent.cluster}",
        _ID: f"i-{intent.cluster_id}",
        _NODE: intent.name,
        **expiry_label(intent.expires_s),
    }


def expiry_label(expires_s: float | None) -> dict[str, str]:
    """Return the one label that changes: the time limit in epoch seconds."""
    return {_EXPIRES: "never" if expires_s is None else f"t{int(expires_s)}"}


def instance_name(intent: Intent) -> str:
    """Return the instance's name, which becomes its host name: at most 51 letters, digits and dashes."""
    return f"rd-{intent.cluster}-{intent.cluster_id}-{node_index(intent.name)}"


def shared_name(intent: Intent) -> str:
    """Return the name of a key or group at Exoscale; anti-affinity groups are numbered."""
    name = f"rain-deploy_{owner_tag(intent.owner)}_{intent.cluster}_{intent.cluster_id}"
    return f"{name}_{intent.name.removeprefix('spread-')}" if intent.kind == SPREAD else name


class Instance(NamedTuple):
    """An instance as the account shows it, whoever's it is; ``ours`` is None for one of somebody else."""

    name: str
    template_id: str
    labels: Mapping[str, str]
    resource: Resource
    ours: Resource | None

    @classmethod
    def parse(cls, row: Mapping[str, Any], zone: str, types: Mapping[str, str] | None = None) -> "Instance":
        """Return what a row of a list says.  ``types``: names of instance types by id."""
        labels, type_id = row.get("labels") or {}, (row.get("instance-type") or {}).get("id", "")
        limit, created_s = labels.get(_EXPIRES, ""), None
        with contextlib.suppress(ValueError):
            created_s = datetime.fromisoformat(row.get("created-at", "")).timestamp()
        found = Resource(
            labels.get(_ID, "").removeprefix("i-"),
            INSTANCE,
            labels.get(_NODE, ""),
            f"{zone}/{row['id']}",
            owner=labels.get(_OWNER, ""),
            cluster=labels.get(_CLUSTER, "").removeprefix("c-"),
            zone=zone,
            state=row.get("state", ""),
            address=row.get("public-ip", ""),
            instance_type=(types or {}).get(type_id, type_id),
            created_s=created_s,
            expires_s=float(limit[1:]) if re.fullmatch(r"t[0-9]{1,12}", limit) else None,
        )
        # A member of a pool has the labels of the pool.
        ours = found if labels.get(_MARK[0]) == _MARK[1] and not row.get("manager") else None
        return cls(row.get("name", ""), (row.get("template") or {}).get("id", ""), labels, found, ours)


def shared_resource(kind: str, name: str, ref: str) -> Resource | None:
    """Return the resource that a key's or group's name describes; None if rain-deploy did not make it."""
    match = _SHARED.fullmatch(name)
    if match is None:
        return None
    owner, cluster, cluster_id, number = match.groups()
    own = f"{NAMES[kind]}-{number}" if number else NAMES[kind]
    return Resource(cluster_id, kind, own, ref, owner=owner, cluster=cluster)


def in_order(found: Resource) -> tuple[object, ...]:
    """Return a sorting key: by cluster, then in the order of creation (shorter names, smaller numbers)."""
    kind = KINDS.index(found.kind)
    return found.cluster, found.cluster_id, kind, len(found.name), found.name, found.created_s or 0.0
