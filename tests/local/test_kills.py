"""One kill of each kind in the middle of a sweep; ``scripts/campaign kills`` makes many of them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.campaigns.kills import KINDS, Kills
from tests.local.command_line import LocalCluster
from tests.local.conftest import MakeCluster

SEED = 20261129


@pytest.fixture(scope="module")
def cluster(make_cluster: MakeCluster) -> LocalCluster:
    return make_cluster(2)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_kill_costs_no_finished_point(cluster: LocalCluster, tmp_path: Path, kind: str) -> None:
    place = LocalCluster(cluster.line.at(tmp_path), cluster.name)
    found = Kills(place, random.Random(f"{SEED} {kind}")).round(kind)  # noqa: S311
    assert found is not None, "nothing of this kind was there"
    assert found.wrong == []
    assert found.executed >= 20
