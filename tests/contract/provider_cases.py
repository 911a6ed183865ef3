"""What the provider suite must know of each provider beyond its protocol."""

from __future__ import annotations

import getpass
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rain_deploy.core.model import Cluster, Host, ResourceRef
from rain_deploy.core.spec import ClusterSpec
from rain_deploy.providers.base import Provider
from rain_deploy.providers.hosts import HostsProvider
from rain_deploy.providers.local import LocalProvider
from rain_deploy.providers.local_processes import pids_of
from tests.contract.servers import ADDRESS, Sshds


@dataclass(frozen=True, slots=True)
class ProviderCase:
    """``crash`` kills a machine's SSH server; ``left`` names what of a host can still be seen."""

    provider: Provider
    spec: ClusterSpec
    cluster: Cluster
    crash: Callable[[ResourceRef], None]
    left: Callable[[Host], tuple[str, ...]]
    clean: Callable[[], None]

    def up(self, nodes: int) -> tuple[ResourceRef, ...]:
        """Create the cluster's machines."""
        return tuple(map(self.provider.create, self.provider.intents(self.spec, self.cluster, nodes)))


def local_case(home: Path) -> ProviderCase:
    provider = LocalProvider(home)
    cluster = Cluster(id=f"suite-{home.name}", name="suite", provider="local", created_s=0.0)

    def crash(ref: ResourceRef) -> None:
        for pid in pids_of(_node(ref.cluster_id, ref.name)):
            os.kill(pid, signal.SIGKILL)

    def left(host: Host) -> tuple[str, ...]:
        node = _node(cluster.id, host.name)
        with socket.socket() as probe:
            listening = probe.connect_ex((host.address, host.port)) == 0
        return (
            *(f"process {pid}" for pid in pids_of(node)),
            *((f"port {host.port}",) if listening else ()),
            *(str(path) for path in (home / "local").rglob("*") if cluster.id in path.parts),
        )

    def clean() -> None:
        for ref in provider.list("owner"):
            provider.delete(ref)

    return ProviderCase(provider, ClusterSpec("suite", "local", "test"), cluster, crash, left, clean)


def hosts_case(home: Path, machines: Sshds) -> ProviderCase:
    """SSH servers of this machine that the user knows; they are not the provider's to end or to start."""
    (home / ".ssh").mkdir()
    (home / ".ssh" / "config").write_text(f"Host *\n  IdentityFile {machines.key}\n", encoding="utf-8")
    known = [machines.known_line(server, "ed25519") for server in machines.servers]
    (home / ".ssh" / "known_hosts").write_text("".join(known), encoding="utf-8")
    entries = tuple(f"{getpass.getuser()}@{ADDRESS}:{server.port}" for server in machines.servers)
    return ProviderCase(
        HostsProvider(user_home=home),
        ClusterSpec("suite", "hosts", "test", nodes=len(entries), hosts=entries),
        Cluster(id="suite", name="suite", provider="hosts", created_s=0.0),
        crash=lambda _: None,
        left=lambda _: (),
        clean=lambda: None,
    )


def _node(cluster_id: str, name: str) -> str:
    return f"{cluster_id}/{name.removeprefix('node-')}"
