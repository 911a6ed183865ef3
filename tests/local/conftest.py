"""Homes, clusters and what they stand on: one engine and one environment per machine, made by ``up`` itself.

Every home of the tests has its two cache directories in the one that RAIN_DEPLOY_TEST_CACHE names.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import CACHES
from tests.local.bare_rain import BareRain, bare_rain
from tests.local.command_line import STARTED, CommandLine, LocalCluster, living_in

FIRST_UP_S = 570.0
"""The engine's build included; pytest's own limit is 600 s."""


@dataclass(frozen=True)
class Installation:
    engine: Path
    """The ``rain`` program."""
    env: Path
    """A node environment, compat in it."""


MakeHome = Callable[[], CommandLine]


@pytest.fixture(scope="session")
def make_home(test_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeHome]:
    """Fresh homes but for the caches, each with a directory to type in.  At the end nothing runs in any."""
    made: list[CommandLine] = []

    def make() -> CommandLine:
        place = tmp_path_factory.mktemp("user")
        line = CommandLine(place / "home", place / "work")
        line.cwd.mkdir()
        (line.home / "local").mkdir(parents=True)
        for name in CACHES:
            (line.home / name).symlink_to(test_cache / name)
        made.append(line)
        return line

    yield make
    left = {}
    for line in made:
        for cluster in line.clusters():
            line("down", "-c", cluster["name"], "--yes", "--discard-results")
        left.update(living_in(line.home))
    assert not left, "processes of clusters that are down"


MakeCluster = Callable[..., LocalCluster]


@pytest.fixture(scope="session")
def make_cluster(make_home: MakeHome) -> MakeCluster:
    """Clusters of ``nodes`` nodes, in a home of their own unless one is given."""
    numbers = itertools.count(1)

    def make(nodes: int = 2, *flags: str, line: CommandLine | None = None) -> LocalCluster:
        cluster = LocalCluster(line or make_home(), f"c{next(numbers)}")
        cluster.well("up", "--provider", "local", "--nodes", str(nodes), *flags, timeout_s=FIRST_UP_S)
        return cluster

    return make


@pytest.fixture(scope="session")
def session_cluster(make_cluster: MakeCluster) -> LocalCluster:
    """Two nodes for all tests that leave a cluster as it was."""
    return make_cluster(2)


@pytest.fixture(autouse=True)
def _no_command_outlives_its_test() -> Iterator[None]:
    STARTED.clear()
    yield
    for running in STARTED:
        running.kill()


@pytest.fixture
def shared(session_cluster: LocalCluster, tmp_path: Path) -> Iterator[LocalCluster]:
    """The session's cluster, with a directory of the test's own to type in; runs that it leaves are ended."""
    cluster = LocalCluster(session_cluster.line.at(tmp_path), session_cluster.name)
    yield cluster
    for state in cluster.directory.glob("runs/*/state.json"):
        if json.loads(state.read_text())["state"] != "finished":
            cluster("cancel", state.parent.name)


@pytest.fixture(scope="session")
def installation(request: pytest.FixtureRequest) -> Installation:
    """What the session's cluster was installed with, unless two variables name another."""
    engine, env = os.environ.get("RAIN_DEPLOY_TEST_ENGINE"), os.environ.get("RAIN_DEPLOY_TEST_ENV")
    if engine and env:
        return Installation(Path(engine), Path(env))
    cluster: LocalCluster = request.getfixturevalue("session_cluster")
    config = json.loads((cluster.directory / "nodes/1/node.json").read_text())
    return Installation(Path(config["engine"]), Path(config["env"]))


@pytest.fixture(scope="session", name="bare_rain")
def _bare_rain(installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BareRain]:
    with bare_rain(installation.engine, installation.env, tmp_path_factory.mktemp("bare")) as rain:
        yield rain
