"""What attempts leave in a run's directory: set aside before the next one starts from clean files."""

import os
import shutil
from pathlib import Path

from ..run import Run

LEFT = "not-kept.txt"  # in attempts/N: what the attempt wrote and is not there
_RESULTS = ("files", "figures", "stdout.log", "stderr.log")
_NOTES = ("companion", "exit.json", "job.json")
_MOST_BYTES = 100_000_000
"""Of all files that the attempts before the last wrote; the last attempt's are the result."""


def clean_files(run: Run) -> Path:
    """Return the place of the shipped files that no script has touched; it is absent if none is needed."""
    return run.path / "shipped"


def copy_tree(source: Path, target: Path) -> None:
    """Copy a directory so that the target is whole or absent.  Raises OSError."""
    half = target.with_name(f".{target.name}.half")
    shutil.rmtree(half, ignore_errors=True)
    try:
        shutil.copytree(source, half, symlinks=True)
        half.rename(target)
    except shutil.Error as error:
        raise OSError(None, str(error.args[0][0][2])) from error
    finally:
        shutil.rmtree(half, ignore_errors=True)


def set_aside(run: Run) -> list[str]:
    """Move what the attempt left, and put clean files in its place; return the names of what is not kept.

    What it printed, drew and wrote goes to ``attempts/N``, notes for other programs to its epoch.  It may be
    called again after it was interrupted.  Raises OSError.
    """
    aside = _aside(run, run.status().attempt)
    for names, place in ((_RESULTS, aside), (_NOTES, run.attempt_dir)):
        place.mkdir(parents=True, exist_ok=True)
        for name in names:
            if not (place / name).exists() and (run.path / name).exists():
                (run.path / name).rename(place / name)
    left = _trim(aside, clean_files(run))
    if not (run.path / "files").exists():
        copy_tree(clean_files(run), run.path / "files")
    return left


def bring_back(run: Run) -> None:
    """Make the results of the attempt before this one those of the run: this one has started no script."""
    aside = _aside(run, run.status().attempt - 1)
    for name in _RESULTS:
        if (aside / name).exists():
            if (run.path / name).is_dir():
                shutil.rmtree(run.path / name)
            (aside / name).rename(run.path / name)


def _aside(run: Run, attempt: int) -> Path:
    return run.path / "attempts" / str(attempt)


def _trim(aside: Path, clean: Path) -> list[str]:
    """Delete files that are as they were shipped, and what is too much; return the names of the latter."""
    others = (other for other in aside.parent.iterdir() if other != aside)
    room_bytes = _MOST_BYTES - sum(size for other in others for size, _ in _written(other))
    left = []
    for size_bytes, path in sorted(_written(aside)):
        name = path.relative_to(aside / "files")
        if _same(path, clean / name):
            path.unlink()
        elif size_bytes <= room_bytes:
            room_bytes -= size_bytes
        else:
            path.unlink()
            left.append(f"{name}, {size_bytes} bytes")
    if left:
        with (aside / LEFT).open("a", encoding="utf-8", errors="surrogateescape") as file:
            file.writelines(f"{line}\n" for line in left)
    return left


def _written(aside: Path) -> list[tuple[int, Path]]:
    found = (Path(directory, name) for directory, _, names in os.walk(aside / "files") for name in names)
    return [(path.lstat().st_size, path) for path in found]


def _same(path: Path, shipped: Path) -> bool:
    """Return whether nobody wrote to a file since it was copied from here."""
    try:
        one, other = path.lstat(), shipped.lstat()
    except OSError:
        return False
    return (one.st_size, one.st_mtime_ns) == (other.st_size, other.st_mtime_ns)
