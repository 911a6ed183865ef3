"""A home of a campaign's own, with the caches of the tests: nothing is built again."""

from __future__ import annotations

import os
from pathlib import Path

from tests.conftest import CACHES
from tests.local.command_line import CommandLine


def cached_home(place: Path) -> CommandLine:
    """Return a fresh home in ``place``, with a directory to type in."""
    line = CommandLine(place / "home", place / "work")
    line.cwd.mkdir()
    (line.home / "local").mkdir(parents=True)
    kept = Path(os.environ.get("RAIN_DEPLOY_TEST_CACHE") or Path.home() / ".cache/rain-deploy-tests")
    for name in CACHES:
        (kept / name).mkdir(parents=True, exist_ok=True)
        (line.home / name).symlink_to(kept / name)
    return line
