"""Make the versioned JSON of ``--json``: one document per command, one line per event.

The schema is docs/reference/json-schema.json.
"""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

from rain_deploy.errors import RainDeployError

VERSION = 1


def to_json(value: object) -> Any:
    """Return a record as JSON values: bytes as text, paths as strings, errors as objects."""
    if isinstance(value, RainDeployError):
        value = error_object(value)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    match value:
        case dict():
            return {str(key): to_json(item) for key, item in value.items()}
        case list() | tuple():
            return [to_json(item) for item in value]
        case bytes():
            return value.decode("utf-8", "backslashreplace")
        case float() if not math.isfinite(value):  # JSON knows neither; written as points.json writes them
            return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        case None | bool() | int() | float() | str():
            return value
    return str(value)


def error_object(error: RainDeployError, log: str | None = None) -> dict[str, object]:
    """Return the ``error`` of an envelope."""
    return {
        "code": f"RD{error.exit_code}",
        "exit_code": error.exit_code,
        "message": error.message,
        "node": error.node,
        "next": error.next_step,
        "still_running": error.still_running,
        "details": error.details,
        "log": log,
    }


def document(
    verb: str, result: object, error: RainDeployError | None, *, log: str | None, exit_code: int
) -> str:
    """Return the document of a command, on one line."""
    return _line(
        version=VERSION,
        verb=verb,
        ok=exit_code == 0,
        exit_code=exit_code,
        result=result,
        error=error_object(error, log) if error else None,
    )


def event(name: str, **fields: object) -> str:
    """Return a line of a verb that follows."""
    return _line(version=VERSION, event=name, **fields)


def _line(**values: object) -> str:
    # ASCII, because a locale that cannot print a letter must not break a program that reads us.
    return json.dumps(to_json(values), ensure_ascii=True, allow_nan=False, separators=(", ", ": "))
