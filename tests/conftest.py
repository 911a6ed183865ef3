"""Tests side by side: which share a process, how long each group took, and what is made once for all.

A group of tests is a folder of tests/; the seconds of each are printed last.  RAIN_DEPLOY_TEST_CACHE names
where engine and environment are kept (default ~/.cache/rain-deploy-tests), laid out as a home is.
"""

from __future__ import annotations

import collections
import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import platformdirs
import pytest

CACHES = ("cache", "local/cache")
SECONDS: collections.defaultdict[str, float] = collections.defaultdict(float)


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of a file in one process and in order: they share fixtures.  Slow files come first."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(_group(item)))
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)  # within a file the order stays


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Refuse tests whose groups pytest-xdist has overlooked: they would share addresses and fixtures."""
    spread = getattr(session.config.option, "loadgroup", False)
    if spread and not all("@" in item.nodeid for item in session.items):
        raise pytest.UsageError("pytest-xdist overlooks the groups of tests: it does not fit this pytest")


def _group(item: pytest.Item) -> str:
    if item.get_closest_marker("tensorflow"):
        return "tensorflow"  # one alone keeps all cores busy
    alone = item.path.name.startswith("test_matrix_")
    return item.nodeid if alone else item.location[0]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    SECONDS[Path(report.nodeid.partition("::")[0]).parts[1]] += report.duration


def pytest_unconfigure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):  # the process that started this one counts
        return
    line = ", ".join(f"{group} {seconds:.0f}" for group, seconds in sorted(SECONDS.items()))
    if kept := os.environ.get("TEST_SECONDS_FILE"):
        Path(kept).write_text(line, encoding="utf-8")
    elif line:
        print(f"seconds per group: {line}")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "none", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


@pytest.fixture(scope="session")
def test_cache() -> Path:
    cache = Path(os.environ.get("RAIN_DEPLOY_TEST_CACHE") or Path.home() / ".cache/rain-deploy-tests")
    for name in CACHES:
        (cache / name).mkdir(parents=True, exist_ok=True)
    engines = platformdirs.user_data_path("rain-deploy") / "cache/engine"
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if engines.is_dir() and not (cache / "cache/engine").exists():
            shutil.copytree(engines, cache / "cache/engine")  # who ran a quickstart has waited for its build
    return cache
