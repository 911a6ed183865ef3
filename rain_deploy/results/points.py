"""The table of a run: the newest row of each task in points.jsonl, written as CSV and JSON."""

from __future__ import annotations

import csv
import datetime as dt
import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

Row = dict[str, object]
"""A row of points.jsonl."""
_LONGEST_LINE_BYTES = 1 << 20
_BEFORE = ("task", "name")
_AFTER = ("value", "state", "node", "started", "duration_s")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""Starts of a text that a spreadsheet takes for a formula."""


def read_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a points.jsonl; none if there is no such file."""
    if path.exists():
        with path.open("rb") as stream:
            yield from parse_rows(iter(lambda: stream.readline(_LONGEST_LINE_BYTES), b""))


def parse_rows(lines: Iterable[bytes]) -> Iterator[Row]:
    """Yield the rows in these lines; a line that is not a row is skipped."""
    for line in lines:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict):
            yield {**_scalars(row), "parameters": _scalars(row.get("parameters"))}


def _scalars(values: object) -> Row:
    """Return the values that a table can show."""
    items = values.items() if isinstance(values, dict) else ()
    return {str(key): value for key, value in items if value is None or isinstance(value, str | int | float)}


def fold(rows: Iterable[Row], *, all_: bool = False) -> tuple[Row, ...]:
    """Return the newest row of each task, ordered by task id; only points unless ``all_``."""
    newest: dict[tuple[str, int], Row] = {}
    for row in rows:
        task = row.get("task")
        if isinstance(task, int):
            newest[str(row.get("session")), task] = row
    kept = (item for item in newest.items() if all_ or item[1].get("point") is True)
    return tuple(row for _, row in sorted(kept, key=lambda item: item[0][1]))


def parameters(row: Row) -> Row:
    """Return the parameters of a point by name."""
    found = row.get("parameters")
    return found if isinstance(found, dict) else {}


def write_csv(rows: tuple[Row, ...], stream: IO[str]) -> None:
    """Write a header and a line per row, with a column per parameter in order of appearance.

    ``started`` is ISO 8601 in UTC.  Numbers are plain; a text that a spreadsheet would run as a formula
    starts with an apostrophe.
    """
    names = list(dict.fromkeys(name for row in rows for name in parameters(row)))
    fixed = {*_BEFORE, *_AFTER}
    writer = csv.writer(stream, lineterminator="\n")
    headed = [_cell(f"{name} (parameter)" if name in fixed else name) for name in names]
    writer.writerow([*_BEFORE, *headed, *_AFTER])
    for row in rows:
        given = parameters(row)
        values = {**row, "started": _time(row.get("started_s"))}
        writer.writerow(
            [
                *(_cell(values.get(name)) for name in _BEFORE),
                *(_cell(given.get(name)) for name in names),
                *(_cell(values.get(name)) for name in _AFTER),
            ]
        )


def write_json(rows: tuple[Row, ...], stream: IO[str]) -> None:
    """Write a list of the rows, with ``"NaN"``, ``"Infinity"``, ``"-Infinity"`` where JSON has no number."""
    json.dump([_plain(row) for row in rows], stream, indent=1, allow_nan=False)
    stream.write("\n")


def _plain(value: object) -> object:
    match value:
        case float() if not math.isfinite(value):
            return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        case dict():
            return {str(key): _plain(inner) for key, inner in value.items()}
        case list():
            return [_plain(inner) for inner in value]
        case _:
            return value


def _time(seconds: object) -> str:
    try:
        moment = dt.datetime.fromtimestamp(float(str(seconds)), dt.UTC)
    except (ValueError, OverflowError, OSError):
        return ""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _cell(value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        return str(value)
    text = value.encode("utf-8", "backslashreplace").decode()
    return f"'{text}" if text.startswith(_FORMULA) and not _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
