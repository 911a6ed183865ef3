"""``manifest.json``: what a results directory holds, where it came from, and what stays on the node."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rain_deploy.core.run import RunRecord
from rain_deploy.node.wire import LeftOuts, RunState, RunStatus, from_json
from rain_deploy.results.names import decode_name, encode_name
from rain_deploy.results.unpack import PulledFile

Manifest = dict[str, Any]
MANIFEST = "manifest.json"
_VERSION = 1


def manifest_of(
    run: RunRecord,
    status: RunStatus,
    files: Iterable[PulledFile],
    links: dict[str, str],
    *,
    left: LeftOuts,
    cost: str,
) -> Manifest:
    """Paths are encoded by ``encode_name``, so any JSON reader can read and print them safely."""
    return {
        "version": _VERSION,
        "run": run.id,
        "script": run.script,
        "script_sha256": run.script_sha256,
        "args": list(run.args),
        "exit_code": status.exit_code,
        "outcome": status.outcome,
        "warnings": list(status.warnings),
        "complete": status.state == RunState.FINISHED and not left.hold,
        "versions": status.versions,
        "started_s": status.started_s,
        "ended_s": status.ended_s,
        "nodes": list(status.nodes),
        "missing_nodes": list(status.missing),
        "attempts": status.attempt,
        "cost": cost,
        "files": [listed(file) for file in sorted(files, key=lambda file: file.path)],
        "links": [
            {"path": encode_name(path), "target": encode_name(target)}
            for path, target in sorted(links.items())
        ],
        "left_on_node": [{"path": one.path, "why": one.why} for one in left.left],
        "left_on_node_unnamed": left.more,
    }


def status_of(made: Manifest) -> RunStatus:
    """Return what a manifest says of its run's state.  Raises WireError: somebody may have edited it."""
    state = RunState.FINISHED if made.get("complete") is True else RunState.RUNNING
    renamed = {"attempt": made.get("attempts", 1), "missing": made.get("missing_nodes", [])}
    return from_json(RunStatus, made | renamed | {"state": state})


def listed(file: PulledFile) -> dict[str, str | int]:
    """Return a file as the manifest lists it."""
    entry: dict[str, str | int] = {"path": encode_name(file.path)}
    entry |= {"size_bytes": file.size_bytes, "sha256": file.sha256}
    return entry | ({"name_on_node": encode_name(file.origin)} if file.origin else {})


def write_manifest(directory: Path, manifest: Manifest) -> Path:
    """Write it to the directory; return its path."""
    path = directory / MANIFEST
    path.write_text(json.dumps(manifest, indent=1) + "\n", encoding="ascii")
    return path


def read_manifest(directory: Path) -> Manifest | None:
    """Return the manifest of a results directory, or None if none can be parsed."""
    try:
        manifest = json.loads((directory / MANIFEST).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return manifest if isinstance(manifest, dict) and isinstance(manifest.get("run"), str) else None


def listed_paths(manifest: Manifest) -> frozenset[str]:
    """Return the names of its files and links, relative to the directory."""
    lists = (manifest.get("files"), manifest.get("links"))
    entries = (entry for each in lists if isinstance(each, list) for entry in each)
    return frozenset(
        decode_name(str(entry["path"])) for entry in entries if isinstance(entry, dict) and "path" in entry
    )
