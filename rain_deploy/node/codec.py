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
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
_GIVEN_AS: dict[type, set[type]] = {float: {int, float}, Path: {str}}
"""The JSON types of values that JSON has no type for."""
_PLAIN = {str, int, float, bool, types.NoneType}
_Reader = Callable[[Any], Any]


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
    kind = type(value)
    if kind in _PLAIN:
        return value
    if names := _names(typing.cast("Any", kind)):
        return {name: to_json(getattr(value, name)) for name in names}
    if isinstance(value, dict):
        return {key: to_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(inner) for inner in value]
    return str(value) if isinstance(value, Path | enum.Enum) else value


@functools.cache
def _names(kind: type) -> tuple[str, ...]:
    """Return the names of a dataclass's fields; none for any other class."""
    return tuple(one.name for one in fields(kind)) if is_dataclass(kind) else ()


def from_json(kind: type[T], value: object) -> T:
    """Return a JSON value as a dataclass of this kind.  Raises WireError."""
    return typing.cast("T", _object(typing.cast("Any", kind))(value))


@functools.cache
def _object(kind: Any) -> _Reader:
    """Return what reads a dataclass; made once, because the journal reads the same kinds very often."""
    hints, name = typing.get_type_hints(kind), kind.__name__
    readers = [
        (
            one.name,
            one.default is one.default_factory is MISSING,
            _reader(hints[one.name], f"{name}.{one.name}"),
        )
        for one in fields(kind)
    ]

    def read_object(value: Any) -> Any:
        if not isinstance(value, dict):
            raise WireError(f"{name}: not an object")
        given = {}
        for field, needed, of_field in readers:
            if field in value:
                given[field] = of_field(value[field])
            elif needed:
                raise WireError(f"{name}: {field} is absent")
        return kind(**given)

    return read_object


def _reader(hint: Any, where: str) -> _Reader:
    """Return what reads a value as the type that it must have."""
    if isinstance(hint, types.UnionType):
        return _union(hint, where)
    kind: Any = typing.get_origin(hint) or hint
    inner = typing.get_args(hint)
    if is_dataclass(kind):
        return _object(typing.cast("Any", kind))
    if kind is tuple:
        return _tuple(inner[0], where)
    if kind is dict:
        return _dictionary(inner[1], where)
    return _plain(kind, where)


def _union(hint: types.UnionType, where: str) -> _Reader:
    """Return what reads a value as the first of several types that it fits."""
    kinds = [one for one in hint.__args__ if one is not types.NoneType]
    *others, last = [_reader(one, where) for one in kinds]
    first = {plain: next((one for one in kinds if plain in _given_as(one)), None) for plain in _PLAIN}
    as_it_is = {plain for plain in _PLAIN if first[plain] is plain}
    as_it_is |= {types.NoneType} & {*hint.__args__}

    def read_union(value: Any) -> Any:
        if type(value) in as_it_is:
            return value
        for one in others:
            with contextlib.suppress(WireError):
                return one(value)
        return last(value)

    return read_union


def _tuple(inner: Any, where: str) -> _Reader:
    of_item = _reader(inner, where)

    def read_tuple(value: Any) -> Any:
        if type(value) is not list:
            raise WireError(f"{where} is {value!r:.80}, not tuple")
        return tuple([of_item(one) for one in value])

    return read_tuple


def _dictionary(inner: Any, where: str) -> _Reader:
    of_item = _reader(inner, where) if inner is not Any else None

    def read_dictionary(value: Any) -> Any:
        if type(value) is not dict:
            raise WireError(f"{where} is {value!r:.80}, not dict")
        if of_item is None:
            return value
        try:
            return {key: of_item(one) for key, one in value.items()}
        except WireError:
            for key, one in value.items():
                _reader(inner, f"{where}.{key}")(one)  # names the key
            raise

    return read_dictionary


def _plain(kind: Any, where: str) -> _Reader:
    given_as = _given_as(kind)

    def read_plain(value: Any) -> Any:
        if type(value) is kind:
            return value
        if type(value) not in given_as:
            raise WireError(f"{where} is {value!r:.80}, not {kind.__name__}")
        try:
            return kind(value)
        except (ValueError, OverflowError) as error:
            raise WireError(f"{where}: {error}") from error

    return read_plain


def _given_as(kind: Any) -> set[type]:
    """Return the JSON types of values of a plain type."""
    return _GIVEN_AS.get(kind) or {str if isinstance(kind, type) and issubclass(kind, str) else kind}
