"""The whole job on an account: made, run, brought home, deleted, and nothing is left anywhere."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import pytest

from rain_deploy.results import manifest
from tests.lab.lab import Lab
from tests.lab.light import LightMachines
from tests.local.command_line import CommandLine
from tests.wheels.build import build_offline_mnist

REPOSITORY = Path(__file__).parents[2]
FIRST_UP_S = 570.0
TRAINING_S = 1400.0
SSH_PORT = 7033


@pytest.fixture
def lab(tmp_path: Path, test_cache: Path) -> Iterator[Lab]:
    machines = LightMachines(tmp_path / "lab", port=SSH_PORT, cache=test_cache / "local/cache")
    try:
        with Lab(machines, ssh_port=SSH_PORT, latency_s=0.3) as running:
            yield running
    finally:
        machines.close()


@pytest.fixture
def line(lab: Lab, tmp_path: Path, test_cache: Path) -> CommandLine:
    home = tmp_path / "home"
    home.mkdir()
    (home / "cache").symlink_to(test_cache / "cache")
    return CommandLine(home, tmp_path, env=tuple(lab.environ().items()))


def points(out: Path) -> list[dict[str, str]]:
    assert manifest.verify(out) == ()
    assert [path.name for path in sorted((out / "figures").iterdir())] == ["01.png", "01.svg"]
    with (out / "points.csv").open(newline="") as table:
        return list(csv.DictReader(table))


@pytest.mark.slow
@pytest.mark.tensorflow
@pytest.mark.timeout(3600)
def test_both_searches_come_home_and_nothing_is_left(lab: Lab, line: CommandLine, tmp_path: Path) -> None:
    wheel = build_offline_mnist(tmp_path)
    line.well("up", "--nodes", "4", "--yes", "--with", str(wheel), timeout_s=FIRST_UP_S)
    assert [vm.state for vm in lab.instances()] == ["running"] * 4
    here = line.at(REPOSITORY)
    for script in ("digits.py", "hsearch.py"):
        out = tmp_path / script
        here.well("run", "--out", str(out), f"examples/{script}", timeout_s=TRAINING_S)
        rows = points(out)
        assert len(rows) == 20
        assert {row["node"] for row in rows} == {f"node-{index}" for index in range(1, 5)}
        assert all(0.1 < float(row["value"]) <= 1 for row in rows)
    told = line.well("down", "--yes", "--json").result
    assert told["certificate"]
    assert lab.left() == ()
    assert lab.instances() == ()
    assert [str(request) for request in lab.log if not (request.documented and request.signed)] == []
    assert len(lab.log.of("create-instance")) == 4


@pytest.mark.slow
def test_eight_machines_are_asked_for_at_once(lab: Lab, line: CommandLine) -> None:
    lab.faults.barrier("create-instance", 8)
    line.well("up", "--nodes", "8", "--yes", timeout_s=FIRST_UP_S)
    assert lab.log.peak("create-instance") == 8
    line.well("down", "--yes")
    assert lab.left() == ()
