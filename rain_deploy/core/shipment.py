"""What is shipped with a run: files at their places below one root."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ShippedFile:
    """A file to ship.  ``path`` is below the root: POSIX, never absolute, no ``..``."""

    path: str
    source: Path
    """Absolute.  Of a link, the content is shipped."""
    size_bytes: int
    sha256: str
    mode: int
    """0o755 when its owner may execute it, else 0o644."""
    data: bytes | None = None
    """The content, where it is no file here."""


@dataclass(frozen=True, slots=True)
class Shipment:
    """What ``shipping.collect`` found.  Only ``files`` are sent, however high ``root`` is."""

    root: Path
    cwd: str
    """Working directory of the script below ``root``; ``.`` usually."""
    script: str
    """Path of the script below ``root``."""
    files: tuple[ShippedFile, ...]
    """In order of their paths."""
    directories: tuple[str, ...] = ()
    """Directories to make: named by the script, or empty in what ``--files`` names."""
    missing: tuple[str, ...] = ()
    """Sentences for the user about what is probably missing; each names ``--files``."""

    @property
    def total_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)

    @property
    def digests(self) -> tuple[tuple[str, str], ...]:
        """Path and sha256 of each file."""
        return tuple((file.path, file.sha256) for file in self.files)

    @property
    def script_sha256(self) -> str:
        return next(file.sha256 for file in self.files if file.path == self.script)
