"""Small files that others read at any moment: JSON replaced atomically, short logs, the configuration."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from .wire import Member, NodeConfig, WireError, read, to_json

Json = dict[str, Any]
T = TypeVar("T")

_LOG_LIMIT_BYTES = 5_000_000
_CHUNK_BYTES = 65_536


def read_json(path: Path) -> Json:
    """Return the object in a JSON file; an empty one if it cannot be read."""
    with contextlib.suppress(OSError, ValueError):
        if isinstance(value := json.loads(path.read_bytes()), dict):
            return value
    return {}


def load(path: Path, kind: type[T]) -> T | None:
    """Return what ``write_json`` wrote; None if the file is missing or not of this shape."""
    try:
        return read(kind, path.read_bytes())
    except (OSError, WireError):
        return None


def append(path: Path, text: str) -> None:
    """Append a text, whole or not at all.  Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab", buffering=0) as file:
        size, left = file.tell(), memoryview(text.encode())
        try:
            while left:
                left = left[file.write(left) :]
        except OSError:
            file.truncate(size)
            raise


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
    """Return a file descriptor that appends to a log; a log over 5 MB is emptied first."""
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
    """Reads a growing file, at most 64 KB at a time."""

    def __init__(self, path: Path, offset: int = 0) -> None:
        self._path = path
        self._offset = offset

    def read(self, *, whole_lines: bool = False) -> bytes:
        """Return what was added since the last call; empty if nothing was."""
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

    def json_lines(self) -> Iterator[Json]:
        """Yield the objects of the lines that were completed since the last call; skip other lines."""
        while data := self.read(whole_lines=True):
            for line in data.splitlines():
                with contextlib.suppress(ValueError):
                    if isinstance(value := json.loads(line), dict):
                        yield value


class NotInstalled(Exception):  # noqa: N818 - a fact about the node, worded as one
    """node.json or cluster.json is absent or not of its shape."""


def node_config(node_dir: Path) -> NodeConfig:
    """Return the node's configuration.  Raises NotInstalled."""
    return installed(node_dir / "node.json", NodeConfig)


def installed(path: Path, kind: type[T]) -> T:
    """Return what a file of the node's configuration holds.  Raises NotInstalled."""
    try:
        return read(kind, path.read_bytes())
    except (OSError, WireError) as error:
        raise NotInstalled(f"{path}: {error}") from error


def member_name(nodes: tuple[Member, ...], governor: str) -> str:
    """Return the name of the node whose governor Rain calls ``address:port``, or that text when unknown."""
    # The port is enough where the address differs: Rain names a governor by the address that it sees.
    address, _, port = governor.rpartition(":")
    same_port = [node for node in nodes if str(node.governor_port) == port]
    exact = [node for node in same_port if node.address == address]
    return (exact or same_port)[0].name if exact or len(same_port) == 1 else governor
