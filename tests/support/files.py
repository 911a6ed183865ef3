"""Files in a directory in which others make and delete files at the same time."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


def everything_below(directory: Path) -> Iterator[Path]:
    """Yield the files, links and directories below; what is deleted meanwhile is left out.

    ``Path.rglob`` raises FileNotFoundError if a directory is deleted while it looks.
    """
    for place, directories, files in os.walk(directory):
        yield from (Path(place, name) for name in (*directories, *files))


def files_with(words: bytes, directory: Path) -> Iterator[Path]:
    """Yield the files below that contain ``words``, but follow no links."""
    for path in everything_below(directory):
        with contextlib.suppress(FileNotFoundError):
            if path.is_file() and not path.is_symlink() and words in path.read_bytes():
                yield path
