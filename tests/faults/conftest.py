"""What rows of the fault matrix share: an account and a home for each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.account import Account, Home, account


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Account]:
    with account(tmp_path) as made:
        made.seed_foreign()
        yield made


@pytest.fixture
def me(cloud: Account) -> Home:
    return cloud.home()
