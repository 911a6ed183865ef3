"""One request from its arrival to its answer, and what goes on while its operation is pending."""

from __future__ import annotations

import json
import re
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from tests.lab import signature, spec
from tests.lab.catalogue import Item
from tests.lab.compute import Operations
from tests.lab.faults import Effect, Fault, Faults, Reply, reply
from tests.lab.log import Log, Request
from tests.lab.machines import Machines
from tests.lab.store import Change, RefusedError, Resource, Store, Vm, Zone, new_id

PREFIX = re.compile(r"(?:/(?P<zone>[a-z0-9-]+))?/v2(?P<path>/.*)")
UNSIGNED = "list-zones"
FORBIDDEN = "Forbidden by role policy for compute - A deny rule matched. Rule index: 0"
JOIN_S = 5.0  # how long ``close`` waits for a thread that is at work


@dataclass(slots=True)
class Api:
    """The API without its transport.  Thread-safe."""

    store: Store
    log: Log
    faults: Faults
    machines: Machines
    default_zone: str
    latency_s: float  # from an answer to the end of its operation; 0 ends it in the answer
    expiry_ahead_s: float | None = 900.0  # later ones are refused; that bound of the real API is not known
    keys: dict[str, tuple[str, frozenset[str] | None]] = field(default_factory=dict)  # secret, role
    zone_urls: dict[str, str] = field(default_factory=dict)
    _closing: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def answer(self, request: Request) -> Reply:
        """Begin the request's record and answer it."""
        zone, route = self._place(request)
        self.log.begin(request)
        if (refused := self._forbid(request)) is not None:
            return reply(403, {"message": refused})
        if zone is None or route is None:
            return reply(404, {"message": "Not found"})
        planted = self.faults.strike("before", request)
        answer = planted or self._act(request, route, zone)
        if planted or answer.status != 200:
            return answer
        return self.faults.strike("committed", request, answer) or answer

    def close(self) -> None:
        """Let nothing that is pending begin any more; wait for what is at work."""
        self._closing.set()
        for thread in self._threads:
            thread.join(JOIN_S)

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
        secrets = {name: secret for name, (secret, _) in self.keys.items()}
        now_s = time.time() + self.faults.clock_offset_s
        refused = signature.refusal(request, secrets, now_s=now_s, ahead_s=self.expiry_ahead_s)
        request.signature = refused or "ok"
        if refused:
            return signature.INVALID
        _, allowed = self.keys[request.key]
        return None if allowed is None or request.operation in allowed else FORBIDDEN

    def _act(self, request: Request, route: spec.Route, zone: Zone) -> Reply:
        call = Operations(request, self.store, zone, self.zone_urls, self.machines, self.faults)
        with self.store.lock:
            try:
                _check(request, route)
                value, refused = call.answer(), None
            except RefusedError as error:
                value, refused = error.body, error
            if request.method != "GET":
                call.record_event(refused.status if refused else 200, str(refused or request.operation))
        if isinstance(value, Change):
            return reply(200, self._commit(request, zone, value))
        return reply(refused.status if refused else 200, value)

    def _commit(self, request: Request, zone: Zone, change: Change) -> dict[str, Any]:
        """Start the operation in a thread of its own; returns its first view."""
        request.committed, request.made = True, change.resource.id
        task, fault = _task(request.operation, change.resource), self.faults.ending(request)
        zone.tasks[task.id] = task
        if self.latency_s == 0 or change.resource.kind == "ssh-key":
            self._run(task, change, fault, 0.0)
            return task.view()
        view, arguments = task.view(), (task, change, fault, self.latency_s)
        thread = threading.Thread(target=self._run, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()
        return view

    def _run(self, task: Item, change: Change, fault: Fault, delay_s: float) -> None:
        rule, trouble = fault.rule, None
        if self._closing.wait(delay_s):
            return
        if not rule.get("effect_after_s"):
            trouble = _do(change, rule.get("effect", "done"))
        task.reason = "unavailable" if trouble else rule.get("reason")
        task.message = trouble or rule.get("message")
        task.state = "failure" if trouble else fault.state  # last: it is waited for
        if rule.get("effect_after_s") and not self._closing.wait(rule["effect_after_s"]):
            _do(change, rule.get("effect", "done"))


def _check(request: Request, route: spec.Route) -> None:
    """Raise a refusal for what the specification does not allow."""
    try:
        body = json.loads(request.body or b"{}")
    except ValueError:
        raise RefusedError(400, "Malformed JSON in the body") from None
    if errors := spec.wrong(route, request.parameters, body):
        raise RefusedError(400, errors[0], tuple(errors))


def _task(operation: str, resource: Resource) -> Item:
    """What the API calls an operation; keys are answered without a reference, starts and stops otherwise."""
    task, kind = Item(id=new_id(), state="pending"), resource.kind
    if operation in {"start-instance", "stop-instance"}:
        task.resource = {"id": resource.id, "type": kind}
    elif kind != "ssh-key":
        task.reference = {"id": resource.id, "link": f"/v2/{kind}/{resource.id}", "command": f"get-{kind}"}
    return task


def _do(change: Change, effect: Effect) -> str | None:
    """Do what the outcome says; returns what went wrong with the machine."""
    trouble = None
    try:
        {"done": change.effect, "none": change.undo, "error": bool}[effect]()
    except Exception as error:  # noqa: BLE001 - its operation ends, whatever the machine does
        trouble = str(error) or type(error).__name__
    if isinstance(change.resource, Vm) and (trouble or effect == "error"):
        change.resource.state = "error"
    return trouble
