"""The whole job on an account: made, run, brought home, deleted, and nothing is left anywhere."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from tests.lab.conftest import FIRST_UP_S
from tests.lab.lab import Lab
from tests.local.command_line import CommandLine
from tests.support.results import verify
from tests.wheels.build import build_offline_mnist

REPOSITORY = Path(__file__).parents[2]
TRAINING_S = 1400.0


def points(out: Path) -> list[dict[str, str]]:
    assert verify(out) == ()
    assert [path.name for path in sorted((out / "figures").iterdir())] == ["01.png", "01.svg"]
    with (out / "points.csv").open(newline="") as table:
        return list(csv.DictReader(table))


@pytest.mark.slow
@pytest.mark.tensorflow
@pytest.mark.timeout(3600)
def test_both_searches_come_home_and_nothing_is_left(
    light_lab: Lab, user: CommandLine, tmp_path: Path
) -> None:
    wheel = build_offline_mnist(tmp_path)
    user.well("up", "--nodes", "4", "--yes", "--with", str(wheel), timeout_s=FIRST_UP_S)
    assert [vm.state for vm in light_lab.instances()] == ["running"] * 4
    here = user.at(REPOSITORY)
    for script in ("digits.py", "hsearch.py"):
        out = tmp_path / script
        here.well("run", "--out", str(out), f"examples/{script}", timeout_s=TRAINING_S)
        rows = points(out)
        assert len(rows) == 20
        assert {row["node"] for row in rows} == {f"node-{index}" for index in range(1, 5)}
        assert all(0.1 < float(row["value"]) <= 1 for row in rows)
    told = user.well("down", "--yes", "--json").result
    assert told["certificate"]
    assert light_lab.left() == ()
    assert light_lab.instances() == ()
    assert [str(request) for request in light_lab.log if not (request.documented and request.signed)] == []
    assert len(light_lab.log.of("create-instance")) == 4


@pytest.mark.slow
def test_eight_machines_are_asked_for_at_once(light_lab: Lab, user: CommandLine) -> None:
    light_lab.faults.barrier("create-instance", 8)
    user.well("up", "--nodes", "8", "--yes", timeout_s=FIRST_UP_S)
    assert light_lab.log.peak("create-instance") == 8
    user.well("down", "--yes")
    assert light_lab.left() == ()
