"""Moves results and their manifest into a directory; replaces what is there only when all has arrived."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rain_deploy.core.run import RunRecord
from rain_deploy.errors import InputError, Locked
from rain_deploy.node.wire import RunState, RunStatus
from rain_deploy.results.stream import decode_name, encode_name
from rain_deploy.results.unpack import PulledFile

_MANIFEST = "manifest.json"
_VERSION = 1
_PARTIAL = ".partial"
_LOCK_DEADLINE_S = 600.0

Manifest = dict[str, Any]


def check_target(out: Path, run_id: str) -> None:
    """Raise InputError unless ``out`` can take the results of this run."""
    found = read_manifest(out)
    if not out.exists() or (found is not None and found["run"] == run_id):
        return
    problem = ""
    if not out.is_dir():
        problem = "is a file"
    elif others := sorted({entry.name for entry in out.iterdir()} - {_PARTIAL}):
        problem = f"holds other files ({encode_name(others[0])})"
    if problem:
        raise InputError(f"the results directory {out} {problem}", next_step="name another with --out")


@contextlib.contextmanager
def partial_directory(out: Path) -> Iterator[Path]:
    """Yield an empty directory on the same file system that this pull alone holds; delete it at the end."""
    deadline_s = time.monotonic() + _LOCK_DEADLINE_S
    while True:
        partial = out / _PARTIAL if out.is_dir() else out.parent / f".{out.name}{_PARTIAL}"
        partial.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(partial, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(handle, partial):
                break
        os.close(handle)
        if time.monotonic() > deadline_s:
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


def clear(directory: Path) -> None:
    """Delete everything in a directory."""
    for entry in directory.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def land(partial: Path, out: Path, made: Manifest) -> None:
    """Move a manifest and its files from ``partial`` to ``out``; delete what only an earlier pull had.

    Directories that become empty are deleted too.  Raises InputError rather than overwrite a file that is
    not of this run.
    """
    if not out.exists():
        _write_manifest(partial, made)
        partial.chmod(0o755)
        partial.rename(out)
        return
    names, earlier = listed_paths(made), listed_paths(read_manifest(out) or {})
    gone = earlier - names
    if foreign := sorted(name for name in names - earlier if os.path.lexists(out / name)):
        raise InputError(
            f"{foreign[0]!a} in {out} does not belong to this run and would be overwritten",
            next_step="name another directory with --out",
        )
    # From here the manifest lists old and new files, so a pull after a kill knows that all are of this run.
    both = [*made["files"], *({"path": encode_name(name)} for name in gone)]
    _write_manifest(partial, made | {"complete": False, "files": both}).replace(out / _MANIFEST)
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
    _write_manifest(partial, made).replace(out / _MANIFEST)


def manifest_of(run: RunRecord, status: RunStatus, files: Iterable[PulledFile]) -> Manifest:
    """Return the manifest of one pull.  ``status`` is what the node reports about the run.

    Paths are encoded by ``encode_name``, so any JSON reader can read and print them safely.
    """
    return {
        "version": _VERSION,
        "run": run.id,
        "script": run.script,
        "script_sha256": run.script_sha256,
        "args": list(run.args),
        "exit_code": status.exit_code,
        "outcome": status.outcome,
        "complete": status.state == RunState.FINISHED,
        "versions": status.versions,
        "started_s": status.started_s,
        "ended_s": status.ended_s,
        "nodes": list(status.nodes),
        "missing_nodes": list(status.missing),
        "attempts": status.attempt,
        "files": [
            {"path": encode_name(file.path), "size_bytes": file.size_bytes, "sha256": file.sha256}
            | ({"name_on_node": encode_name(file.origin)} if file.origin else {})
            for file in sorted(files, key=lambda file: file.path)
        ],
    }


def _write_manifest(directory: Path, manifest: Manifest) -> Path:
    """Write it to a directory that nobody reads yet, and return its path."""
    path = directory / _MANIFEST
    path.write_text(json.dumps(manifest, indent=1) + "\n", encoding="ascii")
    return path


def read_manifest(directory: Path) -> Manifest | None:
    """Return the manifest of a results directory, or None if none can be parsed."""
    try:
        manifest = json.loads((directory / _MANIFEST).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return manifest if isinstance(manifest, dict) and isinstance(manifest.get("run"), str) else None


def listed_paths(manifest: Manifest) -> frozenset[str]:
    """Return the names of its files, relative to the directory."""
    files = manifest.get("files")
    entries = files if isinstance(files, list) else []
    return frozenset(
        decode_name(str(entry["path"])) for entry in entries if isinstance(entry, dict) and "path" in entry
    )
