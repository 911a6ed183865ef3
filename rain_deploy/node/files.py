"""Small files that others read at any moment: JSON replaced atomically, logs kept short."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, TypeVar

from .wire import WireError, read, to_json

Json = dict[str, Any]
T = TypeVar("T")

_LOG_LIMIT_BYTES = 5_000_000
_CHUNK_BYTES = 65_536


def read_json(path: Path) -> Json | None:
    """Return the object in a JSON file; None when there is none that can be read."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def load(path: Path, kind: type[T]) -> T | None:
    """Return what ``write_json`` wrote; None when there is none, or none of this shape."""
    try:
        return read(kind, path.read_bytes())
    except (OSError, WireError):
        return None


def write_json(path: Path, value: object) -> None:
    """Replace the file in one step and durably.  Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w", encoding="ascii") as file:
        json.dump(to_json(value), file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def open_log(path: Path) -> int:
    """Return a file descriptor that appends to a log; a log over 5 MB starts anew."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    if os.fstat(descriptor).st_size > _LOG_LIMIT_BYTES:
        os.ftruncate(descriptor, 0)
    return descriptor


def tail(path: Path, limit_bytes: int = 2000) -> str:
    """Return the last bytes of a file as text; empty when it cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - limit_bytes))
            return file.read(limit_bytes).decode("utf-8", "replace")
    except OSError:
        return ""


class Tail:
    """Bytes of a growing file, at most 64 KB at a time."""

    def __init__(self, path: Path, offset: int = 0) -> None:
        self._path = path
        self._offset = offset

    def read(self, *, whole_lines: bool = False) -> bytes:
        """Return what was added since the last call; empty when nothing was."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read(_CHUNK_BYTES)
                while whole_lines and data and b"\n" not in data and (more := file.read(_CHUNK_BYTES)):
                    data += more
        except OSError:
            return b""
        if whole_lines:
            data = data[: data.rfind(b"\n") + 1]
        self._offset += len(data)
        return data

    def json_lines(self) -> list[Json]:
        """Return the objects of the lines that were completed since the last call; skip other lines."""
        values = []
        while data := self.read(whole_lines=True):
            values += [value for line in data.splitlines() if isinstance(value := _json(line), dict)]
        return values


def _json(line: bytes) -> object:
    try:
        return json.loads(line)
    except ValueError:
        return None
