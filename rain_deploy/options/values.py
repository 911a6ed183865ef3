"""Values as users write them, in flags and in TOML alike: durations, networks, amounts, packages, hosts.

Each raises ValueError with what is expected.
"""

from __future__ import annotations

import ipaddress
import math
import re
from pathlib import Path
from typing import Any

from rain_deploy.errors import InputError

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd]?)")
_UNITS_S = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
LONGEST_S = 10 * 365 * 86_400.0
"""Later hours are no dates everywhere, and no numbers to a shell."""


def duration_s(value: object) -> float:
    """Seconds of ``90``, ``"90"``, ``"30s"``, ``"60m"``, ``"12h"`` or ``"2d"``."""
    match = _DURATION.fullmatch(str(value).strip())
    if match is None or isinstance(value, bool) or float(match[1]) == 0:
        raise ValueError('a duration above zero such as 90, "30s", "60m" or "12h"')
    seconds = float(match[1]) * _UNITS_S[match[2]]
    if seconds > LONGEST_S:
        raise ValueError("a duration of at most ten years")
    return seconds


def lifetime_s(value: object) -> float:
    """As ``duration_s``; ``"none"`` is without end: math.inf."""
    if isinstance(value, str) and value.strip().lower() == "none":
        return math.inf
    try:
        return duration_s(value)
    except ValueError as error:
        raise ValueError(f'{error}, or "none"') from error


def network(value: object) -> str:
    """A CIDR; an address alone is a network of one."""
    try:
        return str(ipaddress.ip_network(str(value)))
    except ValueError as error:
        raise ValueError(f'a network such as "10.0.0.0/24" ({error})') from error


def amount(value: object) -> float:
    """Money, above zero; the currency is that of the prices."""
    try:
        number = math.nan if isinstance(value, bool) else float(str(value))
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise ValueError("an amount of money above zero such as 12.50")
    return number


def absolute(text: str, base: Path) -> Path:
    """``text`` as an absolute path, ``~`` expanded; links are left as they are."""
    return base / Path(text).expanduser()


def packages(names: tuple[str, ...], base: Path) -> dict[str, Any]:
    """Names and wheel files of ``with``, told apart; no options of an installer."""
    if bad := [name for name in names if name.lstrip().startswith("-") or "\n" in name]:
        raise ValueError(f"package names or wheel files, not {bad[0]!r}")
    wheels = tuple(absolute(name, base) for name in names if name.endswith(".whl"))
    return {"packages": tuple(name for name in names if not name.endswith(".whl")), "wheels": wheels}


def hosts(text: str, base: Path) -> dict[str, Any]:
    """Host entries of a comma list or of a file (one ``entry [address=10.0.0.1]`` a line, ``#`` comments).

    Raises InputError when a file is meant and cannot be read.
    """
    path = absolute(text, base)
    if "," not in text and (path.exists() or "/" in text):
        lines = [line.partition("#")[0].strip() for line in read(path, "hosts file").splitlines()]
        return entries([line for line in lines if line])
    return entries([entry.strip() for entry in text.split(",") if entry.strip()])


def entries(lines: list[str] | tuple[str, ...]) -> dict[str, Any]:
    """Host entries, each with or without ``address=``."""
    found: list[str] = []
    addresses: list[tuple[str, str]] = []
    for line in lines:
        entry, *rest = line.split()
        name, _, address = rest[0].partition("=") if rest else ("address", "", "")
        if len(rest) > 1 or name != "address" or entry.startswith("-"):
            raise ValueError(f"host entries such as user@host:22 or host address=10.0.0.1, not {line!r}")
        if rest:
            addresses.append((entry, _address(address)))
        found.append(entry)
    if not found or len(set(found)) < len(found):
        raise ValueError("at least one host, and none twice")
    return {"hosts": tuple(found), "host_addresses": tuple(addresses)}


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError as error:
        raise ValueError(f"an IP address after address=, not {text!r}") from error


def read(path: Path, what: str) -> str:
    """The text of a file that the user named.  InputError."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"{what} {path} cannot be read: {error.strerror}", next_step=f"name a {what} that is there"
        ) from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise InputError(
            f"{what} {path} is not UTF-8: line {line}", next_step=f"save {path} as UTF-8"
        ) from error
