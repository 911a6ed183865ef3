"""What a report is about, read from a results directory: manifest, points, and tasks of all attempts."""

from dataclasses import dataclass
from pathlib import Path

from rain_deploy.node.wire import PointRow
from rain_deploy.results import points
from rain_deploy.results.manifest import Manifest, read_manifest

_ROWS = "points.jsonl"


@dataclass(frozen=True, slots=True)
class Sweep:
    """A run and its tasks."""

    directory: Path
    manifest: Manifest
    points: tuple[PointRow, ...]  # the newest row of each, as in points.csv
    tasks: tuple[PointRow, ...]  # the newest row of each task in each attempt, by attempt


def read_sweep(directory: Path) -> Sweep:
    """Return what the results directory holds.  Raises ValueError where it holds no results."""
    manifest = read_manifest(directory)
    if manifest is None:
        raise ValueError(f"{directory} has no manifest.json that can be read")
    rows = tuple(points.read_rows(directory / _ROWS))
    newest = {(row.attempt, row.session, row.task): row for row in rows}
    tasks = tuple(row for _, row in sorted(newest.items(), key=lambda item: item[0]))
    return Sweep(directory, manifest, points.fold(rows), tasks)
