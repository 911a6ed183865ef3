"""Values as JSON and back.  It needs only the standard library.

Unknown keys are skipped and keys with a default may be absent, so that a laptop and a node of different
versions understand each other.
"""

import contextlib
import enum
import functools
import json
import types
import typing
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
_GIVEN_AS: dict[type, set[type]] = {float: {int, float}, Path: {str}}
"""The JSON types of values that JSON has no type for."""


class WireError(ValueError):
    """A message is not of the shape that it must have."""


def parse(text: bytes | str) -> object:
    """Return what a JSON text holds.  Raises WireError."""
    try:
        return typing.cast("object", json.loads(text))
    except (ValueError, RecursionError) as error:
        raise WireError(f"not JSON: {error}") from error


def read(kind: type[T], text: bytes | str) -> T:
    """Return the value that a JSON text holds.  Raises WireError."""
    return from_json(kind, parse(text))


def to_json(value: Any) -> Any:
    """Return the value as what ``json.dumps`` takes."""
    if is_dataclass(value):
        return {one.name: to_json(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, dict):
        return {key: to_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(inner) for inner in value]
    return str(value) if isinstance(value, Path | enum.Enum) else value


def from_json(kind: type[T], value: object) -> T:
    """Return a JSON value as a dataclass of this kind.  Raises WireError."""
    if not isinstance(value, dict):
        raise WireError(f"{kind.__name__}: not an object")
    given = {}
    for name, (hint, needed) in _shape(typing.cast("Any", kind)).items():
        if name in value:
            given[name] = _read(hint, value[name], f"{kind.__name__}.{name}")
        elif needed:
            raise WireError(f"{kind.__name__}: {name} is absent")
    return kind(**given)


@functools.cache
def _shape(kind: Any) -> dict[str, tuple[Any, bool]]:
    """Return for each field its type, and whether it must be there."""
    hint = typing.get_type_hints(kind)
    return {one.name: (hint[one.name], one.default is one.default_factory is MISSING) for one in fields(kind)}


def _read(hint: Any, value: Any, where: str) -> Any:
    """Return the value as the type that it must have, or as the first of several that it fits."""
    if isinstance(hint, types.UnionType):
        if value is None and types.NoneType in hint.__args__:
            return None
        *others, hint = (one for one in hint.__args__ if one is not types.NoneType)
        for one in others:
            with contextlib.suppress(WireError):
                return _read(one, value, where)
    kind, inner = typing.get_origin(hint) or hint, typing.get_args(hint)
    if is_dataclass(kind):
        return from_json(typing.cast("type[Any]", kind), value)
    if kind is tuple and type(value) is list:
        return tuple(_read(inner[0], one, where) for one in value)
    if kind is dict and type(value) is dict:
        anything = inner[1] is Any
        return (
            value if anything else {key: _read(inner[1], one, f"{where}.{key}") for key, one in value.items()}
        )
    if type(value) not in _GIVEN_AS.get(kind, {str if issubclass(kind, str) else kind}):
        raise WireError(f"{where} is {value!r:.80}, not {kind.__name__}")
    try:
        return kind(value)
    except (ValueError, OverflowError) as error:
        raise WireError(f"{where}: {error}") from error
