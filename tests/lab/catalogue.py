"""What the account can choose from: zones, types and templates, with recorded figures."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any
from uuid import NAMESPACE_DNS, uuid5

ZONES = ("at-vie-1", "at-vie-2", "bg-sof-1", "ch-dk-2", "ch-gva-2", "de-fra-1", "de-muc-1", "hr-zag-1")
GPU_ZONES = ("at-vie-1", "ch-dk-2", "ch-gva-2", "de-fra-1")
GPU_FAMILIES = ("gpu3",)
GIB = 2**30

# size: vCPUs/GiB of memory, as recorded 2026-08-21
FIGURES = {
    "standard": "micro 1/0.5, tiny 1/1, small 2/2, medium 2/4, large 4/8, extra-large 4/16, huge 8/32, "
    "mega 12/64, titan 16/128, jumbo 24/225, colossus 40/320",
    "cpu": "extra-large 8/16, huge 16/32, mega 32/64, titan 40/128, titan48c 48/128, colossus 80/320",
    "memory": "extra-large 2/16, huge 4/32, mega 8/64, titan 12/128",
    "storage": "extra-large 4/16, jumbo 24/225",
    "gpu3": "small 12/56",
}
TEMPLATES = (
    ("Linux Debian 12 (Bookworm) 64-bit", "debian"),
    ("Linux Ubuntu 22.04 LTS 64-bit", "ubuntu"),
    ("Linux Ubuntu 24.04 LTS 64-bit", "ubuntu"),
)


@dataclass(frozen=True, slots=True)
class Template:
    """An image of one zone."""

    id: str
    name: str
    default_user: str
    visibility: str = "public"
    size_bytes: int = 10 * GIB
    created_at: str = "2026-01-02T03:04:05Z"

    def view(self) -> dict[str, Any]:
        """As the API shows it; ``zones`` is declared and was absent in the recording."""
        return {
            "id": self.id,
            "name": self.name,
            "family": self.name.split()[:2][-1].lower(),
            "version": "1",
            "build": "2026-01-02",
            "description": self.name,
            "maintainer": "Lab",
            "checksum": hashlib.md5(self.name.encode(), usedforsecurity=False).hexdigest(),
            "default-user": self.default_user,
            "size": self.size_bytes,
            "boot-mode": "uefi",
            "visibility": self.visibility,
            "ssh-key-enabled": True,
            "password-enabled": True,
            "application-consistent-snapshot-enabled": False,
            "created-at": self.created_at,
        }


def identity(*words: str) -> str:
    """The same id for the same words at every start of the lab."""
    return str(uuid5(NAMESPACE_DNS, " ".join(words)))


def templates(zone: str) -> tuple[Template, ...]:
    """The public ones; their ids differ by zone."""
    return tuple(Template(identity(zone, name), name, user) for name, user in TEMPLATES)


def instance_types(authorized: frozenset[str]) -> dict[str, dict[str, Any]]:
    """All types by id; those of GPU families are authorized where ``authorized`` names the family."""
    found = [
        _type(family, line, authorized) for family, lines in FIGURES.items() for line in lines.split(", ")
    ]
    return {each["id"]: each for each in found}


def _type(family: str, line: str, authorized: frozenset[str]) -> dict[str, Any]:
    size, _, figures = line.partition(" ")
    cpus, _, memory_gib = figures.partition("/")
    gpu = family in GPU_FAMILIES
    return {
        "id": identity(family, size),
        "family": family,
        "size": size,
        "cpus": int(cpus),
        "memory": int(float(memory_gib) * GIB),
        "authorized": not gpu or family in authorized,
        "zones": list(GPU_ZONES if gpu else ZONES[1:] if family == "storage" else ZONES),
        **({"gpus": 1} if gpu else {}),
    }
