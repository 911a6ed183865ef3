"""What the account can choose from: zones, types and templates with recorded figures; its quotas."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, ClassVar
from uuid import NAMESPACE_DNS, uuid5

ZONES = ("at-vie-1", "at-vie-2", "bg-sof-1", "ch-dk-2", "ch-gva-2", "de-fra-1", "de-muc-1", "hr-zag-1")
GPU_ZONES = ("at-vie-1", "ch-dk-2", "ch-gva-2", "de-fra-1")
GPU_FAMILY = "gpu3"
GIB = 2**30
LIMITS = {"instance": 20, "template": 30, "snapshot": 30, "private-network": 32, "elastic-ip": 5}
LIMITS |= {"network-load-balancer": 5, GPU_FAMILY: 0, "cpu": -1, "memory": -1}
ALWAYS_EMPTY = ("deploy-target", "elastic-ip", "instance-pool", "load-balancer", "private-network")

# size: vCPUs/GiB of memory, as recorded 2026-08-21
FIGURES = {
    "standard": "micro 1/0.5, tiny 1/1, small 2/2, medium 2/4, large 4/8, extra-large 4/16, huge 8/32, "
    "mega 12/64, titan 16/128, jumbo 24/225, colossus 40/320",
    "cpu": "extra-large 8/16, huge 16/32, mega 32/64, titan 40/128, titan48c 48/128, colossus 80/320",
    "memory": "extra-large 2/16, huge 4/32, mega 8/64, titan 12/128",
    "storage": "extra-large 4/16, jumbo 24/225",
    GPU_FAMILY: "small 12/56",
}
DEBIAN, UBUNTU = "Linux Debian 12 (Bookworm) 64-bit", "Linux Ubuntu {} LTS 64-bit"
TEMPLATES = ((DEBIAN, "debian"), (UBUNTU.format("22.04"), "ubuntu"), (UBUNTU.format("24.04"), "ubuntu"))


def identity(*words: str) -> str:
    """The same id for the same words at every start of the lab."""
    return str(uuid5(NAMESPACE_DNS, " ".join(words)))


class Shown:
    """Shows its attributes under the API's names; what is None is an absent key."""

    hidden: ClassVar[frozenset[str]] = frozenset()
    created_s: float = 0.0

    def thin(self) -> dict[str, Any]:
        """As an item of a list."""
        shown = {name: value for name, value in vars(self).items() if name not in self.hidden}
        return {name.replace("_", "-"): value for name, value in shown.items() if value is not None}

    def view(self) -> dict[str, Any]:
        """As the single read shows it."""
        return self.thin()


class Item(Shown, SimpleNamespace):
    """A template or a type, with whatever it is made of."""


def template(identity: str, name: str, **fields: Any) -> Item:
    """An image of one zone, ``size`` in bytes; ``zones`` is declared and was absent in the recording."""
    usual = {"default_user": "debian", "visibility": "public", "size": 10 * GIB, "boot_mode": "uefi"}
    usual |= {"created_at": "2026-01-02T03:04:05Z", "ssh_key_enabled": True, "password_enabled": True}
    return Item(id=identity, name=name, **(usual | fields))


def templates(zone: str) -> dict[str, Item]:
    """The public ones by id; their ids differ by zone."""
    found = (template(identity(zone, name), name, default_user=user) for name, user in TEMPLATES)
    return {each.id: each for each in found}


def instance_types(authorized: frozenset[str]) -> dict[str, Item]:
    """All types by id; those of GPU families are authorized where ``authorized`` names the family."""
    lines = ((family, line) for family, sizes in FIGURES.items() for line in sizes.split(", "))
    return {each.id: each for each in (_type(family, line, authorized) for family, line in lines)}


def _type(family: str, line: str, authorized: frozenset[str]) -> Item:
    size, cpus, memory_gib = line.replace("/", " ").split()
    found = {"family": family, "size": size, "cpus": int(cpus), "memory": int(float(memory_gib) * GIB)}
    zones = {GPU_FAMILY: GPU_ZONES, "storage": ZONES[1:]}.get(family, ZONES)
    allowed = family != GPU_FAMILY or family in authorized
    gpus = 1 if family == GPU_FAMILY else None
    return Item(id=identity(family, size), **found, authorized=allowed, zones=zones, gpus=gpus)
