"""What the provider suite must know of each provider beyond its protocol."""

from __future__ import annotations

import getpass
import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rain_deploy.core.cluster import Cluster
from rain_deploy.core.machine import Host, Machines, Resource
from rain_deploy.core.spec import ClusterSpec
from rain_deploy.parts.machine import user_data
from rain_deploy.providers.base import Provider
from rain_deploy.providers.exoscale.account import Account
from rain_deploy.providers.exoscale.api import Api
from rain_deploy.providers.exoscale.patience import Patience
from rain_deploy.providers.exoscale.provider import ExoscaleProvider
from rain_deploy.providers.hosts.provider import HostsProvider
from rain_deploy.providers.local.provider import LocalProvider
from rain_deploy.providers.local.server import PORT as LIGHT_PORT
from rain_deploy.providers.local.server import pids_of
from tests.contract.servers import ADDRESS, Sshds
from tests.lab.lab import Lab
from tests.lab.light import LightMachines
from tests.support.waiting import LONG_S

NETWORK = "127.4"
"""First two numbers of the lab's addresses."""


@dataclass(frozen=True, slots=True)
class ProviderCase:
    """``crash`` kills a machine's SSH server; ``left`` names what of a host can still be seen."""

    provider: Provider
    spec: ClusterSpec
    cluster: Cluster
    crash: Callable[[Resource], None]
    left: Callable[[Host], tuple[str, ...]]
    clean: Callable[[], None]

    def up(self, nodes: int) -> tuple[Resource, ...]:
        """Create the cluster's machines and what they need; all of them run."""
        made = tuple(map(self.provider.create, self.provider.intents(self.spec, self.cluster, nodes)))
        assert self.provider.settle(self.cluster, made) == {}
        return made

    def hosts(self, refs: tuple[Resource, ...]) -> tuple[Host, ...]:
        """The machines, once each answers: a provider knows its addresses before that."""
        hosts = self.provider.hosts(self.cluster, refs)
        deadline = time.monotonic() + LONG_S
        for host in hosts:
            while not _answers(host):
                assert time.monotonic() < deadline, f"{host.name} does not answer"
                time.sleep(0.02)
        return hosts

    def down(self, refs: tuple[Resource, ...]) -> None:
        """Delete them, the last made first."""
        for ref in reversed(refs):
            self.provider.delete(ref)


def machines(refs: tuple[Resource, ...]) -> tuple[Resource, ...]:
    """Without what machines need."""
    return tuple(ref for ref in refs if ref.name.startswith("node-"))


def local_case(home: Path) -> ProviderCase:
    provider = LocalProvider(home)
    cluster = Cluster(id=f"suite-{os.getpid()}-{home.name}", name="suite", provider="local", created_s=0.0)

    def crash(ref: Resource) -> None:
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


def exoscale_case(home: Path) -> ProviderCase:
    """The lab's account, whose instances are SSH servers of this machine."""
    light = LightMachines(home / "lab", network=NETWORK)
    lab = Lab(light, host=f"{NETWORK}.0.1", latency_s=0.02, ssh_port=LIGHT_PORT)
    lab.__enter__()
    account = Account(lab.key, lab.secret, lab.zone, lab.url, "the suite")
    provider = ExoscaleProvider(home, Api(account, patience=Patience(settle_s=2.0)), user_data, owner="owner")
    spec = ClusterSpec("suite", "exoscale", "test", machines=Machines(ssh_port=LIGHT_PORT))
    cluster = Cluster("0123456789", "suite", "exoscale", 0.0, machines=spec.machines, owner="owner")

    def crash(ref: Resource) -> None:
        instance = ref.ref.rpartition("/")[2]
        light.stop(instance)
        light.on_power_off(instance)

    def left(host: Host) -> tuple[str, ...]:
        processes = tuple(f"process {pid}" for pid in pids_of(f"light-{host.machine}/1"))
        files = tuple(str(path) for path in (home / "lab").rglob("*") if host.machine in path.parts)
        return (*processes, *files, *map(str, lab.left()))

    def clean() -> None:
        lab.__exit__()
        light.close()

    return ProviderCase(provider, spec, cluster, crash, left, clean)


def hosts_case(home: Path, machines: Sshds) -> ProviderCase:
    """SSH servers of this machine that the user knows; they are not the provider's to end or to start."""
    (home / ".ssh").mkdir()
    (home / ".ssh" / "config").write_text(f"Host *\n  IdentityFile {machines.key}\n", encoding="utf-8")
    known = [machines.known_line(server, "ed25519") for server in machines.servers]
    (home / ".ssh" / "known_hosts").write_text("".join(known), encoding="utf-8")
    entries = tuple(f"{getpass.getuser()}@{ADDRESS}:{server.port}" for server in machines.servers)
    return ProviderCase(
        HostsProvider(user_home=home),
        ClusterSpec("suite", "hosts", "test", nodes=len(entries), machines=Machines(hosts=entries)),
        Cluster(id="suite", name="suite", provider="hosts", created_s=0.0),
        crash=lambda _: None,
        left=lambda _: (),
        clean=lambda: None,
    )


def _answers(host: Host) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host.address, host.port)) == 0


def _node(cluster_id: str, name: str) -> str:
    return f"{cluster_id}/{name.removeprefix('node-')}"
