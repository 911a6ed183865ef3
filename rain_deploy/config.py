"""rain-deploy.toml, the environment and the flags -> ClusterSpec and RunSpec.

Precedence: flag, environment (both arrive here as the flags' Settings), TOML.  ``with`` and ``files``
add up; ``env`` adds up by name.  Every refusal names the file and the key, and says what is expected.
"""

from __future__ import annotations

import dataclasses
import difflib
import getpass
import hashlib
import ipaddress
import os
import re
import socket
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rain_deploy.core.layout import MAX_NODES
from rain_deploy.core.spec import ClusterSpec, EngineSpec, EnvironmentSpec
from rain_deploy.errors import InputError

FILE_NAME = "rain-deploy.toml"
PROVIDERS = ("exoscale", "hosts", "local")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd]?)")
_UNITS_S = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


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


Check = Callable[[object, Path], dict[str, Any]]
"""A value and the directory that its paths are relative to -> fields of Settings.

Raises ValueError with what is expected.
"""


def duration_s(value: object) -> float:
    """Seconds of ``90``, ``"90"``, ``"30s"``, ``"60m"``, ``"12h"`` or ``"2d"``; ValueError otherwise."""
    match = _DURATION.fullmatch(str(value).strip())
    if match is None or isinstance(value, bool) or float(match[1]) == 0:
        raise ValueError('a duration above zero such as 90, "30s", "60m" or "12h"')
    return float(match[1]) * _UNITS_S[match[2]]


def network(value: object) -> str:
    """A CIDR, checked; ValueError otherwise."""
    try:
        return str(ipaddress.ip_network(str(value)))
    except ValueError as error:
        raise ValueError(f'a network such as "10.0.0.0/24" ({error})') from error


def _whole(field: str, low: int, high: int) -> Check:
    def check(value: object, _base: Path) -> dict[str, Any]:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return {field: value}

    return check


def _string(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("a text in quotes")
    return value


def _strings(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) and item.strip() for item in value):
        raise ValueError('a list of texts such as ["a", "b"]')
    return tuple(value)


def _text(field: str, pattern: str, expected: str) -> Check:
    def check(value: object, _base: Path) -> dict[str, Any]:
        if not re.fullmatch(pattern, _string(value)):
            raise ValueError(expected)
        return {field: value}

    return check


def _path(field: str) -> Check:
    return lambda value, base: {field: absolute(_string(value), base)}


def _hosts(value: object, base: Path) -> dict[str, Any]:
    if isinstance(value, str):
        return hosts(value, base)
    return dict(zip(("hosts", "host_addresses"), _entries(_strings(value)), strict=True))


def _env(value: object, _base: Path) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise ValueError('a table of texts such as { SEED = "1" }')
    return {"env": tuple(value.items())}


_KEYS: dict[str, Check] = {
    "provider": _text("provider", "|".join(PROVIDERS), f"one of {', '.join(PROVIDERS)}"),
    "nodes": _whole("nodes", 1, MAX_NODES),
    "min_nodes": _whole("min_nodes", 1, MAX_NODES),
    "cpus_per_node": _whole("cpus_per_node", 1, 1024),
    "hosts": _hosts,
    "host_key": _path("host_key"),
    "trust_network": lambda value, _: {"trust_network": tuple(map(network, _strings(value)))},
    "requirements": _path("requirements"),
    "with": lambda value, base: packages(_strings(value), base),
    "apt": lambda value, _: {"apt": _strings(value)},
    "setup": _path("setup"),
    "ssh_port": _whole("ssh_port", 1, 65535),
    "engine.url": _text("engine_url", r"(https?|file)://\S+", "an https:// or file:// address"),
    "engine.sha256": _text("engine_sha256", "[0-9a-f]{64}", "64 hexadecimal digits, lower case"),
    "files": lambda value, base: {"files": tuple(absolute(item, base) for item in _strings(value))},
    "env": _env,
    "timeout": lambda value, _: {"timeout": duration_s(value)},
    "owner": _text("owner", r"[A-Za-z0-9][\w.-]{0,62}", "at most 63 letters, digits, '.', '_' and '-'"),
    "out": _path("out"),
}
_TABLES = {key.partition(".")[0] for key in _KEYS if "." in key}


def absolute(text: str, base: Path) -> Path:
    """``text`` as an absolute path, ``~`` expanded; links are left as they are."""
    return base / Path(text).expanduser()


def packages(names: tuple[str, ...], base: Path) -> dict[str, Any]:
    """Names and wheel files of ``with``, told apart; ValueError for what is an option of an installer."""
    if bad := [name for name in names if name.lstrip().startswith("-") or "\n" in name]:
        raise ValueError(f"package names or wheel files, not {bad[0]!r}")
    wheels = tuple(absolute(name, base) for name in names if name.endswith(".whl"))
    return {"packages": tuple(name for name in names if not name.endswith(".whl")), "wheels": wheels}


def hosts(text: str, base: Path) -> dict[str, Any]:
    """Host entries of a comma list or of a file (one ``entry [address=10.0.0.1]`` a line, ``#`` comments).

    Raises InputError when a file is meant and cannot be read, ValueError when an entry is wrong.
    """
    path = absolute(text, base)
    if "," not in text and (path.exists() or "/" in text):
        lines = [line.partition("#")[0].strip() for line in _read(path, "hosts file").splitlines()]
        found = [line for line in lines if line]
    else:
        found = [entry.strip() for entry in text.split(",") if entry.strip()]
    return dict(zip(("hosts", "host_addresses"), _entries(found), strict=True))


def _entries(lines: list[str] | tuple[str, ...]) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    entries: list[str] = []
    addresses: list[tuple[str, str]] = []
    for line in lines:
        entry, *rest = line.split()
        name, _, address = rest[0].partition("=") if rest else ("address", "", "")
        if len(rest) > 1 or name != "address" or entry.startswith("-"):
            raise ValueError(f"host entries such as user@host:22 or host address=10.0.0.1, not {line!r}")
        if rest:
            addresses.append((entry, _address(address)))
        entries.append(entry)
    if not entries or len(set(entries)) < len(entries):
        raise ValueError("at least one host, and none twice")
    return tuple(entries), tuple(addresses)


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError as error:
        raise ValueError(f"an IP address after address=, not {text!r}") from error


def load(explicit: Path | None, cwd: Path) -> Settings:
    """Settings of ``explicit`` (--config), else of ./rain-deploy.toml where there is one.  InputError."""
    path = explicit if explicit is not None else cwd / FILE_NAME
    if explicit is None and not path.exists():
        return Settings()
    text = _read(path, "config file")
    again = f"correct {path}, then type the same command again"
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: not valid TOML: {error}", next_step=again) from error
    fields: dict[str, Any] = {}
    for key, value in _flat(document):
        if key not in _KEYS:
            raise InputError(f"{path}: unknown key {key!r}; {_nearest(key)}", next_step=again)
        try:
            fields |= _KEYS[key](value, path.parent.absolute())
        except ValueError as error:
            message = f"{path}: {key}: expected {error}, got {value!r}"
            raise InputError(message, next_step=again) from error
    return Settings(**fields)


def _flat(document: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    for key, value in document.items():
        if isinstance(value, dict) and key != "env":
            yield from ((f"{key}.{inner}", item) for inner, item in value.items())
        else:
            yield key, value


def _nearest(key: str) -> str:
    near = difflib.get_close_matches(key, [*_KEYS, *_TABLES], n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"valid keys: {', '.join(sorted(_KEYS))}"


def _read(path: Path, what: str) -> str:
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


def cluster_spec(name: str, provider: tuple[str, str], settings: Settings, *, upgrade: bool) -> ClusterSpec:
    """The ClusterSpec, with every file that it names looked at.  InputError."""
    listed = len(settings.hosts) if provider[0] == "hosts" else 0
    nodes = settings.nodes or listed or None
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
    for path, what in (
        (settings.requirements, "requirements file"),
        (settings.setup, "setup script"),
        (settings.host_key, "host key file"),
    ):
        if path is not None:
            _read(path, what)
    for wheel in settings.wheels:
        if not wheel.is_file():
            raise InputError(
                f"--with: wheel {wheel} does not exist or is not a file",
                next_step="name a wheel file that is there",
            )
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
