"""Moves results into their directory, and replaces what is there only when everything has arrived."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from rain_deploy.errors import InputError, Locked
from rain_deploy.results import manifest
from rain_deploy.results.stream import encode_name

_LOCK_DEADLINE_S = 600.0


def check_target(out: Path, run_id: str) -> None:
    """Raise InputError unless ``out`` can take the results of this run."""
    found = manifest.read(out)
    if not out.exists() or (found is not None and found["run"] == run_id):
        return
    problem = ""
    if not out.is_dir():
        problem = "is a file"
    elif others := sorted({entry.name for entry in out.iterdir()} - {_partial(out).name}):
        problem = f"holds other files ({encode_name(others[0])})"
    if problem:
        raise InputError(f"the results directory {out} {problem}", next_step="name another with --out")


def _partial(out: Path) -> Path:
    """Return a path on the same file system: in ``out`` if it exists, otherwise beside it."""
    return out / ".partial" if out.is_dir() else out.parent / f".{out.name}.partial"


@contextlib.contextmanager
def partial_directory(out: Path) -> Iterator[Path]:
    """Yield an empty directory that this pull alone holds; it is deleted at the end."""
    partial, handle = _locked(out)
    try:
        clear(partial)
        yield partial
    finally:
        if _is_at(handle, partial):
            shutil.rmtree(partial, ignore_errors=True)
        os.close(handle)


def _locked(out: Path) -> tuple[Path, int]:
    """Return the directory and its locked handle, once no other pull of this run holds it."""
    deadline = time.monotonic() + _LOCK_DEADLINE_S
    while time.monotonic() < deadline:
        partial = _partial(out)
        partial.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(partial, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(handle, partial):
                return partial, handle
        os.close(handle)
        time.sleep(0.1)
    raise Locked(f"another command has been pulling to {out} for {_LOCK_DEADLINE_S:.0f} s")


def _is_at(handle: int, path: Path) -> bool:
    """Return whether the open directory still has its name: nobody has renamed or deleted it."""
    try:
        return os.path.samestat(os.fstat(handle), path.lstat())
    except FileNotFoundError:
        return False


def clear(directory: Path) -> None:
    """Delete everything in a directory."""
    for entry in directory.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def land(partial: Path, out: Path, made: manifest.Manifest, names: list[str]) -> None:
    """Move ``names`` and a manifest from ``partial`` to ``out``; delete what only an earlier pull had.

    Directories that become empty are deleted too.  Raises InputError rather than overwrite a file that is
    not of this run.
    """
    if not out.exists():
        manifest.write(partial, made)
        partial.chmod(0o755)
        partial.rename(out)
        return
    found = manifest.read(out)
    earlier = manifest.paths(found) if found else frozenset()
    gone = earlier.difference(names)
    foreign = [name for name in names if name not in earlier and os.path.lexists(out / name)]
    if foreign:
        raise InputError(
            f"{foreign[0]!a} in {out} does not belong to this run and would be overwritten",
            next_step="name another directory with --out",
        )
    # From here the manifest lists old and new files, so a pull after a kill knows that all are of this run.
    manifest.write(partial, manifest.claiming(made, gone)).replace(out / manifest.NAME)
    for name in gone:
        path = out / name
        if path.resolve().is_relative_to(out.resolve()):
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # not empty: other files stay
                for above in path.relative_to(out).parents[:-1]:
                    (out / above).rmdir()
    for name in names:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (partial / name).replace(out / name)
    manifest.write(partial, made).replace(out / manifest.NAME)
