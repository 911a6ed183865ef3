"""Compares a results directory with its manifest, as a user could with any sha256 program."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from rain_deploy.results.manifest import read_manifest
from rain_deploy.results.names import decode_name


def verify(directory: Path) -> tuple[str, ...]:
    """Return a sentence for each difference."""
    found: dict[str, Any] | None = read_manifest(directory)
    if found is None:
        return (f"{directory} has no manifest",)
    problems = [problem for entry in found["files"] if (problem := _problem(directory, entry))]
    problems += [
        f"{link['path']}: it leads elsewhere"
        for link in found["links"]
        if str((directory / decode_name(link["path"])).readlink()) != decode_name(link["target"])
    ]
    if found["complete"] is not True:
        left = "some of the results stay on the node"
        problems.append(left if found["left_on_node"] else "it was pulled before the run had ended")
    return tuple(problems)


def _problem(directory: Path, entry: dict[str, Any]) -> str:
    path = directory / decode_name(entry["path"])
    assert path.is_relative_to(directory), "names stay inside"
    assert ".." not in path.parts, "names stay inside"
    if path.is_symlink() or not path.is_file():
        return f"{entry['path']}: not a file"
    content = path.read_bytes()
    same = (len(content), hashlib.sha256(content).hexdigest()) == (entry["size_bytes"], entry["sha256"])
    return "" if same else f"{entry['path']}: its content differs"
