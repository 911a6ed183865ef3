"""What one source of settings says, and two of them as one."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Settings:
    """What one source says; None and empty mean that it says nothing.  Paths are absolute."""

    provider: str | None = None
    nodes: int | None = None
    min_nodes: int | None = None
    cpus_per_node: int | None = None
    hosts: tuple[str, ...] = ()
    host_addresses: tuple[tuple[str, str], ...] = ()
    host_key: Path | None = None
    trust_network: tuple[str, ...] = ()
    requirements: Path | None = None
    packages: tuple[str, ...] = ()
    """Of ``with``: names with or without version."""
    wheels: tuple[Path, ...] = ()
    """Of ``with``: local wheel files."""
    apt: tuple[str, ...] = ()
    setup: Path | None = None
    ssh_port: int | None = None
    engine_url: str | None = None
    engine_sha256: str | None = None
    files: tuple[Path, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    timeout: float | None = None
    """Seconds."""
    owner: str | None = None
    out: Path | None = None
    zone: str | None = None
    instance_type: str | None = None
    disk_size: int | None = None
    """GiB."""
    template: str | None = None
    allow_ip: tuple[str, ...] = ()
    anti_affinity: bool | None = None
    ttl: float | None = None
    """Seconds; math.inf: ``none``."""
    idle: float | None = None
    """Seconds."""
    max_cost: float | None = None
    prices: tuple[tuple[str, float], ...] = ()
    currency: str | None = None
    keep_partial: bool | None = None


def merged(flags: Settings, toml: Settings) -> Settings:
    """``flags`` over ``toml``; ``packages``, ``wheels``, ``files`` and ``env`` of both."""
    values = {field.name: getattr(flags, field.name) for field in dataclasses.fields(flags)}
    said = {name: value for name, value in values.items() if value not in {None, ()}}
    both = dataclasses.replace(toml, **said)
    return dataclasses.replace(
        both,
        host_addresses=flags.host_addresses if flags.hosts else toml.host_addresses,
        packages=toml.packages + flags.packages,
        wheels=toml.wheels + flags.wheels,
        files=toml.files + flags.files,
        env=tuple({**dict(toml.env), **dict(flags.env)}.items()),
    )
