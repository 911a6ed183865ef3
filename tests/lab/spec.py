"""The routes of the Exoscale API and what a request must look like, from the document that the SDK ships."""

from __future__ import annotations

import functools
import importlib.resources
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote
from uuid import UUID

from jsonschema import Draft4Validator, FormatChecker

VERBS = ("get", "post", "put", "delete")


@dataclass(frozen=True, slots=True)
class Route:
    """One documented operation."""

    name: str
    method: str
    pattern: re.Pattern[str]
    parameters: tuple[str, ...]  # of the path, in order
    uuids: frozenset[str]
    body: Mapping[str, Any] | None  # the body's schema


@functools.cache
def document() -> dict[str, Any]:
    """OpenAPI 3.0, with ``nullable`` said as draft 4 of JSON Schema says it."""
    text = (importlib.resources.files("exoscale") / "openapi.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text, object_hook=_nullable)
    return found


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    if schema.get("nullable") is True and isinstance(schema.get("type"), str):
        schema["type"] = [schema["type"], "null"]
        if "enum" in schema:
            schema["enum"].append(None)
    return schema


@functools.cache
def _routes() -> Mapping[tuple[str, str], tuple[Route, ...]]:
    """By method and first word of the path."""
    found: dict[tuple[str, str], tuple[Route, ...]] = {}
    for path, item in document()["paths"].items():
        for verb in VERBS:
            if verb in item:
                key = (verb.upper(), _first_word(path))
                found[key] = (*found.get(key, ()), _route(verb.upper(), path, item[verb]))
    return found


def _first_word(path: str) -> str:
    return path.split("/")[1]


def _route(method: str, path: str, operation: Mapping[str, Any]) -> Route:
    parts = re.split(r"\{([^}]+)\}", path)
    pattern = "".join("([^/:]+)" if n % 2 else re.escape(part) for n, part in enumerate(parts))
    declared = operation.get("parameters", ())
    content = operation.get("requestBody", {}).get("content", {})
    return Route(
        name=operation["operationId"],
        method=method,
        pattern=re.compile(pattern),
        parameters=tuple(parts[1::2]),
        uuids=frozenset(each["name"] for each in declared if each["schema"].get("format") == "uuid"),
        body=content.get("application/json", {}).get("schema"),
    )


def find(method: str, path: str) -> tuple[Route, dict[str, str]] | None:
    """The operation behind a path (after ``/v2``, as on the wire) and the path's parameters, decoded."""
    if not path.startswith("/"):
        return None
    for route in _routes().get((method, _first_word(path).partition(":")[0]), ()):
        if match := route.pattern.fullmatch(path):
            values = (unquote(value) for value in match.groups())
            return route, dict(zip(route.parameters, values, strict=True))
    return None


def validator(schema: Mapping[str, Any]) -> Draft4Validator:
    """Of a schema that may refer to the document's components."""
    whole = {**schema, "components": document()["components"]}
    return Draft4Validator(whole, format_checker=FormatChecker(formats=["uuid"]))


@functools.cache
def _validator(operation: str) -> Draft4Validator:
    every = (route for routes in _routes().values() for route in routes)
    return validator(next(route.body or {} for route in every if route.name == operation))


def wrong_path(route: Route, parameters: Mapping[str, str]) -> str | None:
    """Why a path's parameters are refused."""
    for name in route.uuids & parameters.keys():
        try:
            UUID(parameters[name])
        except ValueError:
            return f"Invalid value in {name} - should be an UUID"
    return None


def wrong_body(route: Route, body: Mapping[str, Any]) -> list[str]:
    """What is refused in a body, in the words of the real API where these are known."""
    if route.body is None:
        return []
    errors = list(_validator(route.name).iter_errors(body))
    absent = [key for error in errors if error.validator == "required" for key in _absent(error)]
    values = [
        f"Invalid value in {'.'.join(map(str, error.absolute_path)) or 'body'}"
        f" (description: {error.schema.get('description', '')}) - {_rule(error)}"
        for error in errors
        if error.validator != "required"
    ]
    missing = [f"missing keys {', '.join(repr(key) for key in dict.fromkeys(absent))}"] if absent else []
    return missing + values


def _absent(error: Any) -> list[str]:
    return [key for key in error.validator_value if key not in error.instance]


def _rule(error: Any) -> str:
    if error.validator in {"minimum", "maximum"} and "maximum" in error.schema:
        return f"should be an Integer between {error.schema['minimum']} {error.schema['maximum']}"
    return f"should match {error.validator} {error.validator_value}"
