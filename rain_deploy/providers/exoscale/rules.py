"""The rules of a cluster's security group: what they are, what they should be, and the difference.  Pure.

The group is the only wall around Rain: SSH is open to the operator's address alone, Rain's ports to the
members of the group.  ``check``, ``status``, ``up`` and ``scale`` use the same comparison.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rain_deploy.core.layout import GOVERNOR_PORT_BASE, IDLE_PORT, MAX_NODES, RUN_PORTS
from rain_deploy.core.machine import Reach
from rain_deploy.core.text import parse_network
from rain_deploy.errors import InputError

RAIN_PORTS = (
    (IDLE_PORT, IDLE_PORT),
    (RUN_PORTS.start, RUN_PORTS.stop - 1),
    (GOVERNOR_PORT_BASE + 1, GOVERNOR_PORT_BASE + MAX_NODES),
)
_EVERYONE = frozenset({"0.0.0.0/0", "::/0"})
_TCP = frozenset({"tcp", "all"})  # protocols that reach Rain
_WITH_PORTS = frozenset({"tcp", "udp"})


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
        """Return the rule; one without ports is for all of them."""
        source = row.get("network") or (row.get("security-group") or {}).get("id", "")
        return cls(row["protocol"], row.get("start-port", 1), row.get("end-port", 65535), source, row["id"])

    @property
    def description(self) -> str:
        """Return a text that is unique in its group: Exoscale does not return the ids of new rules."""
        what = "rain" if (self.first, self.last) in RAIN_PORTS else "ssh"
        return f"rain-deploy {what} {self.first}-{self.last} from {self.source}"

    @property
    def ports(self) -> str:
        """Return protocol and ports, such as ``tcp 7230-7299`` or ``icmp``."""
        if self.protocol not in _WITH_PORTS or (self.first, self.last) == (1, 65535):
            return self.protocol
        return f"{self.protocol} {self.first}" + (f"-{self.last}" if self.last != self.first else "")

    @property
    def who(self) -> str:
        return f"EVERY ADDRESS OF THE INTERNET: {self.source}" if self.source in _EVERYONE else self.source

    def is_ssh(self, port: int) -> bool:
        """Return True for SSH, whoever added the rule."""
        return self.protocol == "tcp" and self.first == self.last == port

    @property
    def opens_rain(self) -> bool:
        """Return True if it lets through one of Rain's ports.  ICMP and UDP do not: Rain speaks TCP."""
        return self.protocol in _TCP and any(f <= self.last and self.first <= last for f, last in RAIN_PORTS)


@dataclass(frozen=True, slots=True)
class Difference:
    """Compares the rules of a group with what they should be."""

    group: str
    port: int
    missing: tuple[Rule, ...]  # to be added
    surplus: tuple[Rule, ...]  # SSH from networks that --allow-ip does not name: to be removed
    kept: tuple[Rule, ...]  # SSH as it is, and what people added for themselves
    dangerous: tuple[Rule, ...]  # they open Rain's ports to others
    closed: bool  # SSH is open to nobody, and --allow-ip names nobody

    def reach(self, name: str) -> Reach:
        """Return in sentences who reaches the machines, and what ``up`` repairs or refuses."""
        ssh = f"SSH (tcp {self.port})"
        own = [rule for rule in self.missing if rule.source == self.group]
        added = [rule for rule in self.missing if rule.source != self.group]
        repairs = [f"{rule.ports} is not open to the machines of this cluster" for rule in own]
        repairs += [f"{ssh} is not open to {rule.who}, which --allow-ip names" for rule in added]
        repairs += [f"{ssh} is open to {rule.who}, which --allow-ip does not name" for rule in self.surplus]
        if self.closed:
            repairs.append(f"{ssh} is open to nobody; `up` opens it to the address of this machine")
        refused, remove = "", ""
        if self.dangerous:
            what = "; ".join(f"{rule.ports} to {rule.who}" for rule in self.dangerous)
            why = "whoever reaches them can run code on the machines"
            refused = f"security group {name} opens Rain's ports ({what}): {why}"
            remove = f"exo compute security-group rule delete {self.group} {self.dangerous[0].id}"
        opens = (f"{ssh if r.is_ssh(self.port) else r.ports} is open to {r.who}" for r in self.kept)
        everyone = tuple(rule for rule in self.kept if rule.source in _EVERYONE and rule.protocol in _TCP)
        warnings = tuple(f"{rule.ports} is open to {rule.who}" for rule in everyone)
        inner = () if own else ("Rain's ports are open to the machines of this cluster",)
        return Reach((*opens, *inner), tuple(repairs), warnings, refused, remove)


def rain_rules(group: str) -> tuple[Rule, ...]:
    """Return the rules that open Rain's ports to the members of a group."""
    return tuple(Rule("tcp", first, last, group) for first, last in RAIN_PORTS)


def compare(have: tuple[Rule, ...], group: str, port: int, allow_ip: Iterable[str]) -> Difference:
    """Return how the rules of a group differ from what they should be.  Raises InputError for no network.

    SSH rules stay as they are until --allow-ip names others.
    """
    allowed, others = ssh_rules(port, allow_ip), [rule for rule in have if rule.source != group]
    ssh = [rule for rule in others if rule.is_ssh(port)]
    surplus = tuple(rule for rule in ssh if allowed and rule not in allowed)
    dangerous = tuple(rule for rule in others if rule.opens_rain)
    return Difference(
        group=group,
        port=port,
        missing=tuple(rule for rule in (*rain_rules(group), *allowed) if rule not in have),
        surplus=surplus,
        kept=tuple(rule for rule in others if rule not in (*surplus, *dangerous)),
        dangerous=dangerous,
        closed=not allowed and not ssh,
    )


def ssh_rules(port: int, allow_ip: Iterable[str]) -> tuple[Rule, ...]:
    """Return a rule for SSH from each network; an address is a network of one.  Raises InputError."""
    try:
        networks = dict.fromkeys(str(parse_network(text)) for text in allow_ip)
    except ValueError as error:
        message = f"--allow-ip: expected {error}"
        raise InputError(message, next_step="--allow-ip 203.0.113.7/32, for example") from error
    return tuple(Rule("tcp", port, port, network) for network in networks)


def will_open(port: int, allow_ip: tuple[str, ...]) -> Reach:
    """Return what a new group opens to whom."""
    rules = ssh_rules(port, allow_ip)
    who = [rule.who for rule in rules]
    who = who or ["the address from which Exoscale sees this machine, and to nobody else"]
    ssh = (f"SSH (tcp {port}) opens to {each}" for each in who)
    return Reach((*ssh, "Rain's ports open to the machines of this cluster, and to nobody else"))
