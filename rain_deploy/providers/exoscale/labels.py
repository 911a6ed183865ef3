"""Names and labels of what belongs to this tool at Exoscale, and reading them back: pure.

Instances carry labels.  Keys and groups cannot, so their names say owner, cluster and cluster id; the id
keeps two clusters of one name apart.  Anything without these marks is never touched.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rain_deploy.core.machine import Intent, Resource, node_index
from rain_deploy.core.text import owner_tag

KEY, GROUP, SPREAD, INSTANCE = "ssh-key", "security-group", "anti-affinity-group", "instance"
KINDS = (KEY, GROUP, SPREAD, INSTANCE)
"""In the order of creation: each needs those before it."""
PER_SPREAD = 8
"""Instances that one anti-affinity group takes."""
_FIRST = {KEY: "ssh", GROUP: "group", SPREAD: "spread"}
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


def spread_name(number: int) -> str:
    """Return our name of an anti-affinity group."""
    return f"spread-{number}"


def _spread_number(name: str) -> int:
    number = name.removeprefix("spread-")
    return int(number) if number.isdecimal() else 0


def shared_name(intent: Intent) -> str:
    """Return the name of a key or group at Exoscale; anti-affinity groups are numbered."""
    name = f"rain-deploy_{owner_tag(intent.owner)}_{intent.cluster}_{intent.cluster_id}"
    return f"{name}_{_spread_number(intent.name)}" if intent.kind == SPREAD else name


@dataclass(frozen=True, slots=True)
class Instance:
    """An instance as the account shows it, whoever's it is."""

    zone: str
    id: str
    name: str
    state: str
    address: str
    """Empty until it has one."""
    type_id: str
    template_id: str
    labels: Mapping[str, str]
    pooled: bool
    """It belongs to an instance pool, and has the pool's labels."""
    created: str

    @classmethod
    def parse(cls, row: Mapping[str, Any], zone: str) -> Instance:
        return cls(
            zone=zone,
            id=row["id"],
            name=row.get("name", ""),
            state=row.get("state", ""),
            address=row.get("public-ip", ""),
            type_id=(row.get("instance-type") or {}).get("id", ""),
            template_id=(row.get("template") or {}).get("id", ""),
            labels=row.get("labels") or {},
            pooled=bool(row.get("manager")),
            created=row.get("created-at", ""),
        )

    @property
    def ref(self) -> str:
        """The reference that is recorded."""
        return f"{self.zone}/{self.id}"

    def resource(self, types: Mapping[str, str] | None = None) -> Resource | None:
        """Return what the labels say, None for an instance of somebody else or of a pool.

        ``types``: names of instance types by id.
        """
        if self.labels.get(_MARK[0]) != _MARK[1] or self.pooled:
            return None
        return Resource(
            self.labels.get(_ID, "").removeprefix("i-"),
            INSTANCE,
            self.labels.get(_NODE, ""),
            self.ref,
            owner=self.labels.get(_OWNER, ""),
            cluster=self.labels.get(_CLUSTER, "").removeprefix("c-"),
            zone=self.zone,
            state=self.state,
            address=self.address,
            instance_type=(types or {}).get(self.type_id, self.type_id),
            created_s=_moment(self.created),
            expires_s=_expiry(self.labels.get(_EXPIRES, "")),
        )


def shared_resource(kind: str, name: str, ref: str) -> Resource | None:
    """Return the resource that a key's or group's name describes; None if rain-deploy did not make it."""
    match = _SHARED.fullmatch(name)
    if match is None:
        return None
    owner, cluster, cluster_id, number = match.groups()
    own = f"{_FIRST[kind]}-{number}" if number else _FIRST[kind]
    return Resource(cluster_id, kind, own, ref, owner=owner, cluster=cluster)


def in_order(found: Resource) -> tuple[object, ...]:
    """Return a sorting key: by cluster, then in the order of creation."""
    number = _spread_number(found.name) if found.kind == SPREAD else found.index
    return found.cluster, found.cluster_id, KINDS.index(found.kind), number, found.created_s or 0.0


def _moment(text: str) -> float | None:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None


def _expiry(text: str) -> float | None:
    return float(text[1:]) if re.fullmatch(r"t[0-9]{1,12}", text) else None
