"""``pack``: send a run's results as one tar stream, with the checksums last."""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ..files import read_json
from .directory import Run, the_run

_TOP = ("stdout.log", "stderr.log", "points.jsonl", "state.json")
_TREES = ("attempts", "figures", "files")
_BLOCK_BYTES = 1 << 18
_LEFT_OUT = "__pycache__"
"""Python writes it, and it is of no use anywhere else."""


class Measured:
    """Reads exactly ``size`` bytes of a file that may grow or shrink meanwhile, and hashes them.

    A tar member's size is sent before its content: a file that grew is cut, one that shrank is filled up.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._left = size
        self.sum = hashlib.sha256()

    def read(self, size: int = _BLOCK_BYTES, /) -> bytes:
        wanted = min(size, self._left)
        data = self._file.read(wanted)
        data += bytes(wanted - len(data))
        self._left -= wanted
        self.sum.update(data)
        return data


def pack(run: Run, output: BinaryIO) -> None:
    """Write the tar.  Its last member, sums.json, maps each path to [size, sha256].  Raises OSError."""
    sums: dict[str, list[int | str]] = {}
    shipped = read_json(run.path / "shipped.json") or {}
    with tarfile.open(fileobj=output, mode="w|", format=tarfile.PAX_FORMAT, bufsize=_BLOCK_BYTES) as tar:
        for name in _members(run.path, run.about.cwd):
            if name.endswith("/"):
                header = tarfile.TarInfo(name.rstrip("/"))
                header.type, header.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(header)
            elif not _unchanged(run.path, name, shipped):
                _add(tar, run.path, name, sums)
        content = json.dumps(sums, indent=0, sort_keys=True).encode("ascii")
        header = tarfile.TarInfo("sums.json")
        header.size = len(content)
        tar.addfile(header, io.BytesIO(content))


def pack_to_stdout(run_dir: Path) -> int:
    """Pack the run in a directory to stdout."""
    pack(the_run(run_dir), sys.stdout.buffer)
    sys.stdout.buffer.flush()
    return 0


def _members(root: Path, cwd: str) -> Iterator[str]:
    """Yield relative names in a fixed order: files, and empty directories with a slash at the end."""
    yield from (name for name in _TOP if (root / name).is_file())
    for tree in _TREES:
        for directory, directories, files in os.walk(root / tree):
            directories[:] = sorted(name for name in directories if name != _LEFT_OUT)
            place = os.path.relpath(directory, root)
            yield from (f"{place}/{name}" for name in sorted(files))
            if not files and not directories and place not in {tree, os.path.normpath(f"files/{cwd}")}:
                yield f"{place}/"


def _unchanged(root: Path, name: str, shipped: dict[str, str]) -> bool:
    digest = shipped.get(name.removeprefix("files/")) if name.startswith("files/") else None
    file = _open_regular(root / name) if digest is not None else None
    if file is None:
        return False
    with file:
        return hashlib.file_digest(file, "sha256").hexdigest() == digest  # type: ignore[arg-type]


def _open_regular(path: Path) -> BinaryIO | None:
    """Open a regular file; None for anything else.  No link is followed, no pipe is waited for."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return None
    return os.fdopen(descriptor, "rb")


def _add(tar: tarfile.TarFile, root: Path, name: str, sums: dict[str, list[int | str]]) -> None:
    file = _open_regular(root / name)
    if file is None:
        return
    with file:
        facts = os.fstat(file.fileno())
        header = tarfile.TarInfo(name)
        header.size, header.mtime = facts.st_size, int(facts.st_mtime)
        header.mode = 0o755 if facts.st_mode & 0o100 else 0o644
        measured = Measured(file, header.size)
        tar.addfile(header, measured)
        sums[name] = [header.size, measured.sum.hexdigest()]
