"""A node's environment breaks after ``up``: a run says so, results come home, and ``up`` repairs it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from rain_deploy.core.spec import ResolvedEnvironment
from rain_deploy.parts.software import environment_digest, node_lock
from tests.local.command_line import LocalCluster
from tests.local.conftest import MakeCluster, MakeHome
from tests.local.machines import filled
from tests.local.scripts import SQUARES
from tests.support.results import verify


@pytest.fixture
def broken(
    make_home: MakeHome, make_cluster: MakeCluster, request: pytest.FixtureRequest
) -> tuple[LocalCluster, Path]:
    """A cluster with a run, and then without its environment's Python; where that environment is."""
    whole, line, digest = filled(request), make_home(), environment_digest(ResolvedEnvironment(node_lock()))
    cache = line.home / "local/cache"
    cache.unlink()
    (cache / "envs").mkdir(parents=True)
    for name in ("engine", "uv"):
        (cache / name).symlink_to(whole / name)
    home = cache / "envs" / digest
    subprocess.run(["cp", "-as", str(whole / "envs" / digest), str(home)], check=True, timeout=120)
    cluster = make_cluster(1, line=line)
    (line.cwd / "squares.py").write_text(SQUARES)
    cluster.well("run", "squares.py")
    (home / "bin/python").unlink()
    return cluster, home


def test_results_come_home_without_the_environment(broken: tuple[LocalCluster, Path]) -> None:
    cluster, _home = broken
    told = cluster("run", "squares.py")
    assert told.exit_code == 40, told
    assert "the Python environment of the server node cannot be used" in told.stderr
    assert "`rain-deploy up` builds it again" in told.stderr
    check = cluster.well("check", "--provider", "local").stdout
    assert "the Python environment is damaged and will be installed again" in check
    (first, *_rest) = sorted(cluster.well("runs", "--json").result["runs"], key=lambda run: str(run["run"]))
    out = cluster.line.cwd / "again"
    cluster.well("pull", str(first["run"]), "--out", str(out))
    verify(out)
    cluster.well("down")


@pytest.mark.slow
def test_up_builds_a_damaged_environment_again_and_says_so(broken: tuple[LocalCluster, Path]) -> None:
    cluster, home = broken
    result = cluster.well("up", "--provider", "local", "--json", timeout_s=300).result
    assert result["changed"] == ["node-1: environment, which was damaged"]
    assert (home / ".ok").stat().st_size > 0
    cluster.run("squares.py")
    assert cluster.well("up", "--provider", "local", "--json").result["changed"] == []
    cluster.well("down")
