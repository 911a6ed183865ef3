"""The SSH key, security group and anti-affinity groups that the machines of a cluster share.

None of these has labels; each is found again by its name.  The security group is the only wall around Rain:
SSH is open to the operator's address alone, Rain's ports to members of the group.  Exoscale itself knows the
operator's address: the event of a change that was just made holds it.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from ipaddress import IPv4Network
from typing import Any

from rain_deploy.core.layout import GOVERNOR_PORT_BASE, IDLE_PORT, MAX_NODES, RUN_PORTS
from rain_deploy.core.machine import Intent
from rain_deploy.core.text import parse_network
from rain_deploy.errors import ApiError, InputError
from rain_deploy.providers.exoscale.answers import Absent
from rain_deploy.providers.exoscale.api import Api
from rain_deploy.providers.exoscale.labels import GROUP, shared_name
from rain_deploy.providers.exoscale.once import READ_S, delete, done_once, made_once

RAIN_PORTS = (
    (IDLE_PORT, IDLE_PORT),
    (RUN_PORTS.start, RUN_PORTS.stop - 1),
    (GOVERNOR_PORT_BASE + 1, GOVERNOR_PORT_BASE + MAX_NODES),
)
EVENTS_OF = timedelta(minutes=30)
"""How far back to ask for events: more than a clock can be wrong whose signatures are accepted."""
_MOST_KEYS = 9
"""Names that are tried for a key."""


@dataclass(frozen=True, slots=True)
class Rule:
    """An ingress rule.  ``source``: a CIDR, or the id of a group."""

    protocol: str
    first: int
    last: int
    source: str
    id: str = field(default="", compare=False)

    @classmethod
    def parse(cls, row: Mapping[str, Any]) -> Rule:
        """Return the rule; other protocols than TCP have no ports, or all."""
        source = row.get("network") or (row.get("security-group") or {}).get("id", "")
        return cls(row["protocol"], row.get("start-port", 1), row.get("end-port", 65535), source, row["id"])

    @property
    def description(self) -> str:
        """Text that is unique in its group: Exoscale does not return the id of a rule that was added."""
        what = "rain" if (self.first, self.last) in RAIN_PORTS else "ssh"
        return f"rain-deploy {what} {self.first}-{self.last} from {self.source}"

    @property
    def who(self) -> str:
        everyone = self.source in {"0.0.0.0/0", "::/0"}
        return f"EVERY ADDRESS OF THE INTERNET: {self.source}" if everyone else self.source

    def is_ssh(self, port: int, group: str) -> bool:
        """Return True for SSH from outside the group, whoever added the rule."""
        return self.first == self.last == port and self.source != group


def ssh_rules(port: int, allow_ip: Iterable[str]) -> tuple[Rule, ...]:
    """Return a rule for SSH from each network; an address is a network of one.  Raises InputError."""
    try:
        networks = dict.fromkeys(str(parse_network(text)) for text in allow_ip)
    except ValueError as error:
        raise InputError(
            f"--allow-ip: expected {error}", next_step="--allow-ip 203.0.113.7/32, for example"
        ) from error
    return tuple(Rule("tcp", port, port, network) for network in networks)


def rain_rules(group: str) -> tuple[Rule, ...]:
    """Return the rules for Rain's ports from members of ``group``, by its id."""
    return tuple(Rule("tcp", first, last, group) for first, last in RAIN_PORTS)


def will_open(port: int, allow_ip: tuple[str, ...]) -> tuple[str, ...]:
    """Return sentences: what a new group opens to whom."""
    who = [rule.who for rule in ssh_rules(port, allow_ip)]
    who = who or ["the address from which Exoscale sees this machine, and to nobody else"]
    ssh = (f"SSH (tcp {port}) opens to {each}" for each in who)
    return (*ssh, "Rain's ports open to the machines of this cluster, and to nobody else")


def is_open(api: Api, group: str, port: int) -> tuple[str, ...]:
    """Return sentences: to whom an existing group is open, including rules that people added."""
    sentences = []
    for rule in _rules(api, group):
        ports = f"{rule.protocol} {rule.first}-{rule.last}"
        ports = f"SSH (tcp {port})" if rule.is_ssh(port, group) else ports
        if rule.source != group:
            sentences.append(f"{ports} is open to {rule.who}")
    return (*sentences, "Rain's ports are open to the machines of this cluster")


class Network:
    """Makes what machines share.  All of it is organization-wide, so no zone is named.  Thread-safe."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def key(self, intent: Intent, public: str) -> str:
        """Return the name under which Exoscale has ``public``; register it if it is missing.

        A key of our name with other content belongs to a home that was lost: it stays, ours gets a suffix.
        """

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
            raise InputError(
                f"the SSH key {own} exists at Exoscale {_MOST_KEYS} times, never with our content"
            )

        def register() -> str:
            self._api.wait(self._api.write("register-ssh-key", name=name, public_key=public), what=name)
            return name

        def find() -> str | None:
            return name if fingerprint(name) == ours else None

        if found:
            return name
        return made_once(self._api, find, register, what=f"{intent.name} ({name})", settle_s=READ_S)

    def group(self, intent: Intent, ref: str, *, unsettled: bool) -> str:
        """Return the id of a group; a security group's rules are as they should be then.

        ``unsettled``: an earlier command may have made it, from another address than this one.
        """
        known = None
        if ref:
            with contextlib.suppress(Absent):
                known = str(self._api.read(f"get-{intent.kind}", id=ref)["id"])
        known = known or self.find(intent, fresh=ref != "")
        made = known or self._made(intent)
        fresh = known is None and not unsettled
        try:
            if intent.kind == GROUP:
                _Rules(self._api, made, intent).ensure(fresh=fresh)
        except InputError:  # means that nothing was made
            if fresh:
                delete(self._api, "delete-security-group", shared_name(intent), id=made)
            raise
        return made

    def find(self, intent: Intent, *, fresh: bool = True) -> str | None:
        """Return the id by the name (a key's id is its name).  ``fresh``: as of now, not as first fetched."""
        rows = self._api.rows(f"list-{intent.kind}s", since_s=self._api.now_s if fresh else None)
        name = shared_name(intent)
        return next((str(row.get("id", name)) for row in rows if row["name"] == name), None)

    def _made(self, intent: Intent) -> str:
        """Make a group.  A name can be taken only once, so there cannot be two."""
        name = shared_name(intent)
        made_for = f"made by rain-deploy for cluster {intent.cluster} ({intent.cluster_id}) of {intent.owner}"

        def make() -> str:
            begun = self._api.write(f"create-{intent.kind}", name=name, description=made_for)
            self._api.wait(begun, what=name)
            return begun.made

        return made_once(self._api, lambda: self.find(intent), make, what=name, settle_s=READ_S)


class _Rules:
    """The rules of an existing group."""

    def __init__(self, api: Api, group: str, intent: Intent) -> None:
        self._api = api
        self._group = group
        self._name = shared_name(intent)
        self._port = intent.machines.ssh_port
        self._allowed = ssh_rules(self._port, intent.allow_ip)

    def ensure(self, *, fresh: bool) -> None:
        """Make the rules what they should be, and read them back.

        ``fresh``: this process made the group.  Raises InputError where the operator's address is not known,
        and where somebody's rule opens Rain's ports.
        """
        rules = _rules(self._api, self._group)
        had = tuple(rule for rule in rules if rule.is_ssh(self._port, self._group))
        closed = not self._allowed and not had
        earlier: Collection[str] = ()
        rain = rain_rules(self._group)
        if closed and not fresh:
            # The events so far may name another address: make sure that there is a new one.
            earlier = self._events().keys()
            for rule in (rule for rule in rules if rule == rain[0]):
                self._drop(rule)
            rules = tuple(rule for rule in rules if rule != rain[0])
        for rule in rain:
            self._add(rule, rules)
        wanted = ssh_rules(self._port, (self._operator(earlier),)) if closed else self._allowed
        for rule in wanted:
            self._add(rule, rules)
        for rule in (rule for rule in had if wanted and rule not in wanted):
            self._drop(rule)
        self._check(wanted)
        self._report(wanted, had)

    def _report(self, wanted: tuple[Rule, ...], had: tuple[Rule, ...]) -> None:
        """Report to whom SSH opens and closes where it was open before: no offer has said it."""
        opened = ", ".join(rule.who for rule in wanted if rule not in had)
        closed = ", ".join(rule.who for rule in had if rule not in wanted)
        changes = (f"opens to {opened}" if opened else "", f"is no longer open to {closed}" if closed else "")
        if wanted and had and any(changes):
            self._api.notice(f"SSH (tcp {self._port}) {' and '.join(filter(None, changes))}")

    def _check(self, wanted: tuple[Rule, ...]) -> None:
        should, have = {*rain_rules(self._group), *wanted}, set(_rules(self._api, self._group))
        if missing := should - have:
            what = ", ".join(sorted(rule.description for rule in missing))
            raise ApiError(f"security group {self._name}: rules are missing after they were added: {what}")
        for rule in have - should:
            opens_rain = any(first <= rule.last and rule.first <= last for first, last in RAIN_PORTS)
            if rule.source != self._group and opens_rain:
                raise InputError(
                    f"security group {self._name} opens Rain's ports to {rule.source}: whoever reaches them "
                    "can run code on the machines",
                    next_step=f"remove that rule: exo compute security-group show {self._name}",
                )

    def _operator(self, earlier: Collection[str]) -> str:
        """Return the address from which Exoscale saw a change of this group that is not among ``earlier``."""
        for _ in self._api.patience.rounds(self._api.patience.source_ip_s):
            events = self._events()
            for source in (source for key, source in events.items() if key not in earlier and source):
                if isinstance(parse_network(source), IPv4Network):
                    return source
                raise InputError(
                    f"Exoscale sees this machine at {source}, but its machines are reached by IPv4",
                    next_step="name this machine's IPv4 address: --allow-ip ADDRESS",
                )
        raise InputError(
            "Exoscale does not say from which address it sees this machine, so SSH cannot be opened to it",
            next_step="name it: --allow-ip ADDRESS",
        )

    def _events(self) -> dict[str, str]:
        """Return the successful changes of this group in the last minutes: where each came from.

        An event counts if it names the group anywhere: its fields are not documented.
        """
        since = (datetime.now(UTC) - EVENTS_OF).isoformat(timespec="seconds").replace("+00:00", "Z")
        events: dict[str, str] = {}
        for event in self._api.read("list-events", **{"from": since}):
            text = json.dumps(event, sort_keys=True)
            succeeded = event.get("status", 200) < HTTPStatus.BAD_REQUEST
            if succeeded and (self._group in text or self._name in text):
                key = event.get("request-id") or text
                events[key] = events.get(key) or event.get("source-ip", "")
        return events

    def _add(self, rule: Rule, rules: tuple[Rule, ...]) -> None:
        """Add a rule that is not there.  After a lost answer the group itself shows whether it was added."""
        if rule in rules:
            return

        def write() -> None:
            inner = {"security_group": {"id": rule.source}}
            operation = self._api.write(
                "add-rule-to-security-group",
                id=self._group,
                flow_direction="ingress",
                protocol=rule.protocol,
                start_port=rule.first,
                end_port=rule.last,
                description=rule.description,
                **(inner if rule.source == self._group else {"network": rule.source}),
            )
            self._api.wait(operation, what=f"rule {rule.description!r}")

        what = f"security group {self._name}: {rule.description}"
        done_once(self._api, lambda: rule in _rules(self._api, self._group), write, what=what)

    def _drop(self, rule: Rule) -> None:
        what = f"rule {rule.description!r}"
        delete(self._api, "delete-rule-from-security-group", what, id=self._group, rule_id=rule.id)


def _rules(api: Api, group: str) -> tuple[Rule, ...]:
    """Return the ingress rules of a group as they are now."""
    rows = api.read("get-security-group", id=group).get("rules") or ()
    return tuple(Rule.parse(row) for row in rows if row.get("flow-direction") == "ingress")
