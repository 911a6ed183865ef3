"""The whole job on an account: made, run, brought home, deleted, and nothing is left anywhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab.conftest import FIRST_UP_S
from tests.lab.lab import Lab
from tests.local.command_line import CommandLine
from tests.local.test_examples import TRAINING_S, heatmap_and_20_points
from tests.wheels.build import build_offline_mnist

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.tensorflow
@pytest.mark.timeout(3600)
def test_the_published_search_comes_home_unedited_without_the_network_and_nothing_is_left(
    light_lab: Lab, user: CommandLine, tmp_path: Path
) -> None:
    wheel = build_offline_mnist(tmp_path)
    user.well("up", "--nodes", "4", "--yes", "--with", str(wheel), timeout_s=FIRST_UP_S)
    assert [vm.state for vm in light_lab.instances()] == ["running"] * 4
    out = tmp_path / "out"
    user.at(REPOSITORY).well("run", "--out", str(out), "examples/hsearch.py", timeout_s=TRAINING_S)
    assert all(0.5 < accuracy <= 1 for accuracy in heatmap_and_20_points(out, nodes=4))
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
