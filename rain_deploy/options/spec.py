"""Settings -> ClusterSpec, with every file that it names looked at."""

from __future__ import annotations

import getpass
import hashlib
import os
import socket

from rain_deploy.core.spec import CloudSpec, ClusterSpec, EngineSpec, EnvironmentSpec
from rain_deploy.errors import InputError
from rain_deploy.options.settings import Settings
from rain_deploy.options.values import read


def cluster_spec(name: str, provider: tuple[str, str], settings: Settings, *, upgrade: bool) -> ClusterSpec:
    """The ClusterSpec of ``provider`` (its name, and why this one).  InputError."""
    listed = len(settings.hosts) if provider[0] == "hosts" else 0
    nodes = settings.nodes or listed or None
    _refuse_numbers(settings, nodes, listed)
    _refuse_files(settings)
    return ClusterSpec(
        name=name,
        provider=provider[0],
        provider_reason=provider[1],
        nodes=nodes,
        min_nodes=settings.min_nodes,
        cpus_per_node=settings.cpus_per_node,
        hosts=settings.hosts,
        host_addresses=settings.host_addresses,
        host_keys=settings.host_key,
        trust_networks=settings.trust_network,
        environment=EnvironmentSpec(
            requirements=settings.requirements,
            packages=settings.packages,
            wheels=settings.wheels,
            apt=settings.apt,
            setup=settings.setup,
            upgrade=upgrade,
        ),
        engine=EngineSpec(settings.engine_url, settings.engine_sha256),
        ssh_port=settings.ssh_port or 22,
        owner=owner(settings),
        cloud=cloud_spec(settings),
        keep_partial=bool(settings.keep_partial),
    )


def cloud_spec(settings: Settings) -> CloudSpec:
    """What is said about machines that cost money."""
    return CloudSpec(
        zone=settings.zone,
        instance_type=settings.instance_type,
        disk_size_gib=settings.disk_size,
        template=settings.template,
        allow_ip=settings.allow_ip,
        anti_affinity=bool(settings.anti_affinity),
        ttl_s=settings.ttl,
        idle_s=settings.idle,
        max_cost=settings.max_cost,
        prices=settings.prices,
        currency=settings.currency,
    )


def _refuse_numbers(settings: Settings, nodes: int | None, listed: int) -> None:
    if listed and nodes and nodes > listed:
        raise InputError(
            f"{nodes} nodes need {nodes} hosts, but {listed} are listed",
            next_step=f"list more hosts, or ask for --nodes {listed}",
        )
    if settings.min_nodes and nodes and settings.min_nodes > nodes:
        raise InputError(
            f"min_nodes is {settings.min_nodes}, but there are {nodes} nodes",
            next_step=f"ask for --min-nodes {nodes} at most",
        )
    if (settings.engine_url is None) != (settings.engine_sha256 is None):
        raise InputError(
            "engine.url and engine.sha256 belong together: one of them is missing",
            next_step="name both in the config file, or none",
        )


def _refuse_files(settings: Settings) -> None:
    for path, what in (
        (settings.requirements, "requirements file"),
        (settings.setup, "setup script"),
        (settings.host_key, "host key file"),
    ):
        if path is not None:
            read(path, what)
    for wheel in settings.wheels:
        if not wheel.is_file():
            raise InputError(
                f"--with: wheel {wheel} does not exist or is not a file",
                next_step="name a wheel file that is there",
            )


def owner(settings: Settings) -> str:
    """Who owns what is made: as configured, else a stable word for this user on this machine."""
    if settings.owner:
        return settings.owner
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user without a name
        user = str(os.getuid())
    return f"{user}-{hashlib.sha256(f'{user}@{socket.gethostname()}'.encode()).hexdigest()[:8]}"
