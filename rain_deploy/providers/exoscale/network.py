"""The SSH key, security group and anti-affinity groups that the machines of a cluster share.

None of these has labels; each is found again by its name.  The security group is the only wall around Rain:
SSH is open to the operator's address alone, Rain's ports to members of the group.  Exoscale itself knows the
operator's address: the event of a change that was just made holds it.
"""

import base64
import contextlib
import functools
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
from rain_deploy.providers.exoscale.api import READ_S, Api
from rain_deploy.providers.exoscale.labels import GROUP, shared_name

RAIN_PORTS = (
    (IDLE_PORT, IDLE_PORT),
    (RUN_PORTS.start, RUN_PORTS.stop - 1),
    (GOVERNOR_PORT_BASE + 1, GOVERNOR_PORT_BASE + MAX_NODES),
)
EVENTS_OF = timedelta(minutes=30)
"""How far back to ask for events: more than a clock can be wrong whose signatures are accepted."""
_MOST_KEYS = 9


@dataclass(frozen=True, slots=True)
class Rule:
    """An ingress rule.  ``source``: a CIDR, or the id of a group."""

    protocol: str
    first: int
    last: int
    source: str
    id: str = field(default="", compare=False)

    @classmethod
    def parse(cls, row: Mapping[str, Any]) -> "Rule":
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

    def is_ssh(self, port: int) -> bool:
        """Return True for SSH, whoever added the rule."""
        return self.first == self.last == port


def ssh_rules(port: int, allow_ip: Iterable[str]) -> tuple[Rule, ...]:
    """Return a rule for SSH from each network; an address is a network of one.  Raises InputError."""
    try:
        networks = dict.fromkeys(str(parse_network(text)) for text in allow_ip)
    except ValueError as error:
        message = f"--allow-ip: expected {error}"
        raise InputError(message, next_step="--allow-ip 203.0.113.7/32, for example") from error
    return tuple(Rule("tcp", port, port, network) for network in networks)


def will_open(port: int, allow_ip: tuple[str, ...]) -> tuple[str, ...]:
    """Return sentences: what a new group opens to whom."""
    who = [rule.who for rule in ssh_rules(port, allow_ip)]
    who = who or ["the address from which Exoscale sees this machine, and to nobody else"]
    ssh = (f"SSH (tcp {port}) opens to {each}" for each in who)
    return (*ssh, "Rain's ports open to the machines of this cluster, and to nobody else")


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

    def group(self, intent: Intent, ref: str, *, unsettled: bool) -> str:
        """Return the id of a group with its rules.  ``unsettled``: it may have been made elsewhere."""
        known = None
        if ref:
            with contextlib.suppress(Absent):
                known = str(self._api.read(f"get-{intent.kind}", id=ref)["id"])
        known = known or self.find(intent, fresh=ref != "")
        made = known or self._made(intent)
        fresh = known is None and not unsettled
        try:
            if intent.kind == GROUP:
                SecurityGroup(self._api, made).ensure(intent, fresh=fresh)
        except InputError:  # means that nothing was made
            if fresh:
                self._api.delete("delete-security-group", shared_name(intent), id=made)
            raise
        return made

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
        self._rain = tuple(Rule("tcp", first, last, group) for first, last in RAIN_PORTS)

    def is_open(self, port: int) -> tuple[str, ...]:
        """Return sentences: to whom it is open, including rules that people added."""
        sentences = []
        for rule in (each for each in self._rules() if each.source != self._group):
            ports = f"SSH (tcp {port})" if rule.is_ssh(port) else f"{rule.protocol} {rule.first}-{rule.last}"
            sentences.append(f"{ports} is open to {rule.who}")
        return (*sentences, "Rain's ports are open to the machines of this cluster")

    def ensure(self, intent: Intent, *, fresh: bool) -> None:
        """Make the rules what they should be.  ``fresh``: this process made the group.  Raises InputError."""
        name, port = shared_name(intent), intent.machines.ssh_port
        allowed, rules = ssh_rules(port, intent.allow_ip), self._rules()
        had = tuple(rule for rule in rules if rule.is_ssh(port) and rule.source != self._group)
        closed = not allowed and not had
        earlier: Collection[str] = ()
        if closed and not fresh:
            # The events so far may name another address: make sure that there is a new one.
            earlier = self._events(name).keys()
            for rule in (rule for rule in rules if rule == self._rain[0]):
                self._drop(rule)
            rules = tuple(rule for rule in rules if rule != self._rain[0])
        for rule in self._rain:
            self._add(rule, rules, name)
        wanted = ssh_rules(port, (self._operator(name, earlier),)) if closed else allowed
        for rule in wanted:
            self._add(rule, rules, name)
        for rule in (rule for rule in had if wanted and rule not in wanted):
            self._drop(rule)
        self._check(wanted, name)
        # Where it was open before, no offer has said to whom it opens and closes.
        opened = ", ".join(rule.who for rule in wanted if rule not in had)
        shut = ", ".join(rule.who for rule in had if rule not in wanted)
        changes = (f"opens to {opened}" if opened else "", f"is no longer open to {shut}" if shut else "")
        if wanted and had and any(changes):
            self._api.notice(f"SSH (tcp {port}) {' and '.join(filter(None, changes))}")

    def _rules(self) -> tuple[Rule, ...]:
        rows = self._api.read("get-security-group", id=self._group).get("rules") or ()
        return tuple(Rule.parse(row) for row in rows if row.get("flow-direction") == "ingress")

    def _check(self, wanted: tuple[Rule, ...], name: str) -> None:
        should, have = {*self._rain, *wanted}, set(self._rules())
        if missing := should - have:
            what = ", ".join(sorted(rule.description for rule in missing))
            raise ApiError(f"security group {name}: rules are missing after they were added: {what}")
        for rule in have - should:
            opens_rain = any(first <= rule.last and rule.first <= last for first, last in RAIN_PORTS)
            if rule.source != self._group and opens_rain:
                raise InputError(
                    f"security group {name} opens Rain's ports to {rule.source}: whoever reaches them "
                    "can run code on the machines",
                    next_step=f"remove that rule: exo compute security-group show {name}",
                )

    def _operator(self, name: str, earlier: Collection[str]) -> str:
        """Return the address from which Exoscale saw a change of this group that is not among ``earlier``."""
        for _ in self._api.patience.rounds(
            self._api.patience.source_ip_s, "the event that names this machine's address"
        ):
            events = self._events(name)
            for source in (source for key, source in events.items() if key not in earlier and source):
                if isinstance(parse_network(source), IPv4Network):
                    return source
                message = f"Exoscale sees this machine at {source}, but its machines are reached by IPv4"
                raise InputError(message, next_step="name this machine's IPv4 address: --allow-ip ADDRESS")
        raise InputError(
            "Exoscale does not say from which address it sees this machine, so SSH cannot be opened to it",
            next_step="name it: --allow-ip ADDRESS",
        )

    def _events(self, name: str) -> dict[str, str]:
        """Return where each successful change of this group in the last minutes came from."""
        # An event counts if it names the group anywhere: its fields are not documented.
        since = (datetime.now(UTC) - EVENTS_OF).isoformat(timespec="seconds").replace("+00:00", "Z")
        events: dict[str, str] = {}
        for event in self._api.read("list-events", **{"from": since}):
            text = json.dumps(event, sort_keys=True)
            succeeded = event.get("status", 200) < HTTPStatus.BAD_REQUEST
            if succeeded and (self._group in text or name in text):
                key = event.get("request-id") or text
                events[key] = events.get(key) or event.get("source-ip", "")
        return events

    def _add(self, rule: Rule, rules: tuple[Rule, ...], name: str) -> None:
        """Add a rule that is not there.  After a lost answer the group itself shows whether it was added."""
        if rule in rules:
            return
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
