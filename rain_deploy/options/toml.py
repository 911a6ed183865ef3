"""rain-deploy.toml: its keys, each with the check of its value."""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rain_deploy.core.layout import MAX_NODES
from rain_deploy.errors import InputError
from rain_deploy.options.settings import Settings
from rain_deploy.options.values import (
    absolute,
    amount,
    duration_s,
    entries,
    hosts,
    lifetime_s,
    network,
    packages,
    read,
)

FILE_NAME = "rain-deploy.toml"
PROVIDERS = ("exoscale", "hosts", "local")
DISK_GIB = (10, 51200)
"""The smallest and the largest disk of an instance that the cloud's API takes."""

Check = Callable[[object, Path], dict[str, Any]]
"""A value and the directory that its paths are relative to -> fields of Settings.

Raises ValueError with what is expected.
"""


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


def _switch(field: str) -> Check:
    def check(value: object, _base: Path) -> dict[str, Any]:
        if not isinstance(value, bool):
            raise ValueError("true or false")  # noqa: TRY004 - each check says so of whatever it got
        return {field: value}

    return check


def _hosts(value: object, base: Path) -> dict[str, Any]:
    return hosts(value, base) if isinstance(value, str) else entries(_strings(value))


def _env(value: object, _base: Path) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise ValueError('a table of texts such as { SEED = "1" }')
    return {"env": tuple(value.items())}


_PRICES = (
    "a table of prices per hour (of disk: per GiB and hour) such as "
    '{ "standard.medium" = 0.05, disk = 0.0002, currency = "EUR" }'
)


def _prices(value: object, _base: Path) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(_PRICES)  # noqa: TRY004 - as every check
    table = dict(_priced(value))
    currency = table.pop("currency", None)
    if currency is not None and not re.fullmatch("[A-Z]{3}", str(currency)):
        raise ValueError(_PRICES)
    return {"prices": tuple(map(_price, table.items())), "currency": currency}


def _price(item: tuple[str, object]) -> tuple[str, float]:
    name, value = item
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ValueError(_PRICES)
    if not re.fullmatch(r"disk|[a-z0-9-]+\.[a-z0-9-]+", name):
        raise ValueError(_PRICES)
    return name, float(value)


def _priced(table: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    """``standard.medium`` with and without quotes, which TOML reads as a table in the table."""
    for name, value in table.items():
        if isinstance(value, dict):
            yield from ((f"{name}.{size}", price) for size, price in value.items())
        else:
            yield name, value


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
    "zone": _text("zone", r"[a-z0-9-]+", 'a zone such as "ch-gva-2"'),
    "instance_type": _text("instance_type", r"[\w.-]+", 'a type such as "standard.medium"'),
    "disk_size": _whole("disk_size", *DISK_GIB),
    "template": _text("template", r".+", "a template's name or id"),
    "allow_ip": lambda value, _: {
        "allow_ip": tuple(map(network, [value] if isinstance(value, str) else _strings(value)))
    },
    "anti_affinity": _switch("anti_affinity"),
    "ttl": lambda value, _: {"ttl": lifetime_s(value)},
    "idle": lambda value, _: {"idle": duration_s(value)},
    "max_cost": lambda value, _: {"max_cost": amount(value)},
    "prices": _prices,
    "keep_partial": _switch("keep_partial"),
}
_TABLES = {key.partition(".")[0] for key in _KEYS if "." in key}
_WHOLE_TABLES = {"env", "prices"}
"""Keys whose value is a table with names of the user's."""


def load(explicit: Path | None, cwd: Path) -> Settings:
    """Settings of ``explicit`` (--config), else of ./rain-deploy.toml where there is one.  InputError."""
    path = explicit if explicit is not None else cwd / FILE_NAME
    if explicit is None and not path.exists():
        return Settings()
    text = read(path, "config file")
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
        if isinstance(value, dict) and key not in _WHOLE_TABLES:
            yield from ((f"{key}.{inner}", item) for inner, item in value.items())
        else:
            yield key, value


def _nearest(key: str) -> str:
    near = difflib.get_close_matches(key, [*_KEYS, *_TABLES], n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"valid keys: {', '.join(sorted(_KEYS))}"
