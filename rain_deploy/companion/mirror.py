"""The run's files in the directory that a process of Rain runs its tasks in.

Each task finds them as the script does, and has them for itself: they are copies, so that a task that writes
to one changes no other task's.  A copy that a task left alone serves the next task.  Files that are too large
for that are links.
"""

import contextlib
import itertools
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

LARGEST_COPY_BYTES = 16_000_000
MOST_COPIED_BYTES = 200_000_000  # by one process of Rain
Stamp = tuple[int, int, int, int]


class Mirror:
    """Copies and links of files below ``source`` in ``root``, which is no other process's."""

    def __init__(self, root: Path, source: Path, names: Iterable[str]) -> None:
        self._root = root
        self._source = source
        self._names = frozenset(names)
        self._linked = self._too_large()
        self._directories = {str(place) for name in self._names for place in PurePosixPath(name).parents}
        self._stamps: dict[str, Stamp] = {}
        """How each copy or link was when it was made."""
        self._shared: dict[str, Stamp] = {}
        """How the file behind each link was then."""

    def _too_large(self) -> set[str]:
        """Return the largest files, so that the others are not too much to copy."""
        sizes = sorted(((self._source / name).stat().st_size, name) for name in self._names)
        totals = itertools.accumulate(size for size, _ in sizes)
        return {
            name
            for (size, name), total in zip(sizes, totals, strict=True)
            if size > LARGEST_COPY_BYTES or total > MOST_COPIED_BYTES
        }

    def reset(self) -> None:
        """Let the directory hold the files as they were shipped, and nothing else.  Raises OSError."""
        intact, others = self._survey()
        for entry in others:
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                Path(entry).unlink()
        for name in sorted(self._names - intact):
            self._make(name)

    def written(self) -> Iterator[tuple[str, int]]:
        """Yield name and size of each file that is no untouched copy, but for links and Python's caches."""
        _, others = self._survey()
        for entry in others:
            yield from self._files(entry)

    def changed_behind_links(self) -> list[str]:
        """Return the names of large files of this node that were written to; each only once."""
        changed = []
        for name, before in self._shared.items():
            now = _stamp((self._source / name).stat())
            if now != before:
                changed.append(name)
                self._shared[name] = now
        return changed

    def own(self, place: Path) -> None:
        """Make copies of the links at and below a path, so that it can be moved away.  Raises OSError."""
        for name in self._shared:
            path = self._root / name
            if (path == place or place in path.parents) and path.is_symlink():
                path.unlink()
                shutil.copy(self._source / name, path)

    def _survey(self) -> tuple[set[str], list[os.DirEntry[str]]]:
        """Return the names that are as they were made, and the entries that must not be there."""
        intact, others, todo = set[str](), list[os.DirEntry[str]](), [""]
        while todo:
            directory = todo.pop()
            with os.scandir(self._root / directory) as entries:
                for entry in entries:
                    name = f"{directory}{entry.name}"
                    if name in self._directories and entry.is_dir(follow_symlinks=False):
                        todo.append(f"{name}/")
                    elif name in self._stamps and self._stamps[name] == _stamp(
                        entry.stat(follow_symlinks=False)
                    ):
                        intact.add(name)
                    else:
                        others.append(entry)
        return intact, others

    def _files(self, entry: "os.DirEntry[str]") -> Iterator[tuple[str, int]]:
        if entry.is_symlink() or entry.name == "__pycache__":
            return
        if entry.is_dir():
            with os.scandir(entry) as entries:
                for inner in entries:
                    yield from self._files(inner)
        elif entry.is_file():
            yield os.path.relpath(entry.path, self._root), entry.stat().st_size

    def _make(self, name: str) -> None:
        source, target = self._source / name, self._root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            if name in self._linked:
                target.symlink_to(source)
                self._shared.setdefault(name, _stamp(source.stat()))
            else:
                shutil.copy(source, target)
        except OSError:
            with contextlib.suppress(OSError):  # half a copy would be wrong data
                target.unlink()
            raise
        self._stamps[name] = _stamp(target.lstat())


def _stamp(found: os.stat_result) -> Stamp:
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
