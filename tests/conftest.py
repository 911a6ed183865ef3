"""Seconds per group of tests, a group being a folder of tests/, printed last; and what is made once for all.

RAIN_DEPLOY_TEST_CACHE names where engine and environment are kept (default ~/.cache/rain-deploy-tests), laid
out as a home is.
"""

from __future__ import annotations

import collections
import contextlib
import os
import shutil
from pathlib import Path

import platformdirs
import pytest

CACHES = ("cache", "local/cache")
SECONDS: collections.defaultdict[str, float] = collections.defaultdict(float)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    SECONDS[Path(report.nodeid.partition("::")[0]).parts[1]] += report.duration


def pytest_unconfigure(config: pytest.Config) -> None:
    line = ", ".join(f"{group} {seconds:.0f}" for group, seconds in sorted(SECONDS.items()))
    if kept := os.environ.get("TEST_SECONDS_FILE"):
        Path(kept).write_text(line, encoding="utf-8")
    elif line:
        print(f"seconds per group: {line}")


@pytest.fixture(scope="session")
def test_cache() -> Path:
    cache = Path(os.environ.get("RAIN_DEPLOY_TEST_CACHE") or Path.home() / ".cache/rain-deploy-tests")
    for name in CACHES:
        (cache / name).mkdir(parents=True, exist_ok=True)
    engines = platformdirs.user_data_path("rain-deploy") / "cache/engine"
    if engines.is_dir():  # who has run a quickstart has waited for its build once
        with contextlib.suppress(FileExistsError):
            shutil.copytree(engines, cache / "cache/engine")
    return cache
