"""Versions in a node environment, from its metadata: nothing is imported."""

from __future__ import annotations

import platform
from importlib.metadata import distributions
from pathlib import Path

_SHOWN = {"rain-python": "rain", "tensorflow": "tensorflow", "tensorflow-cpu": "tensorflow"}


def versions(env: Path) -> dict[str, str]:
    """Python's version, Rain's and TensorFlow's where they are installed."""
    places = [str(path) for path in (env / "lib").glob("python3*/site-packages")]
    found = {
        label: distribution.version
        for name, label in _SHOWN.items()
        for distribution in distributions(name=name, path=places)
    }
    return {"python": platform.python_version(), **found}
