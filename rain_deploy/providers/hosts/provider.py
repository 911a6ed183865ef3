"""Uses machines that the user already has, and never powers them off or deletes them.

``create`` only records how a machine is reached (address, user, keys, jumps), so that a later change of the
user's OpenSSH configuration does not move a living cluster.  Only ``preflight`` asks the network, to resolve
names; a dry run leaves it out and opens no socket.
"""

import socket
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import cattrs.preconf.json
from cattrs.errors import ForbiddenExtraKeysError

from rain_deploy import workers
from rain_deploy.core.cluster import Cluster, Traits
from rain_deploy.core.machine import Host, Intent, Jump, Resource, node_name
from rain_deploy.core.spec import ClusterSpec
from rain_deploy.core.text import count, parse_peer_address
from rain_deploy.errors import HostKeyError, InputError, RainDeployError, StateError
from rain_deploy.providers.hosts.openssh_config import (
    Destination,
    bare_keys,
    known_keys,
    look_up,
    why_unknown,
)

RESOLVE_DEADLINE_S = 15.0
PARALLEL = 16
KIND = "host"

_JSON = cattrs.preconf.json.make_converter(detailed_validation=False, forbid_extra_keys=True)
_JSON.register_unstructure_hook(Path, str)
_JSON.register_structure_hook(Path, lambda value, _: Path(value))


class HostsProvider:
    """Implements ``providers.base.Provider``; ``user_home`` (or the home directory) holds OpenSSH's files."""

    traits = Traits(owned=False, installs_packages=True, needs_wall=True, shared_machine=False)
    cloud = None

    def __init__(self, *, user_home: Path | None = None) -> None:
        self._home = user_home or Path.home()

    def preflight(self, spec: ClusterSpec) -> tuple[str, ...]:
        """Check that every entry in use resolves, has a known key, and is named once."""
        entries = _used(spec.machines.hosts, spec.nodes or 1)
        for entry, address in spec.machines.host_addresses:
            try:
                parse_peer_address(address)
            except ValueError as error:
                raise InputError(f"host entry {entry!r}: expected {error}") from error
        machines = workers.results(lambda entry: self._check(entry, spec.host_keys), entries, PARALLEL)
        first: dict[object, str] = {}
        for entry, machine in zip(entries, machines, strict=True):
            if (other := first.setdefault(machine, entry)) != entry:
                raise InputError(f"host entries {other!r} and {entry!r} are the same machine")
        if spec.machines.trust_networks:
            networks = ", ".join(spec.machines.trust_networks)
            return (f"every machine in {networks} can reach the Rain ports and run code on the nodes",)
        return ("a packet filter on each machine closes the Rain ports to all but the cluster's machines",)

    def intents(self, spec: ClusterSpec, cluster: Cluster, nodes: int) -> tuple[Intent, ...]:
        """Return one intent per machine.  Raises InputError if a living node would become another machine."""
        living = tuple(node.host.label for node in cluster.nodes)
        entries = _used(spec.machines.hosts or living, nodes)
        for number, (old, new) in enumerate(zip(living, entries, strict=False), start=1):
            if old != new:
                raise InputError(
                    f"node-{number} of cluster {cluster.name} is {old}, but host entry {number} is now {new}",
                    next_step="keep the entries of the living cluster in front, in their order",
                )
        keys = str(spec.host_keys.absolute()) if spec.host_keys else ""
        intent = Intent(cluster.id, cluster.name, KIND, "", machines=spec.machines, host_keys=keys)
        return tuple(
            replace(intent, name=node_name(number), entry=entry)
            for number, entry in enumerate(entries, start=1)
        )

    def create(self, intent: Intent, ref: str = "", *, unsettled_s: float | None = None) -> Resource:
        """Record how the machine is reached.  Without a known key, every connection to it is refused."""
        del ref, unsettled_s
        return Resource(intent.cluster_id, KIND, intent.name, _JSON.dumps(self._host(intent)))

    def settle(self, cluster: Cluster, resources: tuple[Resource, ...]) -> Mapping[str, RainDeployError]:
        del cluster, resources
        return {}

    def hosts(self, cluster: Cluster, resources: tuple[Resource, ...]) -> tuple[Host, ...]:
        """Return the recorded hosts.  Raises StateError for a record that is not readable."""
        del cluster
        hosts = []
        for resource in (each for each in resources if each.kind == KIND and each.ref):
            try:
                hosts.append(_JSON.loads(resource.ref, Host))
            except (ValueError, TypeError, KeyError, AttributeError, ForbiddenExtraKeysError) as error:
                message = f"the record of {resource.name} cannot be read: {error}"
                raise StateError(message, node=resource.name) from error
        return tuple(sorted(hosts, key=lambda host: host.index))

    def preview(self, intents: tuple[Intent, ...]) -> tuple[Host, ...]:
        return tuple(map(self._host, intents))

    def list(self, owner: str) -> tuple[Resource, ...]:
        """Return nothing: no machine here was made by this tool."""
        del owner
        return ()

    def ended(self, cluster: Cluster, name: str) -> bool:
        del cluster, name
        return False

    def start(self, ref: Resource) -> None:
        """Do nothing: the user starts the machine."""

    def delete(self, ref: Resource) -> None:
        """Do nothing: the machine is the user's."""

    def _host(self, intent: Intent) -> Host:
        destination = look_up(intent.entry, self._home)
        key_file = Path(intent.host_keys) if intent.host_keys else None
        return Host(
            name=intent.name,
            address=destination.address,
            port=destination.port,
            user=destination.user,
            host_keys=_keys(destination, key_file),
            label=intent.entry,
            identity_files=destination.identity_files,
            certificate_files=destination.certificate_files,
            use_agent=destination.use_agent,
            identities_only=destination.identities_only,
            jumps=tuple(
                Jump(
                    hop.address,
                    hop.port,
                    hop.user,
                    hop.identity_files,
                    _keys(hop, key_file, jump=True),
                    hop.certificate_files,
                    hop.identities_only,
                )
                for hop in destination.jumps
            ),
            cluster_address=dict(intent.machines.host_addresses).get(intent.entry),
        )

    def _check(self, entry: str, key_file: Path | None) -> object:
        """Return what tells machines apart.  Raises InputError and HostKeyError, which name the entry."""
        destination = look_up(entry, self._home)
        ways = (*destination.jumps, destination)
        first = ways[0]
        addresses = _resolve(first.address, entry)
        for way in ways:
            last = way is destination
            if _keys(way, key_file, jump=not last):
                continue
            name = entry if last else f"{entry} (its jump host {way.address})"
            why, step = why_unknown(way)
            if last and key_file:
                why = f"its host key is not in {key_file}, or is revoked there"
                step = f"add its key to {key_file}"
            raise HostKeyError(f"{name}: {why}", next_step=step)
        machine = addresses if first is destination else destination.address
        hops = tuple((hop.address, hop.port) for hop in destination.jumps)
        return hops, machine, destination.port, destination.user


def _used(entries: tuple[str, ...], nodes: int) -> tuple[str, ...]:
    """Return the first ``nodes`` entries.  Raises InputError if there are fewer."""
    if not entries:
        message = "no machine is named"
        raise InputError(message, next_step="name them: --hosts user@host,user@host or --hosts FILE")
    if len(entries) < nodes:
        message = f"{count(nodes, 'node')} asked for, but --hosts names {len(entries)}: {', '.join(entries)}"
        raise InputError(message)
    return entries[:nodes]


def _keys(destination: Destination, key_file: Path | None, *, jump: bool = False) -> tuple[str, ...]:
    """Return the known keys.  Bare keys of ``key_file`` fit every machine but jump hosts."""
    named = known_keys(destination, (key_file,)) if key_file else ()
    if key_file and not jump:
        return tuple(dict.fromkeys([*named, *bare_keys(key_file)]))
    return named or known_keys(destination, destination.known_hosts)


def _resolve(name: str, entry: str) -> frozenset[str]:
    """Return the addresses of ``name``.  The resolver has no deadline of its own."""

    def ask() -> frozenset[str]:
        rows = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        return frozenset(str(row[4][0]) for row in rows)

    try:
        return workers.within(RESOLVE_DEADLINE_S, ask)
    except (OSError, UnicodeError) as error:  # UnicodeError: a label longer than DNS allows
        why = getattr(error, "strerror", None) or str(error) or f"no answer within {RESOLVE_DEADLINE_S:.0f} s"
        raise InputError(
            f"host entry {entry!r}: {name} does not resolve ({why})",
            next_step="name a machine as user@host[:port] or as in ~/.ssh/config, or a hosts file as ./FILE",
        ) from error
