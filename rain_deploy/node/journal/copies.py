"""Send the files of a journal to the laptop, and take those that the laptop has of an earlier cluster."""

import contextlib
import hashlib
import io
import json
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ..wire import SEGMENT_NAME, JournalState, JournalUsage, JournalWish, read, to_json
from .segment import MAGIC, is_whole, scan, write_segment
from .store import Journal


def send(cluster_dir: Path) -> int:
    """Write to stdout a tar of what the wish on stdin lacks.  Raises OSError, WireError."""
    wish = read(JournalWish, sys.stdin.buffer.read())
    directory, sums = cluster_dir / "journal", dict[str, list[int | str]]()
    state = _later(directory, wish.after) if wish.after else _whole(directory, wish)
    with tarfile.open(fileobj=sys.stdout.buffer, mode="w|") as tar:

        def add(name: str, data: bytes) -> None:
            header = tarfile.TarInfo(name)
            header.size = len(data)
            sums[name] = [len(data), hashlib.sha256(data).hexdigest()]
            tar.addfile(header, io.BytesIO(data))

        add("state.json", _json(state))
        for path in _wanted(directory, state.files, wish):
            with contextlib.suppress(FileNotFoundError):  # merged or pruned meanwhile
                add(path.name, path.read_bytes())
        add("sums.json", _json(sums))
    sys.stdout.flush()
    return 0


def _whole(directory: Path, wish: JournalWish) -> JournalState:
    journal = Journal(directory)
    journal.load()
    merged = {name: into for name, into in journal.merged().items() if name in wish.have}
    whole = set[str]()
    for into in set(merged.values()):
        with contextlib.suppress(FileNotFoundError):  # merged again meanwhile
            size_bytes = (directory / into).stat().st_size
            other = wish.sizes.get(into, size_bytes) != size_bytes  # another node merged it, of the same name
            if not other and is_whole(directory / into):
                whole.add(into)
    merged = {name: into for name, into in merged.items() if into in whole}
    return JournalState(usage=journal.usage(), files=journal.files(), merged=merged)


def _later(directory: Path, after: str) -> JournalState:
    """Return the segments that are named after this one; the others are not read."""
    names = (path.name for path in directory.glob("*.seg") if SEGMENT_NAME.fullmatch(path.name))
    found = {name: scan(directory / name)[0] for name in names if name > after}
    files = {name: sum(entry.kind == "result" for entry in found[name]) for name in sorted(found)}
    return JournalState(usage=JournalUsage(), files=files)


def _json(value: object) -> bytes:
    return json.dumps(to_json(value)).encode("ascii")


def _wanted(directory: Path, files: dict[str, int], wish: JournalWish) -> Iterator[Path]:
    """Yield the newest files that are missing there, as far as they fit beside what is newer there."""
    left_bytes = wish.total_bytes
    have = set(wish.have)
    for name in sorted(files.keys() | have, reverse=True):
        if name in have:
            left_bytes -= wish.sizes.get(name, 0)
            continue
        try:
            size_bytes = (directory / name).stat().st_size
        except FileNotFoundError:
            continue
        if size_bytes <= min(wish.file_bytes, left_bytes):
            left_bytes -= size_bytes
            yield directory / name


def take(cluster_dir: Path, stream: BinaryIO | None = None) -> JournalUsage:
    """Add the files of a tar on stdin to the journal; return what it holds now.  Raises OSError, TarError."""
    journal = Journal(cluster_dir / "journal")
    with tarfile.open(fileobj=stream or sys.stdin.buffer, mode="r|") as tar:
        for member in tar:
            content = tar.extractfile(member) if member.isreg() else None
            data = content.read() if content else b""
            place = journal.directory / member.name
            if SEGMENT_NAME.fullmatch(member.name) and data.startswith(MAGIC) and not place.exists():
                write_segment(place, (data.removeprefix(MAGIC),))
    journal.load()
    journal.prune()
    return journal.usage()
