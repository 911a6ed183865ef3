"""``pack``: send a run's results as one tar stream, with the checksums last."""

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

from .files import read_json
from .run import the_run

_TOP = ("stdout.log", "stderr.log", "points.jsonl", "state.json")
_TREES = ("attempts", "figures", "files")
_BLOCK_BYTES = 1 << 18
_LEFT_OUT = "__pycache__"  # Python writes it, and it is of no use anywhere else


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


def pack(run_dir: Path, output: BinaryIO = sys.stdout.buffer) -> int:
    """Write the tar.  Its last member, sums.json, maps each path to [size, sha256].  Raises OSError."""
    run = the_run(run_dir)
    sums: dict[str, list[int | str]] = {}
    shipped = {f"files/{name}": digest for name, digest in read_json(run_dir / "shipped.json").items()}
    with tarfile.open(fileobj=output, mode="w|", format=tarfile.PAX_FORMAT, bufsize=_BLOCK_BYTES) as tar:
        for name in _members(run_dir, run.about.cwd):
            if name.endswith("/"):
                header = tarfile.TarInfo(name.rstrip("/"))
                header.type, header.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(header)
            elif sent := _add(tar, run_dir, name, shipped.get(name)):
                sums[name] = sent
        content = json.dumps(sums, indent=0, sort_keys=True).encode("ascii")
        header = tarfile.TarInfo("sums.json")
        header.size = len(content)
        tar.addfile(header, io.BytesIO(content))
    output.flush()
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


def _add(tar: tarfile.TarFile, root: Path, name: str, shipped: str | None) -> list[int | str] | None:
    """Add a regular file, unless it is as it was shipped; return its size and digest if it was added."""
    try:  # no link is followed, no pipe is waited for
        file = os.fdopen(os.open(root / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")
    except OSError:
        return None
    with file:
        facts = os.fstat(file.fileno())
        if not stat.S_ISREG(facts.st_mode):
            return None
        if shipped and hashlib.file_digest(file, "sha256").hexdigest() == shipped:
            return None
        file.seek(0)
        header = tarfile.TarInfo(name)
        header.size, header.mtime = facts.st_size, int(facts.st_mtime)
        header.mode = 0o755 if facts.st_mode & 0o100 else 0o644
        measured = Measured(file, header.size)
        tar.addfile(header, measured)
        return [header.size, measured.sum.hexdigest()]
