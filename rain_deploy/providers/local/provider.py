"""Nodes on this machine: each an SSH server of its own with a loopback address and a directory of its own."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from rain_deploy.core.cluster import Cluster, Traits
from rain_deploy.core.machine import Host, Intent, Resource
from rain_deploy.core.spec import ClusterSpec
from rain_deploy.errors import InputError, RainDeployError, Unreachable, disk_full
from rain_deploy.providers.keys import cluster_key, public_key
from rain_deploy.providers.local.processes import VARIABLE, end_processes, environments
from rain_deploy.providers.local.server import PORT, LocalServer, user_name

__all__ = ["LocalProvider", "cluster_key"]

KIND = "node"
DISK_BYTES = 64 << 20
"""Must be free for keys, logs and a small run; what is installed comes on top."""
READY_S = 20.0
POLL_S = 0.01
_PASSED_ON = ("SSL_CERT_", "PIP_", "UV_", "CARGO_", "RUSTUP_")
_PASSED_ON_NAMES = {"PATH", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"}
_HOME_CACHES = (("UV_CACHE_DIR", ".cache/uv"), ("CARGO_HOME", ".cargo"), ("RUSTUP_HOME", ".rustup"))


class LocalProvider:
    """Implements ``providers.base.Provider`` in ``home`` (RAIN_DEPLOY_HOME)."""

    traits = Traits(owned=True, installs_packages=False, needs_wall=False, shared_machine=True)
    cloud = None

    def __init__(self, home: Path) -> None:
        self._home = home.absolute()
        self._base = self._home / "local"
        self._root = self._base / "nodes"
        self._removing = threading.Lock()

    def preflight(self, spec: ClusterSpec) -> tuple[str, ...]:
        system, machine = platform.system(), platform.machine()
        if (system, machine) != ("Linux", "x86_64"):
            message = f"provider local needs x86-64 Linux, this is {system} {machine}"
            raise InputError(message, next_step="rain-deploy up --provider hosts --hosts user@machine")
        free = shutil.disk_usage(self._home).free
        if free < DISK_BYTES:
            why = f"has {free / 1e6:.1f} MB free, and local nodes need {DISK_BYTES / 1e6:.0f} MB"
            raise disk_full(self._home, why)
        keys = [key for key in ("apt", "setup") if getattr(spec.environment, key)]
        if keys and not _is_root():
            message = f"{' and '.join(keys)}: needs root, and {user_name()} has no passwordless sudo here"
            raise InputError(message, next_step=f"leave {' and '.join(keys)} out of the config file")
        return ("local nodes share this machine: its other users can reach Rain's ports on 127.0.0.0/8",)

    def intents(self, spec: ClusterSpec, cluster: Cluster, nodes: int) -> tuple[Intent, ...]:
        del spec
        return tuple(Intent(cluster.id, cluster.name, KIND, f"node-{index}") for index in range(1, nodes + 1))

    def create(self, intent: Intent, ref: str = "", *, unsettled_s: float | None = None) -> Resource:
        del ref, unsettled_s
        server = self._server(intent.cluster_id, intent.name)
        server.prepare(public_key(cluster_key(self._home, intent.cluster_id)))
        server.ensure()
        return Resource(intent.cluster_id, KIND, intent.name, f"{server.address}:{PORT}")

    def settle(self, cluster: Cluster, resources: tuple[Resource, ...]) -> Mapping[str, RainDeployError]:
        del cluster, resources
        return {}

    def hosts(self, cluster: Cluster, resources: tuple[Resource, ...]) -> tuple[Host, ...]:
        deadline = time.monotonic() + READY_S
        nodes = sorted((ref for ref in resources if ref.kind == KIND), key=lambda ref: _index(ref.name))
        hosts = []
        for ref in nodes:
            server = self._server(ref.cluster_id, ref.name)
            _wait_for(server, ref.name, cluster.name, deadline)
            hosts.append(self._host(server, ref))
        return tuple(hosts)

    def preview(self, intents: tuple[Intent, ...]) -> tuple[Host, ...]:
        """With an address that is chosen when they are made."""
        environment = installer_environment(dict(os.environ), Path.home())
        return tuple(
            Host(
                name=intent.name,
                address="127.0.0.1",
                port=PORT,
                user=user_name(),
                host_keys=(),
                cluster_address="127.0.0.1",
                base=str(self._base),
                installer_env=environment,
            )
            for intent in intents
        )

    def list(self, owner: str) -> tuple[Resource, ...]:
        """Nodes of this home, by directory or by a living process; a home has one owner."""
        del owner
        found = sorted({*self._in_directories(), *self._in_processes()})
        return tuple(self._ref(cluster_id, index) for cluster_id, index in found)

    def start(self, ref: Resource) -> None:
        self.create(Intent(ref.cluster_id, "", KIND, ref.name))

    def delete(self, ref: Resource) -> None:
        """Ends every process of the node; with a cluster's last node all that the cluster wrote goes too."""
        server = self._server(ref.cluster_id, ref.name)
        end_processes(server.node)
        with self._removing:  # nodes are deleted at the same time, and one of them is the last
            server.remove()
            if not any(cluster_id == ref.cluster_id for cluster_id, _ in self._in_directories()):
                shutil.rmtree(self._root / ref.cluster_id, ignore_errors=True)
                shutil.rmtree(self._base / "clusters" / ref.cluster_id, ignore_errors=True)

    def _server(self, cluster_id: str, name: str) -> LocalServer:
        return LocalServer(self._root, cluster_id, _index(name))

    def _ref(self, cluster_id: str, index: int) -> Resource:
        server = LocalServer(self._root, cluster_id, index)
        ref = f"{server.address}:{PORT}" if server.directory.exists() else ""
        return Resource(cluster_id, KIND, f"node-{index}", ref)

    def _host(self, server: LocalServer, ref: Resource) -> Host:
        return Host(
            name=ref.name,
            address=server.address,
            port=PORT,
            user=user_name(),
            host_keys=(server.host_key,),
            identity_files=(cluster_key(self._home, ref.cluster_id),),
            cluster_address=server.address,
            base=str(self._base),
            installer_env=installer_environment(dict(os.environ), Path.home()),
        )

    def _in_directories(self) -> Iterator[tuple[str, int]]:
        for directory in self._root.glob("*/*/"):
            if directory.name.isdigit():
                yield directory.parent.name, int(directory.name)

    def _in_processes(self) -> Iterator[tuple[str, int]]:
        for _, environment in environments():
            cluster_id, _, index = environment.get(VARIABLE, "").rpartition("/")
            # Clusters of other homes have the same variable; their processes live in another directory.
            ours = environment.get("HOME", "").startswith(f"{self._root}/{cluster_id}/")
            if cluster_id and index.isdigit() and ours:
                yield cluster_id, int(index)


def installer_environment(environ: dict[str, str], home: Path) -> tuple[tuple[str, str], ...]:
    """What the installer needs of the caller: certificates, package indexes, caches, since HOME differs."""
    passed = {name: value for name, value in environ.items() if _is_passed_on(name)}
    for name, directory in _HOME_CACHES:
        if name == "UV_CACHE_DIR" or (home / directory).is_dir():
            passed.setdefault(name, str(home / directory))
    return tuple(sorted(passed.items()))


def _is_passed_on(name: str) -> bool:
    wanted = name in _PASSED_ON_NAMES or name.startswith(_PASSED_ON) or name.lower().endswith("_proxy")
    return wanted and name.isidentifier()  # no shell exports another


def _wait_for(server: LocalServer, name: str, cluster: str, deadline: float) -> None:
    while not server.answers():
        alive = server.alive()
        if alive and time.monotonic() < deadline:
            time.sleep(POLL_S)
            continue
        if not alive and server.answers():
            return  # it came up, by another starter, between the two looks
        how = f"did not answer within {READY_S:g} s" if alive else "has ended"
        raise Unreachable(
            f"{name}: its SSH server on {server.address} {how}",
            node=name,
            next_step=f"rain-deploy up -c {cluster}",
            details=server.log_end(),
        )


def _is_root() -> bool:
    if os.geteuid() == 0:
        return True
    sudo = shutil.which("sudo")
    return (
        sudo is not None
        and subprocess.run([sudo, "-n", "true"], capture_output=True, check=False).returncode == 0
    )


def _index(name: str) -> int:
    return int(name.rpartition("-")[2])
