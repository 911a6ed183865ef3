"""manifest.json: what a results directory holds and where it came from, and the check of it."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from rain_deploy.core.run import RunRecord
from rain_deploy.results.names import decode_name, encode_name
from rain_deploy.results.unpack import PulledFile

NAME = "manifest.json"
VERSION = 1

Manifest = dict[str, object]


def build(
    run: RunRecord, state: dict[str, object], files: Iterable[PulledFile], *, complete: bool
) -> Manifest:
    """The manifest of one pull.  ``state``: state.json of the node.

    Paths are encoded by ``names.encode_name``, so that any JSON reader can read them and none prints
    what it should not; ``complete`` is false when the run had not ended.
    """
    return {
        "version": VERSION,
        "run": run.id,
        "script": run.script,
        "script_sha256": run.script_sha256,
        "args": list(run.args),
        "exit_code": state.get("exit_code"),
        "outcome": state.get("outcome", ""),
        "complete": complete,
        "versions": state.get("versions", {}),
        "started_s": state.get("started_s"),
        "ended_s": state.get("ended_s"),
        "nodes": state.get("nodes", []),
        "missing_nodes": state.get("missing", []),
        "attempts": state.get("attempt", 1),
        "files": [_entry(file) for file in sorted(files, key=lambda file: file.path)],
    }


def _entry(file: PulledFile) -> dict[str, object]:
    entry: dict[str, object] = {
        "path": encode_name(file.path),
        "size_bytes": file.size_bytes,
        "sha256": file.sha256,
    }
    return entry | ({"name_on_node": encode_name(file.origin)} if file.origin else {})


def claiming(manifest: Manifest, names: Iterable[str]) -> Manifest:
    """The manifest while files are being replaced: not complete, and with ``names`` as ours too."""
    entries = [*_entries(manifest), *({"path": encode_name(name)} for name in names)]
    return manifest | {"complete": False, "files": entries}


def write(directory: Path, manifest: Manifest) -> Path:
    """Write it into a directory that nobody reads yet; its path."""
    path = directory / NAME
    path.write_text(json.dumps(manifest, indent=1) + "\n", encoding="ascii")
    return path


def read(directory: Path) -> Manifest | None:
    """The manifest of a results directory; None when it has none that parses."""
    try:
        manifest = json.loads((directory / NAME).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return manifest if isinstance(manifest, dict) and isinstance(manifest.get("run"), str) else None


def paths(manifest: Manifest) -> frozenset[str]:
    """Names of its files, relative to the directory."""
    return frozenset(decode_name(str(entry["path"])) for entry in _entries(manifest))


def _entries(manifest: Manifest) -> list[dict[str, object]]:
    files = manifest.get("files")
    return [
        entry
        for entry in (files if isinstance(files, list) else [])
        if isinstance(entry, dict) and "path" in entry
    ]


def verify(directory: Path) -> tuple[str, ...]:
    """Compare a results directory with its manifest: a sentence per difference, none when all is well."""
    manifest = read(directory)
    if manifest is None:
        return (f"{directory} has no manifest",)
    problems = [problem for entry in _entries(manifest) if (problem := _check(directory, entry))]
    if manifest.get("complete") is not True:
        problems.append("it was pulled before the run had ended")
    return tuple(problems)


def _check(directory: Path, entry: dict[str, object]) -> str:
    shown = str(entry["path"])
    name = decode_name(shown)
    if name.startswith("/") or ".." in name.split("/"):
        return f"{shown}: not a path of this directory"
    try:
        with open(directory / name, "rb", opener=_no_follow) as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                return f"{shown}: not a file"
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        return f"{shown}: {error.strerror}"
    return "" if digest == entry.get("sha256") else f"{shown}: its content differs"


def _no_follow(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
