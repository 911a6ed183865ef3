"""List the results of a run (files, links, empty directories), and what cannot be pulled, with the reason."""

import itertools
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .wire import LeftKind, LeftOut

TOP = ("state.json", "stdout.log", "stderr.log", "points.jsonl", "details.jsonl")
"""The state comes first: once it says that the run is finished, what is read after it is complete."""
_TREES = ("attempts", "figures", "files", "tasks")
_LEFT_OUT = "__pycache__"  # Python writes it, and it is of no use anywhere else
_NO_CONTENT = {stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket", stat.S_IFCHR: "device", stat.S_IFBLK: "device"}


@dataclass(frozen=True, slots=True)
class Entry:
    """A file, an empty directory (its name ends with a slash), or a link."""

    name: str
    length_bytes: int = 0
    target: str = ""  # of a link, relative to its directory


def entries(root: Path, cwd: str) -> Iterator[Entry | LeftOut]:
    """Yield all results of the run in ``root`` in a fixed order; no link is followed."""
    for name in TOP:
        if (root / name).is_file():
            yield Entry(name, (root / name).stat().st_size)
    for tree in _TREES:
        yield from _below(root, tree, {tree, os.path.normpath(f"files/{cwd}")})


def _below(root: Path, tree: str, ours: set[str]) -> Iterator[Entry | LeftOut]:
    """Yield what is in one of the trees; ``ours`` are directories that the script did not make."""
    unread: list[OSError] = []
    for directory, directories, files in os.walk(root / tree, onerror=unread.append):
        place = os.path.relpath(directory, root)
        directories[:] = sorted(name for name in directories if name != _LEFT_OUT)
        links = [name for name in directories if Path(directory, name).is_symlink()]
        for name in sorted((*files, *links)):
            if found := _looked_at(root, f"{place}/{name}"):
                yield found
        if not files and not directories and place not in ours:
            yield Entry(f"{place}/")
    for error in unread:
        if not isinstance(error, FileNotFoundError):
            yield unreadable(os.path.relpath(error.filename, root), error)


def _looked_at(root: Path, name: str) -> Entry | LeftOut | None:
    """Return what has this name; None if it is gone by now."""
    try:
        facts = os.lstat(root / name)
        if stat.S_ISLNK(facts.st_mode):
            target = str((root / name).readlink())
            if inside := _inside(root, name, target):
                return Entry(name, target=inside)
            return LeftOut(
                path=name, kind=LeftKind.LINK, why=f"it is a link to {target}, which is not in the results"
            )
    except FileNotFoundError:
        return None
    except OSError as error:
        return unreadable(name, error)
    if kind := _NO_CONTENT.get(stat.S_IFMT(facts.st_mode)):
        return LeftOut(path=name, kind=LeftKind.SPECIAL, why=f"it is a {kind}, which has no content")
    return Entry(name, facts.st_size)


def _inside(root: Path, name: str, target: str) -> str:
    """Return the target of a link, relative and with ``..`` only at its start; empty if it leads elsewhere.

    Such a target leads nowhere else, wherever the results are and whatever other links there are.
    """
    above = str(Path(name).parent)
    parts = [part for part in target.split("/") if part not in {"", "."}]
    if target.startswith("/") or ".." in itertools.dropwhile(lambda part: part == "..", parts):
        there = os.path.relpath(os.path.realpath(root / above / target), os.path.realpath(root))
        target = os.path.relpath(there, above)
    lands = os.path.normpath(f"{above}/{target}")
    return target if lands.split("/")[0] in {*TOP, *_TREES} else ""


def unreadable(name: str, error: OSError) -> LeftOut:
    """Return what stays because of an error."""
    return LeftOut(path=name, kind=LeftKind.UNREADABLE, why=f"it cannot be read: {error.strerror}")
