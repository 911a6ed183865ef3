"""Read rain-deploy.toml: each key of the table, checked."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rain_deploy.errors import InputError
from rain_deploy.options.kinds import read
from rain_deploy.options.spec import Settings
from rain_deploy.options.table import OPTIONS

FILE_NAME = "rain-deploy.toml"
KEYS = {option.toml: option for option in OPTIONS.values() if option.toml}
_TABLES = {key.partition(".")[0] for key in KEYS if "." in key}


def load(explicit: Path | None, cwd: Path) -> Settings:
    """Return the settings of ``explicit`` (--config), else of ./rain-deploy.toml if any.  InputError."""
    path = explicit if explicit is not None else cwd / FILE_NAME
    if explicit is None and not path.exists():
        return {}
    content = read(path, "config file")
    again = f"correct {path}, then type the same command again"
    try:
        document = tomllib.loads(content)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: not valid TOML: {error}", next_step=again) from error
    settings: dict[str, Any] = {}
    for key, value in _flat(document):
        option = KEYS.get(key)
        if option is None:
            raise InputError(f"{path}: unknown key {key!r}; {_nearest(key)}", next_step=again)
        try:
            settings[option.name] = option.kind.check(value, path.parent.absolute())
        except ValueError as error:
            message = f"{path}: {key}: expected {error}, got {value!r}"
            raise InputError(message, next_step=again) from error
    return settings


def _flat(document: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """Yield ``engine.url`` of a table ``engine``; ``env`` and ``prices`` are values themselves."""
    for key, value in document.items():
        if isinstance(value, dict) and key not in KEYS:
            yield from ((f"{key}.{inner}", item) for inner, item in value.items())
        else:
            yield key, value


def _nearest(key: str) -> str:
    near = difflib.get_close_matches(key, [*KEYS, *_TABLES], n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"valid keys: {', '.join(sorted(KEYS))}"
