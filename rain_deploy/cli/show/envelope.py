"""Make the versioned JSON of ``--json``: one document per command, one line per event.

The schema is docs/reference/json-schema.json.
"""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

from rain_deploy.errors import ExitCode, RainDeployError

VERSION = 1


def to_json(value: object) -> Any:
    """Return a record as JSON values: bytes as text, paths as strings, errors as objects."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, RainDeployError):
        return error_object(value)
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    return _scalar(value)


def _scalar(value: object) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, float):
        # JSON knows neither; written as points.json writes them.
        return value if math.isfinite(value) else _no_number(value)
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def _no_number(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def error_object(error: RainDeployError, log: str | None = None) -> dict[str, object]:
    """Return the ``error`` of an envelope."""
    return {
        "code": f"RD{int(error.exit_code)}",
        "exit_code": int(error.exit_code),
        "message": error.message,
        "node": error.node,
        "next": error.next_step,
        "still_running": error.still_running,
        "details": error.details,
        "log": log,
    }


def document(
    verb: str,
    result: object,
    error: RainDeployError | None,
    *,
    log: str | None = None,
    exit_code: int | None = None,
) -> str:
    """Return the document of a command, on one line.  ``exit_code``: if it is not the error's."""
    code = int(error.exit_code if error else ExitCode.DONE) if exit_code is None else exit_code
    return _line(
        {
            "version": VERSION,
            "verb": verb,
            "ok": code == ExitCode.DONE,
            "exit_code": code,
            "result": to_json(result),
            "error": error_object(error, log) if error else None,
        }
    )


def event(name: str, **fields: object) -> str:
    """Return a line of a verb that follows."""
    return _line({"version": VERSION, "event": name} | {key: to_json(value) for key, value in fields.items()})


def _line(value: dict[str, Any]) -> str:
    # ASCII, because a locale that cannot print a letter must not break a program that reads us.
    return json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(", ", ": "))
