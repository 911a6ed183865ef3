"""Programs for the nodes that are kept on the operator's machine.

``HOME/cache/engine/ARCH-glibcVERSION/<sha256>/rain`` is an engine; ``…/from/<key>`` names the one made from
``key``.  Entries appear by rename; a damaged one counts as absent and is removed.
"""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from pathlib import Path

from rain_deploy.errors import StateError, disk_full, full


class EngineCache:
    """Engines by what they were made from and where they run.  Safe for many processes at once."""

    def __init__(self, home: Path) -> None:
        self._root = home / "cache/engine"

    def find(self, key: str, arch: str, glibc: str) -> tuple[str, bytes] | None:
        """Return (sha256, binary) of an engine made from ``key`` that runs on a host of this kind."""
        newest = _version(glibc)
        kinds = [
            (_version(path.name.partition("-glibc")[2]), path) for path in self._root.glob(f"{arch}-glibc*")
        ]
        for built, kind in sorted(kinds, reverse=True):
            if built > newest:
                continue
            with contextlib.suppress(OSError):
                sha256 = (kind / "from" / key).read_text("ascii").strip()
                if (binary := whole(kind / sha256 / "rain", sha256)) is not None:
                    return sha256, binary
        return None

    def store(self, key: str, arch: str, glibc: str, binary: bytes) -> str:
        """Keep an engine that was made from ``key`` on a host of this kind; return its SHA-256."""
        sha256 = hashlib.sha256(binary).hexdigest()
        kind = self._root / f"{arch}-glibc{glibc}"
        keep(kind / sha256 / "rain", binary)
        keep(kind / "from" / key, f"{sha256}\n".encode())
        return sha256


def whole(path: Path, sha256: str, *, remove: bool = True) -> bytes | None:
    """Return the file's content if it has this digest; else None, and ``remove`` it."""
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() == sha256:
        return content
    if remove:
        path.unlink()
    return None


def keep(path: Path, content: bytes) -> None:
    """Write a file of the cache, by rename.  Raises StateError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".new-", delete=False) as file:
            new = Path(file.name)
            try:
                file.write(content)
                file.flush()
                new.replace(path)
            except OSError:
                new.unlink(missing_ok=True)
                raise
    except OSError as error:
        if full(error):
            raise disk_full(path) from error
        raise StateError(f"{path} cannot be written: {error.strerror}") from error


def _version(text: str) -> tuple[int, ...]:
    """Return a version of glibc as numbers; an unknown one is older than all."""
    return tuple(int(part) for part in text.split(".") if part.isdigit())
