"""The table of a run: the newest row of each task in points.jsonl, written as CSV and JSON."""

import contextlib
import csv
import datetime as dt
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from rain_deploy.node.wire import ENDED, Parameter, PointRow, WireError, from_json, parse, read, to_json

_LONGEST_LINE_BYTES = 1 << 20
_BEFORE = ("task", "name")
_AFTER = ("value", "state", "cached", "node", "started", "duration_s", "reason")
WORDS = {"submitted": "waiting"}  # a state in a file, and the word for it on the screen
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A spreadsheet runs a text that starts with one of these as a formula."""


def read_rows(path: Path) -> Iterator[PointRow]:
    """Yield the rows of a points.jsonl; none if there is no such file."""
    if path.exists():
        with path.open("rb") as stream:
            yield from parse_rows(iter(lambda: stream.readline(_LONGEST_LINE_BYTES), b""))


def parse_rows(lines: Iterable[bytes]) -> Iterator[PointRow]:
    """Yield the rows in these lines; a line that is not a row is skipped."""
    for line in lines:
        with contextlib.suppress(WireError):
            yield read(PointRow, line)


def read_json(text: bytes) -> tuple[PointRow, ...]:
    """Return the rows that ``write_json`` wrote.  Raises WireError."""
    rows = parse(text)
    return tuple(from_json(PointRow, row) for row in rows) if isinstance(rows, list) else ()


class Table:
    """The newest row of each task; lines may come in pieces, and only the rows are kept."""

    def __init__(self) -> None:
        self._newest: dict[tuple[int, int], PointRow] = {}
        self._rest = b""

    def feed(self, chunk: bytes) -> None:
        """Take the next piece of a points.jsonl."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        self.add(parse_rows(lines))

    def add(self, rows: Iterable[PointRow]) -> None:
        """Take the next rows."""
        self._newest.update(((row.task, row.session), row) for row in rows)

    def rows(self, *, all_: bool = False) -> tuple[PointRow, ...]:
        """Return the rows ordered by task id; only points unless ``all_``."""
        return tuple(row for _, row in sorted(self._newest.items()) if all_ or row.point)


def fold(rows: Iterable[PointRow], *, all_: bool = False) -> tuple[PointRow, ...]:
    """Return the newest row of each task, ordered by task id; only points unless ``all_``."""
    table = Table()
    table.add(rows)
    return table.rows(all_=all_)


def state_of(row: PointRow) -> str:
    """Return the state of a task as people read it: ``cached`` if its result was in the journal."""
    if row.cached and row.state == "finished":
        return "cached"
    return WORDS.get(row.state, row.state)


def numbered(rows: Iterable[PointRow]) -> Iterator[tuple[int, PointRow]]:
    """Yield the rows with the numbers of the points, from 1; the number of another task is 0."""
    number = 0
    for row in rows:
        number += row.point
        yield number if row.point else 0, row


def count_states(rows: Iterable[PointRow]) -> dict[str, int]:
    """Return how many rows are in each state."""
    counts = Counter(row.state for row in rows)
    return {state: counts[state] for state in dict.fromkeys((*ENDED, *sorted(counts))) if counts[state]}


def first_failure(rows: Iterable[PointRow]) -> str:
    """Return which task failed first, where and why, in one line; empty if none did."""
    failed = [(number, row) for number, row in numbered(rows) if row.state == "failed"]
    if not failed:
        return ""
    number, row = min(failed, key=lambda one: math.inf if one[1].ended_s is None else one[1].ended_s)
    pairs = " ".join(f"{name}={value}" for name, value in row.parameters.items())
    named = " ".join(row.name.split()) or pairs
    what = f"point {number}" if number else f"task {row.task}"
    where = f" on {row.node}" if row.node else ""
    return f"{what}{f' ({named})' if named else ''} failed{where}: {row.message or 'no reason given'}"


def parameter_names(rows: Iterable[PointRow]) -> list[str]:
    """Return the names of the tasks' parameters, as they appear."""
    return list(dict.fromkeys(name for row in rows for name in row.parameters))


def value_names(rows: Iterable[PointRow]) -> list[str]:
    """Return the names of the values that the tasks returned in dicts, tuples and lists, as they appear."""
    return list(dict.fromkeys(name for row in rows for name in row.values))


def write_csv(rows: tuple[PointRow, ...], stream: IO[str]) -> None:
    """Write a header and a line per row, with a column per parameter and named value.

    ``started`` is ISO 8601 in UTC.  Numbers are plain; a text that a spreadsheet would run as a formula
    starts with an apostrophe.
    """
    names = parameter_names(rows)
    headed = [f"{name} (parameter)" if name in _BEFORE + _AFTER else name for name in names]
    writer = csv.writer(stream, lineterminator="\n")
    values = value_names(rows)
    taken = {*_BEFORE, *_AFTER, *names}
    returned = [f"{name} (result)" if name in taken else name for name in values]
    writer.writerow([*_BEFORE, *map(_cell, headed), "value", *map(_cell, returned), *_AFTER[1:]])
    for row in rows:
        given = (row.parameters.get(name) for name in names)
        got = (row.values.get(name) for name in values)
        after = (row.state, row.cached, row.node, _time(row.started_s), row.duration_s, row.message)
        writer.writerow(map(_cell, (row.task, row.name, *given, row.value, *got, *after)))


def write_json(rows: tuple[PointRow, ...], stream: IO[str]) -> None:
    """Write a list of the rows, with ``"NaN"``, ``"Infinity"``, ``"-Infinity"`` where JSON has no number."""
    before = "[\n"
    for row in rows:  # one after the other: there may be 100,000
        stream.write(before + json.dumps(_plain(to_json(row)), allow_nan=False))
        before = ",\n"
    stream.write("\n]\n" if rows else "[]\n")


def _plain(value: object) -> object:
    match value:
        case float() if not math.isfinite(value):
            return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        case dict():
            return {key: _plain(inner) for key, inner in value.items()}
        case _:
            return value


def _time(seconds: float | None) -> str:
    try:
        moment = dt.datetime.fromtimestamp(math.nan if seconds is None else seconds, dt.UTC)
    except (ValueError, OverflowError, OSError):
        return ""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _cell(value: Parameter | None) -> str:
    if not isinstance(value, str):
        return "" if value is None else str(_plain(value))
    text = value.encode("utf-8", "backslashreplace").decode()
    if text.startswith(_FORMULA):
        try:
            float(text)
        except ValueError:
            return f"'{text}"
    return text
