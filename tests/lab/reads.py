"""Operations that only tell.  A method is named as the operation it answers; most are answered by kind."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from tests.lab import catalogue
from tests.lab.faults import Faults
from tests.lab.log import Request
from tests.lab.machines import Machines
from tests.lab.store import RefusedError, Store, Zone, new_id, rfc3339

FILTERS = {"ip-address": "public-ip"}  # names of query arguments that are not those of the field


@dataclass(frozen=True)
class Reads:
    """One request, checked against the specification, and the world it is about; raises RefusedError."""

    request: Request
    store: Store
    zone: Zone
    zone_urls: dict[str, str]
    machines: Machines
    faults: Faults

    @property
    def body(self) -> dict[str, Any]:
        return self.request.json

    def find(self, kind: str, identity: str | None = None) -> Any:
        """What the path names first, or ``identity``; 404 else."""
        found = self.zone.kinds[kind].get(identity or next(iter(self.request.parameters.values())))
        if found is None:
            raise RefusedError(404, f"{kind} not found")
        return found

    def answer(self) -> Any:
        """A JSON value, or the Change that a mutation has begun; 501 where nothing is modelled."""
        verb, _, kind = self.request.operation.partition("-")
        if method := getattr(self, self.request.operation.replace("-", "_"), None):
            return method()
        if verb == "get" and kind in self.zone.kinds:
            return self.find(kind).view()
        if verb == "list" and kind[:-1] in self.zone.kinds:
            return {kind: self._items(kind[:-1])}
        raise RefusedError(501, f"{self.request.operation} is not modelled by this lab")

    def _items(self, kind: str, **usual: str) -> list[dict[str, Any]]:
        """Those that match the query, without those that a slow list does not show yet."""
        seen_s = time.time() - self.faults.list_lag_s.get(self.request.operation, 0.0)
        wanted = {FILTERS.get(name, name): value for name, value in (usual | self.request.arguments).items()}
        items = (each.thin() for each in self.zone.kinds[kind].values() if each.created_s <= seen_s)
        return [each for each in items if wanted.items() <= each.items()]

    def list_zones(self) -> Any:
        names = ((catalogue.identity("zone", name), name, url) for name, url in self.zone_urls.items())
        return {"zones": [dict(zip(("id", "name", "api-endpoint"), each, strict=True)) for each in names]}

    def list_templates(self) -> Any:
        return {"templates": self._items("template", visibility="public")}

    def list_instances(self) -> Any:
        if "labels" in self.request.arguments:
            raise RefusedError(501, "list-instances: the labels filter is undocumented and not modelled")
        return {"instances": self._items("instance")}

    def get_reverse_dns_instance(self) -> Any:
        raise RefusedError(404, f"no record for {self.find('instance').name}")

    def list_quotas(self) -> Any:
        return {"quotas": [self._quota(name) for name in self.store.limits]}

    def get_quota(self) -> Any:
        return self._quota(self.request.parameters["entity"])

    def _quota(self, name: str) -> dict[str, Any]:
        if name not in self.store.limits:
            raise RefusedError(404, "quota not found")
        return {"resource": name, "limit": self.store.limits[name], "usage": self.store.usage(name)}

    def list_events(self) -> Any:
        """Of the last 24 hours, as documented; ``from`` and ``to`` compare as texts (all UTC)."""
        arguments = self.request.arguments
        since = arguments.get("from", rfc3339(time.time() - 86_400))[:19]
        until = arguments.get("to", "9999")[:19]
        seen = rfc3339(time.time() - self.faults.list_lag_s.get("list-events", 0.0), "milliseconds")
        visible = (event for event in self.store.events if since <= event["timestamp"][:19] <= until)
        return [event for event in visible if event["timestamp"] <= seen]

    def record_event(self, status: int, message: str) -> None:
        """Write a mutation down as the audit trail does; the words of handler and message are ours."""
        request = self.request
        event: dict[str, Any] = {"timestamp": rfc3339(time.time(), "milliseconds"), "zone": self.zone.name}
        event |= {"source-ip": request.source_ip, "handler": request.operation, "message": message}
        event |= {"uri": request.path, "status": status, "elapsed-ms": 1, "request-id": new_id()}
        event |= {"body-params": self.body, "iam-api-key": {"name": "lab", "key": request.key}}
        self.store.events.append(event)
