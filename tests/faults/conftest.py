"""What rows of the fault matrix share: one process that forks commands; an account and a home for each."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.matrix import Account, Home, account
from tests.faults.matrix_commands import Commands


@pytest.fixture(scope="session")
def commands() -> Iterator[Commands]:
    with contextlib.closing(Commands()) as made:
        yield made


@pytest.fixture
def cloud(tmp_path: Path, commands: Commands) -> Iterator[Account]:
    with account(tmp_path, commands) as made:
        yield made


@pytest.fixture
def me(cloud: Account) -> Home:
    return cloud.home()
