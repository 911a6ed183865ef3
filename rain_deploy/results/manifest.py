"""Writes and reads manifest.json: what a results directory holds and where it came from."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from rain_deploy.core.run import RunRecord
from rain_deploy.node.wire import RunStatus
from rain_deploy.results.stream import decode_name, encode_name
from rain_deploy.results.unpack import PulledFile

NAME = "manifest.json"
VERSION = 1

Manifest = dict[str, object]


def build(run: RunRecord, status: RunStatus, files: Iterable[PulledFile], *, complete: bool) -> Manifest:
    """Return the manifest of one pull.  ``status`` is what the node reports about the run.

    Paths are encoded by ``encode_name``, so any JSON reader can read and print them safely.  ``complete`` is
    false if the run had not ended.
    """
    listed = [
        {
            "path": encode_name(file.path),
            "size_bytes": file.size_bytes,
            "sha256": file.sha256,
            **({"name_on_node": encode_name(file.origin)} if file.origin else {}),
        }
        for file in sorted(files, key=lambda file: file.path)
    ]
    return {
        "version": VERSION,
        "run": run.id,
        "script": run.script,
        "script_sha256": run.script_sha256,
        "args": list(run.args),
        "exit_code": status.exit_code,
        "outcome": status.outcome,
        "complete": complete,
        "versions": status.versions,
        "started_s": status.started_s,
        "ended_s": status.ended_s,
        "nodes": list(status.nodes),
        "missing_nodes": list(status.missing),
        "attempts": status.attempt,
        "files": listed,
    }


def claiming(manifest: Manifest, names: Iterable[str]) -> Manifest:
    """Return the manifest to show while files are replaced: incomplete, and with ``names`` added."""
    entries = [*_entries(manifest), *({"path": encode_name(name)} for name in names)]
    return manifest | {"complete": False, "files": entries}


def write(directory: Path, manifest: Manifest) -> Path:
    """Write it to a directory that nobody reads yet, and return its path."""
    path = directory / NAME
    path.write_text(json.dumps(manifest, indent=1) + "\n", encoding="ascii")
    return path


def read(directory: Path) -> Manifest | None:
    """Return the manifest of a results directory, or None if none can be parsed."""
    try:
        manifest = json.loads((directory / NAME).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return manifest if isinstance(manifest, dict) and isinstance(manifest.get("run"), str) else None


def paths(manifest: Manifest) -> frozenset[str]:
    """Return the names of its files, relative to the directory."""
    return frozenset(decode_name(str(entry["path"])) for entry in _entries(manifest))


def _entries(manifest: Manifest) -> list[dict[str, object]]:
    files = manifest.get("files")
    entries = files if isinstance(files, list) else []
    return [entry for entry in entries if isinstance(entry, dict) and "path" in entry]
