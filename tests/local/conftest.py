"""What local tests stand on: a built Rain engine and a node environment."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Installation:
    engine: Path
    """The ``rain`` program."""
    env: Path
    """A node environment, compat in it."""


@pytest.fixture(scope="session")
def installation() -> Installation:
    engine, env = os.environ.get("RAIN_DEPLOY_TEST_ENGINE"), os.environ.get("RAIN_DEPLOY_TEST_ENV")
    if not engine or not env:
        pytest.skip("RAIN_DEPLOY_TEST_ENGINE and RAIN_DEPLOY_TEST_ENV name no engine and environment")
    return Installation(Path(engine), Path(env))
