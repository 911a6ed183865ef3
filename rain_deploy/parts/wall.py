"""The packet filter of machines that the user brings: only the cluster reaches its Rain ports.

Whoever reaches a Rain port can run code.  There is one nftables table of ours per cluster and machine; the
machine's own rules are neither read nor changed.  The table belongs to the running kernel: after a reboot, or
after somebody flushed the whole rule set, the next ``up`` puts it back.
"""

import hashlib
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address

from rain_deploy.core.cluster import Cluster, Node
from rain_deploy.core.layout import HTTP_PORT, IDLE_PORT, RUN_PORTS, Layout, governor_port
from rain_deploy.core.machine import Facts, Host
from rain_deploy.core.step import Stage, Step
from rain_deploy.core.text import Address, parse_address, parse_network
from rain_deploy.errors import InputError
from rain_deploy.parts.part import Part, facts_of
from rain_deploy.parts.shell import render, step

LOOPBACK = "127.0.0.1"


class Wall(Part):
    """The packet filter.  It is looked at by every ``up``, because facts do not say whether it stands."""

    stage_name = "wall"

    def __init__(self, cluster: Cluster, trust: tuple[str, ...]) -> None:
        addresses = {node.name: node.cluster_address for node in cluster.nodes}
        self._refused: tuple[InputError, ...] = ()
        self._steps: tuple[Step, ...] = ()
        try:
            if needs_wall(addresses, {node.name: facts_of(node) for node in cluster.nodes}, trust):
                self._steps = wall_steps(Layout(cluster.base, cluster.id), addresses)
        except InputError as error:
            self._refused = (error,)

    def refusals(self, node: Node) -> tuple[InputError, ...]:
        return self._refused

    def lacks(self, node: Node) -> str | None:
        return "a packet filter table of ours will close the Rain ports" if self._steps else None

    def stage(self, node: Node) -> Stage:
        return Stage(self.stage_name, self._steps)


def cluster_addresses(
    hosts: tuple[Host, ...], facts: Mapping[str, Facts], trust: tuple[str, ...]
) -> dict[str, str]:
    """Return each node's address for the others: the hosts file's, else the source of its route to node-1."""
    walled = bool(trust) or all(fact.root for fact in facts.values())
    # Several SSH servers may be one machine, and copies of one disk share the id.
    machines = {(fact.machine_id, fact.hostname, fact.route_address) for fact in facts.values()}
    alone = len(machines) == 1 and not walled  # then it keeps to loopback
    return {
        host.name: host.cluster_address
        or (LOOPBACK if alone else facts[host.name].route_address or host.address)
        for host in hosts
    }


def needs_wall(addresses: Mapping[str, str], facts: Mapping[str, Facts], trust: tuple[str, ...]) -> bool:
    """Return True if the machines must get the table; ``addresses`` and ``facts`` are by node name.

    Not needed where only the machine itself reaches the addresses, or where they lie in a trusted network.
    Raises InputError where it is needed and a host has no root, and for loopback mixed with other addresses.
    """
    networks = tuple(map(parse_network, trust))
    parsed = {name: _address(name, text) for name, text in addresses.items()}
    inner = [name for name, address in parsed.items() if address.is_loopback]
    if len(inner) == len(parsed):
        return False
    if inner:
        raise InputError(
            f"{', '.join(inner)} has the address {addresses[inner[0]]}, which no other machine reaches",
            node=inner[0],
            next_step="rain-deploy down, then up with all machines; or another address= in the hosts file",
        )
    outside = [name for name, address in parsed.items() if not any(address in net for net in networks)]
    if not outside:
        return False
    powerless = [name for name in parsed if not facts[name].root]
    if powerless:
        missed = f" ({', '.join(trust)} does not contain {addresses[outside[0]]})" if trust else ""
        raise InputError(
            f"the Rain ports would be open to every machine that reaches {', '.join(powerless)}: there is no "
            f"root for a packet filter there, and no trusted network is named{missed}",
            node=powerless[0],
            next_step="use accounts with root or passwordless sudo, or, if nobody else is in that network, "
            f"--trust-network {_narrowest(parsed.values())}",
        )
    return True


def wall_steps(layout: Layout, addresses: Mapping[str, str]) -> tuple[Step, ...]:
    """Return the steps that put the table there, which lets in ``addresses``; the same for every machine."""
    peers, nodes = sorted(set(map(parse_address, addresses.values())), key=int), len(addresses)
    # Only as far as there are nodes, so that no other service is closed:
    governors = f"{governor_port(1)}-{governor_port(nodes)}" if nodes > 1 else governor_port(1)
    table = f"rain_deploy_{layout.cluster_id}"
    text = render(
        "wall.nft.j2",
        table=table,
        v4=[ip for ip in peers if isinstance(ip, IPv4Address)],
        v6=[ip for ip in peers if isinstance(ip, IPv6Address)],
        ports=[IDLE_PORT, HTTP_PORT, f"{RUN_PORTS.start}-{RUN_PORTS.stop - 1}", governors],
    )
    present = 'PATH="$PATH:/usr/sbin:/sbin"; command -v nft'  # not on the path of users in Debian
    nft = step("nftables", "apt.sh.j2", packages=("nftables",), present=present)
    place, sha256 = f"{layout.cluster}/wall", hashlib.sha256(text.encode()).hexdigest()
    return nft, step("wall", "wall.sh.j2", makes=place, sha256=sha256, text=text, table=table)


def wall_removal_step(cluster_id: str) -> Step:
    """Return the step that removes our table and checks that; nothing to do without root or nft."""
    return step("wall", "wall-remove.sh.j2", table=f"rain_deploy_{cluster_id}")


def _address(node: str, text: str) -> Address:
    try:
        return parse_address(text)
    except ValueError as error:
        message = f"{node}: {text!r} is not an IP address, so no packet filter can name it"
        raise InputError(message, next_step="write address=IP after its entry in the hosts file") from error


def _narrowest(addresses: Iterable[Address]) -> str:
    """Return the smallest network that holds all the addresses."""
    first, *rest = addresses
    network = parse_network(str(first))
    while not all(address in network for address in rest if address.version == first.version):
        network = network.supernet()
    return str(network)
