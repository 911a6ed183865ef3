"""What up, sweep and check are told about machines that cost money."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from rain_deploy.cli.options import amount, duration, lifetime, network, option, whole

DISK_GIB = (10, 51200)
"""The smallest and the largest disk that the cloud's API takes."""

ZONE = option("--zone", metavar="ZONE", help="Where [default: your account's].")

CLOUD_OPTIONS = (
    ZONE,
    option("--instance-type", metavar="TYPE", help="Of each node [default: standard.medium]."),
    option("--disk-size", type=whole(*DISK_GIB), metavar="GIB", help="Of each node [default: 20]."),
    option("--template", metavar="NAME|ID", help="What the machines boot [default: Debian 12]."),
    option("--ttl", type=lifetime, metavar="TIME", help="When they power off [default: 12h]; none: never."),
    option("--idle", type=duration, metavar="TIME", help="Power off after this time without run and SSH."),
    option("--max-cost", type=amount, metavar="AMOUNT", help="Power off before the cluster costs more."),
    option(
        "--allow-ip",
        type=network,
        multiple=True,
        metavar="CIDR",
        help="Who may use SSH [default: your address].",
    ),
    option("--anti-affinity", is_flag=True, help="Each node on other hardware."),
)


@dataclass(frozen=True, slots=True)
class CloudFlags:
    """The flags as click parsed them; None, empty and False: not given."""

    zone: str | None = None
    instance_type: str | None = None
    disk_size: int | None = None
    template: str | None = None
    ttl: float | None = None
    idle: float | None = None
    max_cost: float | None = None
    allow_ip: tuple[str, ...] = ()
    anti_affinity: bool = False

    @classmethod
    def taken(cls, parameters: dict[str, Any]) -> CloudFlags:
        """The flags, taken out of ``parameters``."""
        return cls(**{name: parameters.pop(name) for name in cls.__slots__})

    def settings(self) -> dict[str, Any]:
        """Fields of Settings: those that were given."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value not in {None, (), False}}

    def given(self) -> tuple[str, ...]:
        """The flags that were given, as they are typed."""
        return tuple(f"--{name.replace('_', '-')}" for name in self.settings())
