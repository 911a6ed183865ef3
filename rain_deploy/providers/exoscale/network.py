"""The SSH key, security group and anti-affinity groups that the machines of a cluster share.

None of these has labels; each is found again by its name.  A new security group lets nobody in; its rules are
added while the machines boot.  Exoscale itself knows the operator's address: the event of a change that was
just made holds it.
"""

import base64
import contextlib
import functools
import hashlib
import json
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from ipaddress import IPv4Network
from typing import Any

from rain_deploy.core.machine import Intent
from rain_deploy.core.text import parse_network
from rain_deploy.errors import ApiError, CredentialsError, InputError
from rain_deploy.providers.exoscale.answers import Absent, Refused, Unknown
from rain_deploy.providers.exoscale.api import READ_S, Api
from rain_deploy.providers.exoscale.labels import shared_name
from rain_deploy.providers.exoscale.rules import Difference, Rule, compare, rain_rules, ssh_rules

EVENTS_OF = timedelta(minutes=30)
"""Age of the oldest events to ask for: more than a clock can be wrong whose signatures are accepted."""
_MOST_KEYS = 9


ADDRESS_UNKNOWN = (
    "Exoscale does not say from which address it sees this machine, so SSH cannot be opened to it"
)
NEXT_STEP = "pass it: --allow-ip ADDRESS"


def recent_events(api: Api) -> list[dict[str, Any]]:
    """Return the account's events of the last minutes.  Raises InputError if they do not tell addresses."""
    since = (datetime.now(UTC) - EVENTS_OF).isoformat(timespec="seconds").replace("+00:00", "Z")
    try:
        events: list[dict[str, Any]] = api.read("list-events", **{"from": since})
    except (Absent, Refused, CredentialsError, Unknown) as error:
        raise InputError(f"{ADDRESS_UNKNOWN} ({error.message})", next_step=NEXT_STEP) from error
    if events and not any(event.get("source-ip") for event in events):
        raise InputError(ADDRESS_UNKNOWN, next_step=NEXT_STEP)
    return events


class Network:
    """Makes what machines share.  All of it is organization-wide, so no zone is named.  Thread-safe."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def key(self, intent: Intent, public: str) -> str:
        """Return the name under which Exoscale has ``public``; register it if it is missing."""
        # A key of our name with other content belongs to a home that was lost: it stays, ours gets a suffix.

        def fingerprint(name: str) -> str | None:
            with contextlib.suppress(Absent):
                return str(self._api.read("get-ssh-key", name=name)["fingerprint"])
            return None

        # Exoscale shows MD5 in hexadecimal, with colons.
        ours = hashlib.md5(base64.b64decode(public.split()[1]), usedforsecurity=False).digest().hex(":")
        own = shared_name(intent)
        for name in (own, *(f"{own}_{number}" for number in range(2, _MOST_KEYS + 1))):
            if (found := fingerprint(name)) in {None, ours}:
                break
        else:
            message = f"the SSH key {own} exists at Exoscale {_MOST_KEYS} times, never with our content"
            raise InputError(message)

        def register() -> str:
            self._api.change("register-ssh-key", what=name, name=name, public_key=public)
            return name

        def find() -> str | None:
            return name if fingerprint(name) == ours else None

        if found:
            return name
        return self._api.made_once(find, register, what=f"{intent.name} ({name})", settle_s=READ_S)

    def group(self, intent: Intent, ref: str) -> tuple[str, bool]:
        """Return the id of a group, and True if it was made just now: then it has no rules, and is closed."""
        known = None
        if ref:
            with contextlib.suppress(Absent):
                known = str(self._api.read(f"get-{intent.kind}", id=ref)["id"])
        known = known or self.find(intent, fresh=ref != "")
        return known or self._made(intent), known is None

    def find(self, intent: Intent, *, fresh: bool = True) -> str | None:
        """Return the id by the name (a key's id is its name).  ``fresh``: as of now, not as first fetched."""
        rows = self._api.rows(f"list-{intent.kind}s", since_s=self._api.now_s if fresh else 0.0)
        name = shared_name(intent)
        return next((str(row.get("id", name)) for row in rows if row["name"] == name), None)

    def _made(self, intent: Intent) -> str:
        """Make a group.  A name can be taken only once, so there cannot be two."""
        name = shared_name(intent)
        made_for = f"made by rain-deploy for cluster {intent.cluster} ({intent.cluster_id}) of {intent.owner}"

        def make() -> str:
            operation = f"create-{intent.kind}"
            return self._api.change(operation, what=name, name=name, description=made_for).made

        return self._api.made_once(lambda: self.find(intent), make, what=name, settle_s=READ_S)


class SecurityGroup:
    """The rules of an existing group."""

    def __init__(self, api: Api, group: str) -> None:
        self._api = api
        self._group = group

    def compared(self, port: int, allow_ip: tuple[str, ...]) -> Difference:
        """Return how its rules differ from what they should be; changes nothing."""
        return compare(self._rules(), self._group, port, allow_ip)

    def ensure(self, intent: Intent, *, fresh: bool) -> None:
        """Make the rules what they should be, and say what was repaired.  Raises InputError, ApiError.

        ``fresh``: this process made the group, and nobody else can have.
        """
        name, port = shared_name(intent), intent.machines.ssh_port
        left = found = self.compared(port, intent.allow_ip)
        unsure = found.closed and not fresh
        earlier = self._new_event(name) if unsure else {}
        added = self.compared(port, intent.allow_ip).missing if unsure else found.missing
        for rule in added:
            self._add(rule, name)
        if found.closed:
            added = ssh_rules(port, (self._operator(name, earlier),))
            for rule in added:
                self._add(rule, name)
        for rule in found.surplus:
            self._drop(rule)
        if added or found.surplus:
            left = self.compared(port, intent.allow_ip)
        if left.missing or left.closed:
            what = ", ".join(rule.description for rule in left.missing) or "SSH"
            raise ApiError(f"security group {name}: rules are missing after they were added: {what}")
        if refused := (reach := left.reach(name)).refused:
            raise InputError(refused, next_step=reach.next_step)
        if not fresh:
            self._report(found, added)

    def _new_event(self, name: str) -> dict[str, str]:
        """Remove a rule that is added again next; return the events before: they may name another address."""
        earlier = self._events(name)
        for rule in self._rules():
            if rule == rain_rules(self._group)[0]:
                self._drop(rule)
        return earlier

    def _report(self, found: Difference, added: tuple[Rule, ...]) -> None:
        """Report to whom SSH was opened and closed: nobody was asked before."""
        opened = ", ".join(rule.who for rule in added if rule.is_ssh(found.port))
        shut = ", ".join(rule.who for rule in found.surplus)
        changes = [f"opens to {opened}"] * bool(opened) + [f"is no longer open to {shut}"] * bool(shut)
        if changes:
            self._api.notice(f"SSH (tcp {found.port}) {' and '.join(changes)}")
        if back := ", ".join(rule.ports for rule in found.missing if rule.source == self._group):
            self._api.notice(
                f"repaired the security group: {back} is open to the machines of this cluster again"
            )

    def _rules(self) -> tuple[Rule, ...]:
        rows = self._api.read("get-security-group", id=self._group).get("rules") or ()
        return tuple(Rule.parse(row) for row in rows if row.get("flow-direction") == "ingress")

    def reported_address(self, name: str, earlier: Collection[str] = ()) -> str:
        """Return the address from which Exoscale saw a change of this group that is not among ``earlier``.

        Looks once; empty while there is no event of it.  Raises InputError if the event cannot help.
        """
        sources = [source for key, source in self._events(name).items() if key not in earlier]
        if sources and not any(sources):
            raise InputError(ADDRESS_UNKNOWN, next_step=NEXT_STEP)
        source = next(filter(None, sources), "")
        if source and not isinstance(parse_network(source), IPv4Network):
            message = f"Exoscale sees this machine at {source}, but its machines are reached by IPv4"
            raise InputError(message, next_step="pass this machine's IPv4 address: --allow-ip ADDRESS")
        return source

    def _operator(self, name: str, earlier: Collection[str]) -> str:
        """Return the address that an event tells; wait for the event."""
        waits_for = "the event that names this machine's address"
        for _ in self._api.patience.rounds(self._api.patience.source_ip_s, waits_for):
            if source := self.reported_address(name, earlier):
                return source
        raise InputError(ADDRESS_UNKNOWN, next_step=NEXT_STEP)

    def _events(self, name: str) -> dict[str, str]:
        """Return where each successful change of this group in the last minutes came from."""
        # An event counts if it names the group anywhere: its fields are not documented.
        events: dict[str, str] = {}
        for event in recent_events(self._api):
            text = json.dumps(event, sort_keys=True)
            succeeded = event.get("status", 200) < HTTPStatus.BAD_REQUEST
            if succeeded and (self._group in text or name in text):
                key = event.get("request-id") or text
                events[key] = events.get(key) or event.get("source-ip", "")
        return events

    def _add(self, rule: Rule, name: str) -> None:
        """Add a rule that is not there.  After a lost answer the group itself shows whether it was added."""
        source = {"security_group": {"id": rule.source}}
        add = functools.partial(
            self._api.change,
            "add-rule-to-security-group",
            what=f"rule {rule.description!r}",
            id=self._group,
            flow_direction="ingress",
            protocol=rule.protocol,
            start_port=rule.first,
            end_port=rule.last,
            description=rule.description,
            **(source if rule.source == self._group else {"network": rule.source}),
        )
        what = f"security group {name}: {rule.description}"
        self._api.done_once(lambda: rule in self._rules(), add, what=what)

    def _drop(self, rule: Rule) -> None:
        what = f"rule {rule.description!r}"
        self._api.delete("delete-rule-from-security-group", what, id=self._group, rule_id=rule.id)
