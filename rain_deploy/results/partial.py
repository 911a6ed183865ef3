"""The directory in which results are until they are complete: one command at a time has it."""

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from rain_deploy.errors import Locked

Tell = Callable[[str], object]
"""Shows the user a sentence about what a pull waits for, or about a report that is missing."""
PARTIAL = ".partial"
_LOCK_DEADLINE_S = 600.0
_SILENT_S = 3.0  # how long it waits for another pull without a word


def partial_places(out: Path) -> tuple[Path, Path]:
    """Return where results are until they are complete, if ``out`` is there, and if it is not."""
    return out / PARTIAL, out.parent / f".{out.name}{PARTIAL}"


@contextlib.contextmanager
def partial_directory(out: Path, tell: Tell) -> Iterator[Path]:
    """Yield an empty directory on the same file system that this pull alone holds; delete it at the end."""
    deadline_s = time.monotonic() + _LOCK_DEADLINE_S
    reported = False
    while True:
        inside, beside = partial_places(out)
        partial = inside if out.is_dir() else beside
        partial.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(partial, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(handle, partial):
                break
        os.close(handle)
        left_s = deadline_s - time.monotonic()
        if not reported and left_s < _LOCK_DEADLINE_S - _SILENT_S:
            reported = True
            tell(f"waiting for another command that pulls to {out}, for at most {_LOCK_DEADLINE_S:.0f} s")
        if left_s < 0:
            raise Locked(f"another command has been pulling to {out} for {_LOCK_DEADLINE_S:.0f} s")
        time.sleep(0.1)
    try:
        clear(partial)
        yield partial
    finally:
        if _is_at(handle, partial):
            shutil.rmtree(partial, ignore_errors=True)
        os.close(handle)


def _is_at(handle: int, path: Path) -> bool:
    """Return whether the open directory still has its name: nobody has renamed or deleted it."""
    try:
        return os.path.samestat(os.fstat(handle), path.lstat())
    except FileNotFoundError:
        return False


def linked_or_copied(there: Path, here: Path) -> None:
    """Put a file, or a link, here too.  Some file systems have no hard links.  Raises OSError."""
    try:
        os.link(there, here, follow_symlinks=False)
    except (FileExistsError, FileNotFoundError):
        raise
    except OSError:
        shutil.copy2(there, here, follow_symlinks=False)


def clear(directory: Path) -> None:
    """Delete everything in the directory."""
    for entry in directory.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
