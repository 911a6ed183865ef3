"""Appends to files that several processes of a run write and read at the same time."""

import os
from pathlib import Path


def append(path: Path, text: str) -> None:
    """Append ``text`` in one write, so that readers and other writers see all of it.  Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
