"""Operations that only tell: zones, types, templates, quotas, operations, events, what is always empty."""

from __future__ import annotations

import time
from typing import Any

from tests.lab import catalogue
from tests.lab import store as world
from tests.lab.calls import Call, handles

EMPTY_LISTS = {
    "list-instance-pools": "instance-pools",
    "list-private-networks": "private-networks",
    "list-deploy-targets": "deploy-targets",
    "list-elastic-ips": "elastic-ips",
    "list-load-balancers": "load-balancers",
}
NEVER_THERE = ("get-reverse-dns-instance", "get-private-network", "get-instance-pool")


def _empty(name: str) -> None:
    @handles(name)
    def answer(_call: Call) -> Any:
        return {EMPTY_LISTS[name]: []}


def _not_there(name: str) -> None:
    @handles(name)
    def answer(_call: Call) -> Any:
        raise world.absent("Resource")


for each in EMPTY_LISTS:
    _empty(each)
for each in NEVER_THERE:
    _not_there(each)


@handles("list-zones")
def list_zones(call: Call) -> Any:
    zones = (
        {
            "id": catalogue.identity("zone", name),
            "name": name,
            "api-endpoint": url,
            "sos-endpoint": f"https://sos-{name}.invalid",
        }
        for name, url in call.zone_urls.items()
    )
    return {"zones": list(zones)}


@handles("list-instance-types")
def list_instance_types(call: Call) -> Any:
    return {"instance-types": list(call.store.types.values())}


@handles("get-instance-type")
def get_instance_type(call: Call) -> Any:
    if call.id not in call.store.types:
        raise world.absent("Instance type")
    return call.store.types[call.id]


@handles("list-templates")
def list_templates(call: Call) -> Any:
    wanted = {"visibility": "public", **call.request.arguments}
    views = (each.view() for each in call.zone.templates.values())
    return {"templates": [each for each in views if wanted.items() <= each.items()]}


@handles("get-template")
def get_template(call: Call) -> Any:
    if call.id not in call.zone.templates:
        raise world.absent("Template")
    return call.zone.templates[call.id].view()


@handles("list-quotas")
def list_quotas(call: Call) -> Any:
    return {"quotas": [_quota(call.store, name) for name in call.store.limits]}


@handles("get-quota")
def get_quota(call: Call) -> Any:
    name = call.request.parameters["entity"]
    if name not in call.store.limits:
        raise world.absent("Quota")
    return _quota(call.store, name)


def _quota(store: world.Store, name: str) -> dict[str, Any]:
    return {"resource": name, "limit": store.limits[name], "usage": store.usage(name)}


@handles("get-operation")
def get_operation(call: Call) -> Any:
    if call.id not in call.zone.tasks:
        raise world.absent("Operation")
    return call.zone.tasks[call.id].view()


@handles("list-events")
def list_events(call: Call) -> Any:
    """Of the last 24 hours, as documented; ``from`` and ``to`` compare as the texts they are (all UTC)."""
    arguments = call.request.arguments
    since = arguments.get("from", world.rfc3339(time.time() - 86_400))[:19]
    until = arguments.get("to", "9999")[:19]
    seen_s = time.time() - call.faults.list_lag_s.get("list-events", 0.0)
    visible = (event for event in call.store.events if since <= event["timestamp"][:19] <= until)
    return [event for event in visible if event["timestamp"] <= world.rfc3339_ms(seen_s)]


def record_event(call: Call, status: int, message: str) -> None:
    """Write a mutation down, as the audit trail does; the words of ``handler`` and ``message`` are ours."""
    request = call.request
    call.store.events.append(
        {
            "timestamp": world.rfc3339_ms(time.time()),
            "source-ip": request.source_ip,
            "handler": request.operation,
            "message": message,
            "uri": request.path,
            "status": status,
            "zone": call.zone.name,
            "elapsed-ms": 1,
            "body-params": call.body,
            "path-params": dict(request.parameters),
            "get-params": dict(request.arguments),
            "iam-api-key": {"name": "lab", "key": request.key},
            "request-id": world.new_id(),
        }
    )
