"""The security group of a cluster: who reaches it.  Reach is the only wall around Rain.

SSH is open to the operator's address alone, which Exoscale itself tells: the event of what we have just
written has the address that it came from.  Rain's ports are open to members of the same group.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from ipaddress import IPv6Network
from typing import Any

from rain_deploy.core.address import Network, parse_network
from rain_deploy.core.layout import GOVERNOR_PORT_BASE, IDLE_PORT, MAX_NODES, RUN_PORTS
from rain_deploy.core.machine import Intent
from rain_deploy.errors import ApiError, InputError
from rain_deploy.providers.exoscale.api import Api
from rain_deploy.providers.exoscale.deleting import delete
from rain_deploy.providers.exoscale.listing import READ_S, made_once, rounds
from rain_deploy.providers.exoscale.names import shared_name

RAIN_PORTS = (
    (IDLE_PORT, IDLE_PORT),
    (RUN_PORTS.start, RUN_PORTS.stop - 1),
    (GOVERNOR_PORT_BASE + 1, GOVERNOR_PORT_BASE + MAX_NODES),
)
EVENTS_OF = timedelta(minutes=30)
"""How far back events are asked for: more than a clock can be wrong whose signatures are accepted."""


@dataclass(frozen=True, slots=True)
class Rule:
    """An ingress rule.  ``source``: a CIDR, or the id of a group."""

    protocol: str
    first: int
    last: int
    source: str

    @property
    def description(self) -> str:
        """Tells the rule apart: Exoscale does not tell the id of a rule that was added."""
        what = "rain" if (self.first, self.last) in RAIN_PORTS else "ssh"
        return f"rain-deploy {what} {self.first}-{self.last} from {self.source}"

    def only(self, port: int) -> bool:
        return self.first == self.last == port


def _reached_from(operator: Network) -> str:
    """InputError for an IPv6 address: our machines have IPv4 alone, so SSH comes from another one."""
    if isinstance(operator, IPv6Network):
        raise InputError(
            f"Exoscale sees this machine at {operator.network_address}, but its machines are reached by IPv4",
            next_step="name this machine's IPv4 address: --allow-ip ADDRESS",
        )
    return str(operator)


def ssh_rules(port: int, networks: Iterable[str]) -> tuple[Rule, ...]:
    """SSH from each of ``networks``."""
    return tuple(Rule("tcp", port, port, network) for network in networks)


def rain_rules(group: str) -> tuple[Rule, ...]:
    """Rain's ports from members of ``group``, by its id."""
    return tuple(Rule("tcp", first, last, group) for first, last in RAIN_PORTS)


def networks(allow_ip: Iterable[str]) -> tuple[str, ...]:
    """CIDRs as Exoscale wants them; an address is a network of one.  InputError."""
    try:
        return tuple(dict.fromkeys(str(parse_network(text)) for text in allow_ip))
    except ValueError as error:
        raise InputError(
            f"--allow-ip: expected {error}", next_step="--allow-ip 203.0.113.7/32, for example"
        ) from error


def opening(port: int, allow_ip: tuple[str, ...]) -> tuple[str, ...]:
    """Sentences: what is opened to whom."""
    who = "the address from which Exoscale sees this machine"
    told = [f"SSH (tcp {port}) opens to {who}, and to nobody else"] if not allow_ip else []
    told += [f"SSH (tcp {port}) opens to {_who(network)}" for network in networks(allow_ip)]
    return (*told, "Rain's ports open to the machines of this cluster, and to nobody else")


def standing(api: Api, group: str, port: int) -> tuple[str, ...]:
    """Sentences: to whom a group that exists is open, rules that people added included."""
    told = []
    for rule in map(_rule, _ingress(api, group)):
        if rule.source == group:
            continue
        what = f"SSH (tcp {port})" if rule.only(port) else f"{rule.protocol} {rule.first}-{rule.last}"
        told.append(f"{what} is open to {_who(rule.source)}")
    return (*told, "Rain's ports are open to the machines of this cluster")


class Group:
    """The rules of one group that exists."""

    def __init__(self, api: Api, group: str, intent: Intent) -> None:
        self._api = api
        self._group = group
        self._name = shared_name(intent)
        self._port = intent.machines.ssh_port
        self._allow_ip = networks(intent.allow_ip)

    def ensure(self, *, fresh: bool) -> None:
        """Make the rules what they shall be, and read them back.

        ``fresh``: this process made the group.  Raises InputError where the operator's address is not told,
        and where another's rule opens Rain's ports.
        """
        rows = _ingress(self._api, self._group)
        closed = not self._allow_ip and not any(self._is_ssh(row) for row in rows)
        seen = frozenset(map(_key, self._events())) if closed and not fresh else frozenset()
        for rule in rain_rules(self._group):
            self._add(rule, rows)
        if closed and not fresh:
            self._touch(rows)
        wanted = ssh_rules(self._port, (self._operator(seen),) if closed else self._allow_ip)
        for rule in wanted:
            self._add(rule, rows)
        for row in rows if wanted else ():
            if self._is_ssh(row) and _rule(row) not in wanted:
                self._drop(row)
        self._check(wanted)
        self._tell(wanted, tuple(_rule(row) for row in rows if self._is_ssh(row)))

    def _tell(self, wanted: tuple[Rule, ...], had: tuple[Rule, ...]) -> None:
        """Say to whom SSH opens and closes, where it was open before: no offer has said it."""
        opened = ", ".join(_who(rule.source) for rule in wanted if rule not in had)
        closed = ", ".join(_who(rule.source) for rule in had if rule not in wanted)
        changes = (f"opens to {opened}" if opened else "", f"is no longer open to {closed}" if closed else "")
        if wanted and had and any(changes):
            self._api.notice(f"SSH (tcp {self._port}) {' and '.join(filter(None, changes))}")

    def _check(self, wanted: tuple[Rule, ...]) -> None:
        have = set(map(_rule, _ingress(self._api, self._group)))
        missing = {*rain_rules(self._group), *wanted} - have
        if missing:
            what = ", ".join(sorted(rule.description for rule in missing))
            raise ApiError(f"security group {self._name}: rules are missing after they were added: {what}")
        for rule in have - {*rain_rules(self._group), *wanted}:
            if rule.source != self._group and any(a <= rule.last and rule.first <= b for a, b in RAIN_PORTS):
                raise InputError(
                    f"security group {self._name} opens Rain's ports to {rule.source}: whoever reaches them "
                    "runs code on the machines",
                    next_step=f"remove that rule: exo compute security-group show {self._name}",
                )

    def _operator(self, seen: frozenset[str]) -> str:
        """The address from which Exoscale saw a change of this group come that is not among ``seen``."""
        for _ in rounds(self._api, self._api.patience.source_ip_s):
            for event in self._events():
                if _key(event) not in seen and event.get("source-ip"):
                    return _reached_from(parse_network(event["source-ip"]))
        raise InputError(
            "Exoscale does not tell from which address it sees this machine, so SSH cannot be opened to it",
            next_step="name it: --allow-ip ADDRESS",
        )

    def _touch(self, rows: tuple[dict[str, Any], ...]) -> None:
        """Change something of a group that is older than this process: its events tell of others."""
        rule = rain_rules(self._group)[0]
        for row in rows:
            if _rule(row) == rule:
                self._drop(row)
                self._add(rule, ())

    def _events(self) -> tuple[dict[str, Any], ...]:
        """Successful changes of this group in the last minutes."""
        since = (datetime.now(UTC) - EVENTS_OF).isoformat(timespec="seconds").replace("+00:00", "Z")
        return tuple(
            event
            for event in self._api.read("list-events", **{"from": since})
            if _tells_of(event, self._group, self._name)
        )

    def _add(self, rule: Rule, rows: tuple[dict[str, Any], ...]) -> None:
        """Unless it is there.  After a lost answer the group itself says whether it was added."""
        if rule in map(_rule, rows):
            return
        made_once(
            self._api,
            find=lambda: rule in map(_rule, _ingress(self._api, self._group)) or None,
            make=lambda: self._post(rule),
            what=f"security group {self._name}: {rule.description}",
            settle_s=READ_S,
        )

    def _post(self, rule: Rule) -> bool:
        inner = rule.source == self._group
        source = {"security_group": {"id": rule.source}} if inner else {"network": rule.source}
        operation = self._api.write(
            "add-rule-to-security-group",
            id=self._group,
            flow_direction="ingress",
            protocol=rule.protocol,
            start_port=rule.first,
            end_port=rule.last,
            description=rule.description,
            **source,
        )
        self._api.wait(operation, what=f"rule {rule.description!r}")
        return True

    def _drop(self, row: Mapping[str, Any]) -> None:
        what = f"rule {row.get('description', row['id'])!r}"
        delete(self._api, "delete-rule-from-security-group", what, id=self._group, rule_id=row["id"])

    def _is_ssh(self, row: Mapping[str, Any]) -> bool:
        """Whoever added it: --allow-ip says who may."""
        rule = _rule(row)
        return rule.only(self._port) and rule.source != self._group


def _ingress(api: Api, group: str) -> tuple[dict[str, Any], ...]:
    """Rules of the group as they are."""
    rows = api.read("get-security-group", id=group).get("rules") or ()
    return tuple(row for row in rows if row.get("flow-direction") == "ingress")


def _who(source: str) -> str:
    everyone = source in {"0.0.0.0/0", "::/0"}
    return f"EVERY ADDRESS OF THE INTERNET: {source}" if everyone else source


def _rule(row: Mapping[str, Any]) -> Rule:
    """Other protocols than TCP have no ports, or all."""
    source = row.get("network") or (row.get("security-group") or {}).get("id", "")
    return Rule(row["protocol"], row.get("start-port", 1), row.get("end-port", 65535), source)


def _tells_of(event: Mapping[str, Any], group: str, name: str) -> bool:
    """Whether it is a success and names the group, wherever: which fields an event has is not documented."""
    text = json.dumps(event)
    return event.get("status", 200) < HTTPStatus.BAD_REQUEST and (group in text or name in text)


def _key(event: Mapping[str, Any]) -> str:
    return event.get("request-id") or json.dumps(event, sort_keys=True)
