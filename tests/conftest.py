"""Seconds per group of tests, a group being a folder of tests/: printed last, and kept for scripts/test."""

from __future__ import annotations

import collections
import os
from pathlib import Path

import pytest

SECONDS: collections.defaultdict[str, float] = collections.defaultdict(float)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    SECONDS[Path(report.nodeid.partition("::")[0]).parts[1]] += report.duration


def pytest_unconfigure(config: pytest.Config) -> None:
    line = ", ".join(f"{group} {seconds:.0f}" for group, seconds in sorted(SECONDS.items()))
    if kept := os.environ.get("TEST_SECONDS_FILE"):
        Path(kept).write_text(line, encoding="utf-8")
    elif line:
        print(f"seconds per group: {line}")
