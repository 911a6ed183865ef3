"""Write to the two streams, data to stdout and everything else to stderr; make the text that goes there."""

import contextlib
import dataclasses
import fcntl
import json
import math
import os
import re
import shutil
import stat
import sys
import termios
import textwrap
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any

import click

from rain_deploy.core.text import duration, hour
from rain_deploy.core.text import size as size_text
from rain_deploy.errors import RainDeployError

Text = Sequence[str | bytes]  # what a command shows: lines of text, and bytes as they are
_COMMAND = re.compile(r"`[^`]*`|rain-deploy [^;,`()]*")
BETWEEN = " · "  # parts of a line
VERSION = 1  # of the JSON of ``--json``; its schema is docs/reference/json-schema.json


class OutputLost(Exception):  # noqa: N818 - it becomes an error of ours where it ends the command
    """Standard output cannot be written: its reader has closed it, or its disk is full."""

    def __init__(self, error: OSError) -> None:
        super().__init__(error)
        self.reader_gone = isinstance(error, BrokenPipeError)
        self.message = f"standard output cannot be written: {error.strerror}"


def echo(message: str | bytes, *, nl: bool = True, err: bool = False) -> None:
    """Write and flush; colours go to a terminal only.  OutputLost.

    What cannot be written to stderr is dropped: progress that nobody can read is no reason to stop the work.
    """
    try:
        click.echo(message, nl=nl, err=err, color=False if "NO_COLOR" in os.environ else None)
    except OSError as error:
        if not err:
            raise OutputLost(error) from error


def waiting_input(descriptor: int = 0) -> bool:
    """Return True if stdin is a file or a pipe with something in it that nobody has read."""
    try:
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode):
            return os.lseek(descriptor, 0, os.SEEK_CUR) < status.st_size
        if stat.S_ISFIFO(status.st_mode) or stat.S_ISSOCK(status.st_mode):
            return any(fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)))
    except OSError:  # no stdin at all
        return False
    return False


def is_terminal(stream: IO[str] | None) -> bool:
    """Return whether a person sits behind ``stream``, which our caller may have closed."""
    return stream is not None and not stream.closed and stream.isatty()


def is_file(stream: IO[str] | None) -> bool:
    """Return whether a stream goes to a file: a pipe may lead to the terminal, as that to ``tee``."""
    with contextlib.suppress(OSError, ValueError):
        return stream is not None and stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
    return False


def same_terminal(one: IO[str] | None, other: IO[str] | None) -> bool:
    """Return whether both streams write to one terminal."""
    if not (one and other and is_terminal(one) and is_terminal(other)):
        return False
    with contextlib.suppress(OSError):
        return os.path.samestat(os.fstat(one.fileno()), os.fstat(other.fileno()))
    return False


def clean(text: str) -> str:
    """Return text of others with everything that could steer a terminal shown instead of sent."""
    return "".join(
        char if char.isprintable() or char in "\n\t" else char.encode("unicode_escape").decode()
        for char in text
    )


def last_lines(text: str) -> list[str]:
    """Return the end of a long text, cut to what a person reads."""
    return [line[:300] for line in clean(text).rstrip().splitlines()[-20:]]


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], *, width: int | None = None, wrap: bool = False
) -> str:
    """Return aligned columns, without those that are empty; lines are cut at ``width`` or the terminal's.

    A head that starts with ``>`` names a column of numbers.  ``wrap``: the last column is not cut, but
    continues in the next line.
    """
    if width is None and is_terminal(sys.stdout):
        width = shutil.get_terminal_size().columns
    columns = []
    for name, *given in zip(head, *rows, strict=True):
        if any(given):
            cells = [name.removeprefix(">"), *(clean(cell).replace("\n", " ") for cell in given)]
            widest = max(map(len, cells))
            columns.append([cell.rjust(widest) if name[:1] == ">" else cell.ljust(widest) for cell in cells])
    lines = ["  ".join(line).rstrip() for line in zip(*columns, strict=True)]
    if not (wrap and width):
        return "\n".join(cut(line, width) for line in lines)
    before = " " * (sum(len(column[0]) + 2 for column in columns[:-1]))
    return "\n".join(textwrap.fill(line, width, subsequent_indent=before) for line in lines)


def cut(line: str, width: int | None) -> str:
    """Return ``line``, with an ellipsis where it is longer than ``width``."""
    return line if width is None or len(line) <= width else line[: width - 1] + "…"


def fitting(parts: Iterable[str], width: int) -> str:
    """Return a line of the parts that are not empty, without the last ones that do not fit in ``width``."""
    shown = [part for part in parts if part]
    while len(shown) > 1 and len(BETWEEN.join(shown)) > width:
        shown.pop()
    return BETWEEN.join(shown)


def folded(lines: str, stream: IO[str] | None) -> str:
    """Return text for ``stream``; in a terminal, a line that is too long is broken between words.

    A command to type stays in one piece, so that it can be copied.
    """
    if not is_terminal(stream):
        return lines
    width = shutil.get_terminal_size().columns
    return "\n".join(_folded(line, width) for line in lines.split("\n"))


def _folded(line: str, width: int) -> str:
    if len(line) <= width:
        return line
    start = re.match(r"\s*(\w+:\s+)?", line)
    assert start
    indent = " " * (start.end() if start[1] else start.end() + 2)
    whole = _COMMAND.sub(lambda found: found[0].replace(" ", "\0"), line)
    pieces = textwrap.wrap(
        whole, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    return "\n".join(pieces).replace("\0", " ")


def wrapped(question: str) -> str:
    """Return a question broken between words, with room for `` [y/N]: `` in the terminal."""
    width = shutil.get_terminal_size().columns - len(" [y/N]: ")
    return "\n".join(textwrap.wrap(question, max(20, width), break_long_words=False, break_on_hyphens=False))


def seconds(value: float | None) -> str:
    """Return ``4.2 s``, ``42 s``, ``3 min 05 s`` or ``2 h 07 min``."""
    return "" if value is None else duration(value)


def size(value: float | None) -> str:
    """Return bytes in powers of 1000: ``12.3 GB``."""
    return "" if value is None else size_text(value)


def moment(epoch_s: float | None) -> str:
    """Return an instant in local time: ``19:54`` today, else ``Nov 29 19:54`` or ``2025-11-29 19:54``."""
    if epoch_s is None:
        return ""
    at, now = time.localtime(epoch_s), time.localtime()
    form = "%Y-%m-%d %H:%M" if at[0] != now[0] else "%b %d %H:%M" if at[:3] != now[:3] else "%H:%M"
    return time.strftime(form, at)


def limit(limit_s: float | None) -> str:
    """Say when machines that cost money power themselves off."""
    if limit_s is None:
        return "no time limit: it costs until you delete it"
    return f"time limit {hour(limit_s, time.time())}"


def short(run: str) -> str:
    """Return the number in a run's id, which names it as well."""
    return found[1] if (found := re.match(r"\d{8}-\d{6}-(\d+)-", run)) else run


def near(path: Path) -> str:
    """Return a path as one would type it here."""
    with contextlib.suppress(OSError, ValueError):  # the directory is gone, or not above the path
        path = path.relative_to(Path.cwd())
    return clean(str(path))


def to_json(value: object) -> Any:
    """Return a record as JSON values: bytes as text, paths as strings, errors as objects."""
    if isinstance(value, RainDeployError):
        value = _error(value)
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


def _error(error: RainDeployError, log: str | None = None) -> dict[str, object]:
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
        error=_error(error, log) if error else None,
    )


def event(name: str, **fields: object) -> str:
    """Return a line of a verb that follows."""
    return _line(version=VERSION, event=name, **fields)


def _line(**values: object) -> str:
    # ASCII, because a locale that cannot print a letter must not break a program that reads us.
    return json.dumps(to_json(values), ensure_ascii=True, allow_nan=False, separators=(", ", ": "))
