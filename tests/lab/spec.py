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

from jsonschema import Draft4Validator, FormatChecker


@dataclass(frozen=True, slots=True)
class Route:
    """One documented operation."""

    name: str
    method: str
    pattern: re.Pattern[str]
    parameters: tuple[str, ...]  # of the path, in order
    schemas: Mapping[str, Any]  # of "path", which is an object of its parameters, and "body"


@functools.cache
def document() -> dict[str, Any]:
    """OpenAPI 3.0; what it says of values is draft 4 of JSON Schema, but for ``nullable``."""
    text = (importlib.resources.files("exoscale") / "openapi.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


@functools.cache
def routes() -> Mapping[str, Route]:
    """By name."""
    items = document()["paths"].items()
    found = (_route(verb, path, item[verb]) for path, item in items for verb in item)
    return {each.name: each for each in found}


def _route(verb: str, path: str, operation: Mapping[str, Any]) -> Route:
    parts = re.split(r"\{([^}]+)\}", path)
    pattern = "".join("([^/:]+)" if n % 2 else re.escape(part) for n, part in enumerate(parts))
    declared = operation.get("parameters", ())
    content = operation.get("requestBody", {}).get("content", {})
    found = {"path": {"properties": {each["name"]: each["schema"] for each in declared}}}
    found |= {"body": content["application/json"]["schema"]} if content else {}
    return Route(operation["operationId"], verb.upper(), re.compile(pattern), tuple(parts[1::2]), found)


def find(method: str, path: str) -> tuple[Route, dict[str, str]] | None:
    """The operation behind a path (after ``/v2``, as on the wire) and the path's parameters, decoded."""
    for route in routes().values():
        if route.method == method and (match := route.pattern.fullmatch(path)):
            return route, dict(zip(route.parameters, map(unquote, match.groups()), strict=True))
    return None


def validator(schema: Mapping[str, Any]) -> Draft4Validator:
    """Of a schema that may refer to the document's components."""
    whole = {**schema, "components": document()["components"]}
    return Draft4Validator(whole, format_checker=FormatChecker(formats=["uuid"]))


@functools.cache
def _validator(operation: str) -> Draft4Validator:
    return validator({"properties": routes()[operation].schemas})


def wrong(route: Route, parameters: Mapping[str, str], body: object) -> list[str]:
    """What is refused in a request, in the words of the real API where these are known."""
    errors = list(_validator(route.name).iter_errors({"path": parameters, "body": body}))
    required = (error for error in errors if error.validator == "required")
    absent = [key for error in required for key in error.validator_value if key not in error.instance]
    missing = [f"missing keys {', '.join(map(repr, dict.fromkeys(absent)))}"] if absent else []
    return missing + [_sentence(error) for error in errors if error.validator != "required"]


def _sentence(error: Any) -> str:
    rule, schema = f"match {error.validator} {error.validator_value}", error.schema
    if error.validator in {"minimum", "maximum"} and "maximum" in schema:
        rule = f"be an Integer between {schema['minimum']} {schema['maximum']}"
    where = ".".join(map(str, list(error.absolute_path)[1:])) or "body"
    return f"Invalid value in {where} (description: {schema.get('description', '')}) - should {rule}"
