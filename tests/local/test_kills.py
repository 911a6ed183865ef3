"""One kill of each kind in the middle of a sweep; ``scripts/campaign kills`` makes many of them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.campaigns.kills import KINDS, Kills
from tests.local.command_line import LocalCluster
from tests.local.conftest import MakeCluster

SEED = 20261129
MOST_ROUNDS = 3
"""A sweep may have ended, or a process, at the moment of the kill."""


@pytest.fixture(scope="module")
def cluster(make_cluster: MakeCluster) -> LocalCluster:
    return make_cluster(2)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_kill_costs_no_finished_point(cluster: LocalCluster, tmp_path: Path, kind: str) -> None:
    place = LocalCluster(cluster.line.at(tmp_path), cluster.name)
    kills = Kills(place, random.Random(f"{SEED} {kind}"))  # noqa: S311
    rounds = (kills.round(kind) for _ in range(MOST_ROUNDS))
    found = next((one for one in rounds if one is not None), None)
    assert found is not None, "nothing of this kind was there"
    assert found.wrong == []
    assert found.executed >= 20
