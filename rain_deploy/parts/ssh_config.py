"""The system's ssh for a cluster: a configuration file of its own, and the pinned host keys."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rain_deploy.core.machine import Host, Jump
from rain_deploy.parts.shell import render


@dataclass(frozen=True, slots=True)
class _Machine:
    """A Host block: a node, or a hop on the way to one."""

    name: str
    alias: str
    address: str
    port: int
    user: str
    identity_files: tuple[str, ...]
    use_agent: bool
    host_keys: tuple[str, ...]
    through: tuple[str, ...]


def ssh_config_text(cluster_id: str, hosts: tuple[Host, ...], known_hosts_file: Path) -> str:
    """Return text for ``ssh -F FILE node-1``; ``known_hosts_file`` has what ``known_hosts_text`` returns."""
    return render(
        "ssh_config.j2",
        cluster_id=cluster_id,
        machines=tuple(_machines(cluster_id, hosts)),
        known_hosts_file=_quoted(known_hosts_file),
    )


def known_hosts_text(cluster_id: str, hosts: tuple[Host, ...]) -> str:
    """Return lines ``alias keytype base64``: a key belongs to its machine, whose address may change."""
    return "".join(
        f"{machine.alias} {key}\n" for machine in _machines(cluster_id, hosts) for key in machine.host_keys
    )


def _machines(cluster_id: str, hosts: tuple[Host, ...]) -> Iterator[_Machine]:
    for host in hosts:
        hops = tuple(f"{host.name}-jump-{number}" for number, _ in enumerate(host.jumps, start=1))
        ways: tuple[tuple[str, Host | Jump], ...] = ((host.name, host), *zip(hops, host.jumps, strict=True))
        for name, way in ways:
            yield _Machine(
                name=name,
                alias=f"rain-deploy-{cluster_id}-{name}",
                address=way.address,
                port=way.port,
                user=way.user,
                identity_files=tuple(map(_quoted, way.identity_files)) or ("none",),
                use_agent=host.use_agent,
                host_keys=way.host_keys,
                through=hops if way is host else (),
            )


def _quoted(path: Path) -> str:
    """Return a path as one word of ssh_config, in which ``%`` starts a token."""
    text = str(path).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{text}"'
