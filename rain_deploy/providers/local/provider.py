"""Nodes on this machine: each is an SSH server with its own loopback address and its own directory."""

import os
import platform
import shutil
import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from rain_deploy.core.cluster import Cluster, Traits
from rain_deploy.core.machine import Host, Intent, Resource, node_index
from rain_deploy.core.spec import ClusterSpec
from rain_deploy.errors import InputError, RainDeployError, StateError, Unreachable, disk_full
from rain_deploy.providers.keys import cluster_key, public_key
from rain_deploy.providers.local.server import (
    PORT,
    LocalServer,
    end_processes,
    existing,
    pids_of,
    remove_tree,
    user_name,
)

KIND = "node"
DISK_BYTES = 64 << 20  # free space needed for keys, logs and a small run; the installation needs more
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
        server = LocalServer(self._root, intent.cluster_id, node_index(intent.name))
        server.prepare(public_key(cluster_key(self._home, intent.cluster_id)))
        server.ensure()
        return self._resource(server)

    def settle(self, cluster: Cluster, resources: tuple[Resource, ...]) -> Mapping[str, RainDeployError]:
        del cluster, resources
        return {}

    def hosts(self, cluster: Cluster, resources: tuple[Resource, ...]) -> tuple[Host, ...]:
        deadline = time.monotonic() + READY_S
        hosts = []
        for node in sorted((each for each in resources if each.kind == KIND), key=lambda each: each.index):
            server = LocalServer(self._root, node.cluster_id, node.index)
            while not server.answers():
                alive = server.alive()
                if alive and time.monotonic() < deadline:
                    time.sleep(POLL_S)
                    continue
                if not alive and server.answers():
                    break  # another command started it between the two checks
                how = f"did not answer within {READY_S:g} s" if alive else "has ended"
                log = server.directory / "server.log"
                raise Unreachable(
                    f"{node.name}: its SSH server on {server.address} {how}",
                    node=node.name,
                    next_step=f"rain-deploy up -c {cluster.name}",
                    details=log.read_text(encoding="utf-8", errors="replace")[-2000:] if log.exists() else "",
                )
            host, host_key = self._host(node.name, server.address), public_key(server.directory / "host_key")
            key = cluster_key(self._home, node.cluster_id)
            hosts.append(replace(host, host_keys=(host_key,), identity_files=(key,)))
        return tuple(hosts)

    def preview(self, intents: tuple[Intent, ...]) -> tuple[Host, ...]:
        """Return hosts at 127.0.0.1: their addresses are chosen when they are made."""
        return tuple(self._host(intent.name, "127.0.0.1") for intent in intents)

    def list(self, owner: str) -> tuple[Resource, ...]:
        """Return the nodes of this home that have a directory or a living process; a home has one owner."""
        del owner
        return tuple(self._resource(LocalServer(self._root, *node)) for node in existing(self._root))

    def ended(self, cluster: Cluster, name: str) -> bool:
        return not pids_of(LocalServer(self._root, cluster.id, node_index(name)).node)

    def start(self, ref: Resource) -> None:
        self.create(Intent(ref.cluster_id, "", KIND, ref.name))

    def delete(self, ref: Resource) -> None:
        """End every process of the node and remove its files; with the last node, the cluster's files too."""
        server = LocalServer(self._root, ref.cluster_id, ref.index)
        end_processes(server.node)
        with self._removing:  # nodes are deleted in parallel, and one of them is the last
            remove_tree(server.directory)
            if server.directory.exists():
                why = f"{server.directory} cannot be removed: it may hold files of another user"
                raise StateError(why, next_step="remove it as root, then type the command again")
            if not any(each.name.isdigit() for each in server.directory.parent.glob("*/")):
                remove_tree(server.directory.parent)
                remove_tree(self._base / "clusters" / ref.cluster_id)

    def _resource(self, server: LocalServer) -> Resource:
        ref = f"{server.address}:{PORT}" if server.directory.exists() else ""
        return Resource(server.cluster_id, KIND, f"node-{server.index}", ref)

    def _host(self, name: str, address: str) -> Host:
        return Host(
            name=name,
            address=address,
            port=PORT,
            user=user_name(),
            host_keys=(),
            cluster_address=address,
            base=str(self._base),
            installer_env=installer_environment(dict(os.environ), Path.home()),
        )


def installer_environment(environ: dict[str, str], home: Path) -> tuple[tuple[str, str], ...]:
    """Return the caller's variables for the installer: certificates, package indexes, caches in its HOME."""
    passed = {
        name: value
        for name, value in environ.items()
        if name.isidentifier()  # a shell exports no other names
        and (name in _PASSED_ON_NAMES or name.startswith(_PASSED_ON) or name.lower().endswith("_proxy"))
    }
    for name, directory in _HOME_CACHES:
        if name == "UV_CACHE_DIR" or (home / directory).is_dir():
            passed.setdefault(name, str(home / directory))
    return tuple(sorted(passed.items()))


def _is_root() -> bool:
    sudo = shutil.which("sudo")
    return os.geteuid() == 0 or (
        sudo is not None
        and subprocess.run([sudo, "-n", "true"], capture_output=True, check=False).returncode == 0
    )
