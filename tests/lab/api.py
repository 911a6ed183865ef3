"""One request from its arrival to its answer: route, signature, role, faults, checks, handler, operation."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass, field
from typing import Any

from tests.lab import compute, groups, reads, signature, spec
from tests.lab.calls import HANDLERS, Call
from tests.lab.faults import Faults, Reply, reply
from tests.lab.log import Log, Request
from tests.lab.machines import Machines
from tests.lab.store import Change, RefusedError, Store, Zone
from tests.lab.work import Work

PREFIX = re.compile(r"(?:/(?P<zone>[a-z0-9-]+))?/v2(?P<path>/.*)")
UNSIGNED = "list-zones"
FORBIDDEN = "Forbidden by role policy for compute - A deny rule matched. Rule index: 0"
ROOMS = (compute, groups, reads)  # importing them registers their handlers


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key of the account; ``allowed``: the operations of its role, None for all."""

    secret: str
    allowed: frozenset[str] | None = None


@dataclass(slots=True, kw_only=True)
class Api:
    """The API without its transport.  Thread-safe."""

    store: Store
    log: Log
    faults: Faults
    machines: Machines
    work: Work
    keys: dict[str, ApiKey]
    default_zone: str
    zone_urls: dict[str, str] = field(default_factory=dict)
    expiry_ahead_s: float | None = 900.0  # signatures that expire later are refused; None: no bound

    def answer(self, request: Request) -> Reply:
        """Begin the request's record and answer it; raises CutError."""
        zone, route = self._place(request)
        self.log.begin(request)
        refused = self._forbid(request)
        if refused is not None:
            return reply(403, {"message": refused})
        if zone is None or route is None:
            return reply(404, {"message": "Not found"})
        if (planted := self.faults.strike("before", request)) is not None:
            return planted
        answer = self._act(request, route, zone)
        if answer.status == 200:
            return self.faults.strike("committed", request, answer) or answer
        return answer

    def _place(self, request: Request) -> tuple[Zone | None, spec.Route | None]:
        match = PREFIX.fullmatch(request.path)
        zone = self.store.zones.get((match and match["zone"]) or self.default_zone)
        found = spec.find(request.method, match["path"]) if match else None
        if zone is None or found is None:
            return None, None
        route, request.parameters = found
        request.zone, request.operation = zone.name, route.name
        return zone, route

    def _forbid(self, request: Request) -> str | None:
        """Why the request is answered with 403."""
        if request.operation == UNSIGNED:
            request.signature = "not needed"
            return None
        header = request.headers.get("authorization", "")
        request.key = signature.fields(header).get("credential", "")
        refused = signature.refusal(
            header,
            signature.Signed(request.method, request.path, request.query, request.body),
            {name: key.secret for name, key in self.keys.items()},
            now_s=time.time() + self.faults.clock_offset_s,
            ahead_s=float("inf") if self.expiry_ahead_s is None else self.expiry_ahead_s,
        )
        request.signature = refused or "ok"
        if refused:
            return signature.INVALID
        allowed = self.keys[request.key].allowed
        return None if allowed is None or request.operation in allowed else FORBIDDEN

    def _act(self, request: Request, route: spec.Route, zone: Zone) -> Reply:
        handler = HANDLERS.get(route.name)
        if handler is None:
            return reply(501, {"message": f"{route.name} is not modelled by this lab"})
        call = Call(request, request.json, self.store, zone, self.zone_urls, self.machines, self.faults)
        try:
            check(request, route)
            with self.store.lock:
                value = handler(call)
        except RefusedError as error:
            self._record(call, error.status, error.message)
            return reply(error.status, error.view())
        if isinstance(value, Change):
            return reply(200, self._commit(call, value))
        return reply(200, value)

    def _commit(self, call: Call, change: Change) -> dict[str, object]:
        call.request.committed = True
        call.request.made = change.id
        self._record(call, 200, call.request.operation)
        return self.work.begin(call.zone, change, self.faults.ending(call.request))

    def _record(self, call: Call, status: int, message: str) -> None:
        if call.request.method != "GET":
            with self.store.lock:
                reads.record_event(call, status, message)


def check(request: Request, route: spec.Route) -> None:
    """Raise a refusal for what the specification does not allow."""
    if (wrong := spec.wrong_path(route, request.parameters)) is not None:
        raise RefusedError(400, wrong)
    if route.body is None:
        return
    errors = spec.wrong_body(route, _decoded(request.body))
    if errors:
        raise RefusedError(400, errors[0], tuple(errors))


def _decoded(body: bytes) -> Any:
    try:
        return json.loads(body or b"{}")
    except ValueError:
        raise RefusedError(400, "Malformed JSON in the body") from None
