"""Directories of epochs: Rain panics on a used one, so each life of a process gets a new number."""

from __future__ import annotations

import shutil
from pathlib import Path

from .files import read_json, write_json

_KEPT = 3


def fresh(parent: Path) -> Path:
    """A new directory in ``parent``, numbered upwards; the three before it stay, older ones go."""
    parent.mkdir(parents=True, exist_ok=True)
    numbers = sorted(int(entry.name) for entry in parent.iterdir() if entry.name.isdigit())
    for number in numbers[:-_KEPT]:
        shutil.rmtree(parent / str(number), ignore_errors=True)
    path = parent / str(numbers[-1] + 1 if numbers else 1)
    path.mkdir(mode=0o700)
    return path


def next_number(server_dir: Path) -> int:
    """Number of the next server's life in this cluster, idle ones counted too."""
    path = server_dir / "epoch.json"
    number = int((read_json(path) or {}).get("epoch", 0)) + 1
    write_json(path, {"epoch": number})
    return number
