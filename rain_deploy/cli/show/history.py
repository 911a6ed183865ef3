"""Durations of the steps the last time, so that progress can show the time left."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path

LONG_S = 3.0  # shorter steps are not worth a forecast
KEPT = 200


@dataclass
class History:
    """Seconds per step, in a file of the home directory.  It helps, so nothing fails because of it."""

    path: Path | None = None
    _known: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            if self.path is not None:
                pairs = json.loads(self.path.read_text(encoding="utf-8")).items()
                self._known = {str(step): float(seconds) for step, seconds in pairs}

    def expected_s(self, step: str) -> float | None:
        """Return how long the step took the last time; None if that is not known."""
        return self._known.get(step)

    def add(self, step: str, seconds: float) -> None:
        """Keep how long the step took; one that was short this time keeps what it took when it was long."""
        if seconds < LONG_S:
            return
        self._known.pop(step, None)
        self._known[step] = round(seconds, 1)
        with contextlib.suppress(OSError):
            if self.path is not None and self.path.parent.is_dir():
                newest = dict([*self._known.items()][-KEPT:])
                handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)  # in any umask
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    json.dump(newest, file, indent=1)
