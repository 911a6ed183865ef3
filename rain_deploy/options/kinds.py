"""The kinds of values that settings have: how each is checked, in flags, environment and TOML alike.

A check raises ValueError with what it expects; the caller adds the flag or the key.
"""

import contextlib
import math
import re
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rain_deploy.core.cluster import SHORTEST_LIMIT_S
from rain_deploy.core.spec import NO_JOURNAL
from rain_deploy.core.text import parse_network, parse_peer_address
from rain_deploy.errors import InputError

LONGEST_S = 10 * 365 * 86_400.0  # ten years: a later date is not valid everywhere, nor for every shell
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd]?)")
_UNITS_S = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_VARIABLE = re.compile("[A-Za-z_][A-Za-z0-9_]*")
_PRICES = (
    "a table of prices per hour (of disk: per GiB and hour) such as "
    '{ "standard.medium" = 0.05, disk = 0.0002, currency = "EUR" }'
)


@dataclass(frozen=True, slots=True)
class Kind:
    """Form and check of one kind of value."""

    check: Callable[[object, Path], Any]
    """(value as TOML has it, directory of relative paths) -> the checked value, or ValueError."""
    words: Callable[[Any, Mapping[str, str]], object] = lambda words, _environ: words
    """(words of the command line, environment) -> the value as TOML would have it, or ValueError."""
    many: bool = False  # the flag may be repeated
    switch: bool = False  # the flag takes no value
    path: bool = False  # the flag takes a path
    choices: tuple[str, ...] = ()
    completes: str = ""  # what completion asks for: clusters, types or zones


def whole(low: int, high: int) -> Kind:
    """Return the kind of whole numbers in a range."""

    def check(value: object, _base: Path) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return value

    def number(word: str, _environ: Mapping[str, str]) -> object:
        with contextlib.suppress(ValueError):
            return int(word)
        return word

    return Kind(check, number)


def text(pattern: str, expected: str, *, completes: str = "") -> Kind:
    """Return the kind of texts that match ``pattern``."""

    def check(value: object, _base: Path) -> str:
        if not isinstance(value, str):
            raise ValueError("a text in quotes")  # noqa: TRY004 - ValueError, as every check
        if not re.fullmatch(pattern, value):
            raise ValueError(expected)
        return value

    return Kind(check, completes=completes)


def choice(*choices: str) -> Kind:
    """Return the kind of words of a fixed list."""
    return Kind(text("|".join(choices), f"one of {', '.join(choices)}").check, choices=choices)


def _strings(value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(v, str) and v.strip() for v in value):
        raise ValueError('a list of texts such as ["a", "b"]')
    return tuple(value)


def _switch(value: object, _base: Path) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")  # noqa: TRY004 - ValueError, as every check
    return value


def duration_s(value: object) -> float:
    """Return the seconds of ``90``, ``"90"``, ``"30s"``, ``"60m"``, ``"12h"`` or ``"2d"``."""
    match = _DURATION.fullmatch(str(value).strip())
    if match is None or isinstance(value, bool) or float(match[1]) == 0:
        raise ValueError('a duration above zero such as 90, "30s", "60m" or "12h"')
    seconds = float(match[1]) * _UNITS_S[match[2]]
    if seconds > LONGEST_S:
        raise ValueError("a duration of at most ten years")
    return seconds


def _fits(text: str) -> bool:
    """Return True for a duration that is valid as a time limit."""
    try:
        return duration_s(text) >= SHORTEST_LIMIT_S
    except ValueError:
        return False


def limit_s(value: object) -> float:
    """Return the seconds after which machines power themselves off: not while they still boot."""
    seconds = duration_s(value)
    if seconds < SHORTEST_LIMIT_S:
        number = str(value).strip()
        units = ((f"{number}m", "minutes"), (f"{number}h", "hours"))
        valid = [f"{text} for {unit}" for text, unit in units if number[-1].isdigit() and _fits(text)]
        hint = f"; {number} is in seconds, write {' or '.join(valid)}" if valid else " (write 10m)"
        raise ValueError(f"a duration of at least 10 minutes{hint}")
    return seconds


def lifetime_s(value: object) -> float:
    """Return the seconds of a time limit; math.inf for ``"none"``."""
    if isinstance(value, str) and value.strip().lower() == "none":
        return math.inf
    try:
        return limit_s(value)
    except ValueError as error:
        raise ValueError(f'{error}, or "none"') from error


def _amount(value: object, _base: Path) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(str(value))
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise ValueError("an amount of money above zero such as 12.50")
    return number


def _networks(value: object, _base: Path) -> tuple[str, ...]:
    networks = (value,) if isinstance(value, str) else _strings(value)
    return tuple(str(parse_network(network)) for network in networks)


def absolute(path: str, base: Path) -> Path:
    """Return an absolute path, with ``~`` expanded; links stay as they are."""
    return base / Path(path).expanduser()


def _packages(value: object, base: Path) -> tuple[str | Path, ...]:
    """Return package names as text and wheel files as paths; an installer's options are refused."""
    names = _strings(value)
    if bad := [name for name in names if name.lstrip().startswith("-") or "\n" in name]:
        raise ValueError(f"package names or wheel files, not {bad[0]!r}")
    return tuple(absolute(name, base) if name.endswith(".whl") else name for name in names)


def _hosts(value: object, base: Path) -> tuple[tuple[str, str], ...]:
    """Return (host entry, cluster address or "") pairs of a list, a comma-separated text or a file.

    A file has one ``entry [address=10.0.0.1]`` a line and ``#`` comments.  InputError when it cannot be read.
    """
    if isinstance(value, str):
        path = absolute(value, base)
        is_file = "," not in value and (path.exists() or "/" in value)
        lines = [line.partition("#")[0] for line in read(path, "hosts file").splitlines()] if is_file else []
        value = [word.strip() for word in (lines if is_file else value.split(",")) if word.strip()]
    listed, found = _strings(value), {}
    for line in listed:
        entry, *rest = line.split()
        name, _, address = rest[0].partition("=") if rest else ("address", "", "")
        if len(rest) > 1 or name != "address" or entry.startswith("-"):
            raise ValueError(f"host entries such as user@host:22 or host address=10.0.0.1, not {line!r}")
        found[entry] = str(parse_peer_address(address)) if rest else ""
    if not found or len(found) < len(listed):
        raise ValueError("at least one host, and none twice")
    return tuple(found.items())


def _variables(value: object, _base: Path) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise ValueError('a table of texts such as { SEED = "1" }')
    return tuple(value.items())


def _given_variables(words: tuple[str, ...], environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of ``K=V`` and ``K``, which takes the caller's own value."""
    pairs: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not _VARIABLE.fullmatch(name):
            raise ValueError(f"NAME=VALUE or NAME, and {name!r} is not a variable's name")
        if not equals and name not in environ:
            raise ValueError(f"{name}=VALUE, because there is no variable {name} here")
        pairs[name] = value if equals else environ[name]
    return pairs


def _prices(value: object, _base: Path) -> tuple[tuple[str, float | str], ...]:
    """Return (type, ``disk`` or ``currency``, value) pairs."""
    if not isinstance(value, dict):
        raise ValueError(_PRICES)  # noqa: TRY004 - ValueError, as every check
    found: dict[str, float | str] = {}
    for name, price in flat(value):
        if name == "currency" and re.fullmatch("[A-Z]{3}", str(price)):
            found[name] = str(price)
            continue
        if isinstance(price, bool) or not isinstance(price, int | float) or not 0 <= price < math.inf:
            raise ValueError(_PRICES)
        if not re.fullmatch(r"disk|[a-z0-9-]+\.[a-z0-9-]+", name):
            raise ValueError(_PRICES)
        found[name] = float(price)
    return tuple(found.items())


def flat(table: Mapping[str, object], values: Container[str] = ()) -> Iterator[tuple[str, object]]:
    """Yield ``standard.medium`` of a table ``standard`` in ``table``; ``values`` are not tables."""
    for name, value in table.items():
        if isinstance(value, dict) and name not in values:
            yield from ((f"{name}.{inner}", item) for inner, item in value.items())
        else:
            yield name, value


def read(path: Path, what: str) -> str:
    """Return the text of a file that the user named.  InputError."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        message = f"{what} {path} cannot be read: {error.strerror}"
        raise InputError(message, next_step=f"name a {what} that exists") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        message = f"{what} {path} is not UTF-8: line {line}"
        raise InputError(message, next_step=f"save {path} as UTF-8") from error


def _journal(value: object, base: Path) -> str:
    """Return ``none``, or an absolute path."""
    given = _TEXT.check(value, base)
    return given if given == NO_JOURNAL else str(absolute(given, base))


SWITCH = Kind(_switch, switch=True)
_TEXT = text(r"(?s).*\S.*", "a text in quotes")
JOURNAL = Kind(_journal, path=True)
PATH = Kind(lambda value, base: absolute(_TEXT.check(value, base), base), path=True)
PATHS = Kind(
    lambda value, base: tuple(absolute(item, base) for item in _strings(value)), many=True, path=True
)
DURATION = Kind(lambda value, _base: duration_s(value))
LIMIT = Kind(lambda value, _base: limit_s(value))
LIFETIME = Kind(lambda value, _base: lifetime_s(value))
AMOUNT = Kind(_amount)
NETWORKS = Kind(_networks, many=True)
TEXTS = Kind(lambda value, _base: _strings(value), many=True)
PACKAGES = Kind(_packages, many=True)
HOSTS = Kind(_hosts)
VARIABLES = Kind(_variables, _given_variables, many=True)
PRICES = Kind(_prices)
