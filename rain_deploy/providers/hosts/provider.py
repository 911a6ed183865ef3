"""Machines that the user already has: taken as they are, never powered off, never deleted.

``create`` makes nothing: it fixes how a machine is reached (address, user, keys, jumps) in the reference
that state records, so a later change of the user's OpenSSH configuration does not move a living cluster.
Only ``preflight`` asks the network (name resolution); a dry run that leaves it out opens no socket.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import json
import queue
import socket
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rain_deploy.core.cluster import Cluster, Traits
from rain_deploy.core.machine import Host, Intent, Jump, Resource
from rain_deploy.core.spec import ClusterSpec
from rain_deploy.errors import HostKeyError, InputError, RainDeployError, StateError
from rain_deploy.providers.hosts.openssh_config import Destination, bare_keys, known_keys, look_up

RESOLVE_DEADLINE_S = 15.0
AT_ONCE = 16
"""Entries that are looked up at the same time."""
KIND = "host"


class HostsProvider:
    """``user_home`` is where OpenSSH's files of the user are looked for; None: the home directory."""

    def __init__(self, *, user_home: Path | None = None) -> None:
        self._home = user_home or Path.home()

    cloud = None

    @property
    def traits(self) -> Traits:
        return Traits(
            priced=False, owned=False, installs_packages=True, needs_wall=True, shared_machine=False
        )

    def preflight(self, spec: ClusterSpec) -> tuple[str, ...]:
        """Every entry that is used resolves, has a known key, and is named once."""
        entries = _used(spec.machines.hosts, spec.nodes or 1)
        for entry, address in spec.machines.host_addresses:
            _check_address(entry, address)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            places = pool.map(lambda entry: self._check(entry, spec.host_keys), entries)
            seen: dict[object, str] = {}
            for entry, place in zip(entries, places, strict=True):
                if place in seen:
                    raise InputError(f"host entries {seen[place]!r} and {entry!r} are the same machine")
                seen[place] = entry
        if spec.machines.trust_networks:
            networks = ", ".join(spec.machines.trust_networks)
            return (f"every machine in {networks} can reach the Rain ports: it can run code on the nodes",)
        return ("Rain ports are closed to all but the cluster's machines, by a filter table of ours on each",)

    def intents(self, spec: ClusterSpec, cluster: Cluster, nodes: int) -> tuple[Intent, ...]:
        """One per machine, first entries first.  Raises InputError where a living node is another machine."""
        living = tuple(node.host.label for node in cluster.nodes)
        entries = _used(spec.machines.hosts or living, nodes)
        for number, (was, now) in enumerate(zip(living, entries, strict=False), start=1):
            if was != now:
                raise InputError(
                    f"node-{number} of cluster {cluster.name} is {was}, but host entry {number} is now {now}",
                    next_step="keep the entries of the living cluster in front, in their order",
                )
        keys = str(spec.host_keys.absolute()) if spec.host_keys else ""
        return tuple(
            Intent(
                cluster_id=cluster.id,
                cluster=cluster.name,
                kind=KIND,
                name=f"node-{number}",
                machines=spec.machines,
                entry=entry,
                host_keys=keys,
            )
            for number, entry in enumerate(entries, start=1)
        )

    def create(self, intent: Intent, ref: str = "", *, unsettled_s: float | None = None) -> Resource:
        """Record how the machine is reached; nothing is done to it.

        A key that is not known leaves ``host_keys`` empty, with which every connection is refused.
        """
        del ref, unsettled_s
        destination = look_up(intent.entry, self._home)
        key_file = Path(intent.host_keys) if intent.host_keys else None
        host = Host(
            name=intent.name,
            address=destination.address,
            port=destination.port,
            user=destination.user,
            host_keys=_keys(destination, key_file),
            label=intent.entry,
            identity_files=destination.identity_files,
            use_agent=destination.use_agent,
            jumps=tuple(
                Jump(hop.address, hop.port, hop.user, hop.identity_files, _jump_keys(hop, key_file))
                for hop in destination.jumps
            ),
            cluster_address=dict(intent.machines.host_addresses).get(intent.entry),
        )
        return Resource(intent.cluster_id, KIND, intent.name, _to_text(host))

    def settle(self, cluster: Cluster, resources: tuple[Resource, ...]) -> Mapping[str, RainDeployError]:
        del cluster, resources
        return {}

    def hosts(
        self,
        cluster: Cluster,  # noqa: ARG002  the references hold all
        resources: tuple[Resource, ...],
    ) -> tuple[Host, ...]:
        """From the references alone.  Raises StateError for one that is not ours."""
        made = (_from_text(ref) for ref in resources if ref.kind == KIND and ref.ref)
        return tuple(sorted(made, key=lambda host: host.index))

    def preview(self, intents: tuple[Intent, ...]) -> tuple[Host, ...]:
        """As they will be: everything about them is known before."""
        return tuple(_from_text(self.create(intent)) for intent in intents)

    def list(self, owner: str) -> tuple[Resource, ...]:  # noqa: ARG002  nothing is owned
        """Nothing: no machine here was made by this tool."""
        return ()

    def start(self, ref: Resource) -> None:
        """Nothing: whether it runs is the user's matter."""

    def delete(self, ref: Resource) -> None:
        """Nothing at the machine: it is the user's."""

    def _check(self, entry: str, key_file: Path | None) -> object:
        """What makes the machine distinct.  Raises InputError and HostKeyError, naming the entry."""
        destination = look_up(entry, self._home)
        first, *_ = (*destination.jumps, destination)
        addresses = _resolve(first.address, entry)
        for hop in destination.jumps:
            _demand(_jump_keys(hop, key_file), hop, f"{entry} (its jump host {hop.address})", None)
        _demand(_keys(destination, key_file), destination, entry, key_file)
        machine = addresses if first is destination else destination.address
        hops = tuple((hop.address, hop.port) for hop in destination.jumps)
        return hops, machine, destination.port, destination.user


def _used(entries: tuple[str, ...], nodes: int) -> tuple[str, ...]:
    if not entries:
        raise InputError(
            "no machine is named", next_step="name them: --hosts user@host,user@host or --hosts FILE"
        )
    if len(entries) < nodes:
        raise InputError(
            f"{nodes} nodes are asked for, but --hosts names {len(entries)}: {', '.join(entries)}"
        )
    return entries[:nodes]


def _check_address(entry: str, address: str) -> None:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError as error:
        raise InputError(f"host entry {entry!r}: address {address!r} is no IP address") from error
    if parsed.is_unspecified or parsed.is_multicast or (parsed.version == 6 and parsed.is_link_local):  # noqa: PLR2004
        raise InputError(f"host entry {entry!r}: no other machine can use the address {address}")


def _keys(destination: Destination, key_file: Path | None) -> tuple[str, ...]:
    """From --host-key alone where it is given; lines of it that name no host are for every machine."""
    if key_file is None:
        return known_keys(destination, destination.known_hosts)
    return tuple(dict.fromkeys([*known_keys(destination, (key_file,)), *bare_keys(key_file)]))


def _jump_keys(hop: Destination, key_file: Path | None) -> tuple[str, ...]:
    """--host-key may name a jump host; else it is one that the user knows."""
    named = known_keys(hop, (key_file,)) if key_file else ()
    return named or known_keys(hop, hop.known_hosts)


def _demand(keys: tuple[str, ...], destination: Destination, what: str, key_file: Path | None) -> None:
    if keys:
        return
    where = key_file or "your known_hosts"
    step = (
        f"add its key to {key_file}"
        if key_file
        else f"run `{destination.command}` once, and check the key it shows"
    )
    raise HostKeyError(f"{what}: its host key is not in {where}, or is revoked there", next_step=step)


def _resolve(name: str, entry: str) -> frozenset[str]:
    """Addresses of ``name``.  The resolver has no deadline of its own, so a thread is left to it."""
    answer: queue.Queue[frozenset[str] | OSError] = queue.Queue()

    def ask() -> None:
        try:
            rows = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
            answer.put(frozenset(str(row[4][0]) for row in rows))
        except (OSError, UnicodeError) as error:  # UnicodeError: a label longer than DNS allows
            answer.put(OSError(str(error)))

    threading.Thread(target=ask, daemon=True).start()
    try:
        found = answer.get(timeout=RESOLVE_DEADLINE_S)
    except queue.Empty:
        found = OSError(f"no answer within {RESOLVE_DEADLINE_S:.0f} s")
    if isinstance(found, OSError):
        raise InputError(
            f"host entry {entry!r}: {name} does not resolve ({found.strerror or found})",
            next_step="name a machine as user@host[:port] or as OpenSSH knows it, or a hosts file as ./FILE",
        ) from found
    return found


def _to_text(host: Host) -> str:
    return json.dumps(dataclasses.asdict(host), default=str, sort_keys=True)


def _from_text(ref: Resource) -> Host:
    try:
        row = json.loads(ref.ref)
        jumps = tuple(Jump(**_tuples(jump)) for jump in row.pop("jumps"))
        return Host(jumps=jumps, **_tuples(row))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise StateError(f"the record of {ref.name} cannot be read: {error}", node=ref.name) from error


def _tuples(row: dict[str, Any]) -> dict[str, Any]:
    """JSON's lists as the dataclasses' tuples, files as paths."""
    files = row.get("identity_files")
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
    return {**values, "identity_files": tuple(map(Path, files))} if isinstance(files, list) else values
