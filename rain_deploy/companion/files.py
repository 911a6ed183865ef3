"""Appending to the files of a run that several processes write and read at the same time."""

import os
from pathlib import Path


def append(path: Path, text: str) -> None:
    """Add ``text`` in one write: neither readers nor other writers get in between.  Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
