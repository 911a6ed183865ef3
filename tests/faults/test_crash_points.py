"""Row 2 of the fault matrix: whenever ``up``, ``scale`` or ``down`` is killed, nothing is lost from sight.

SIGKILL before a call, after it was sent, and after its answer, for every distinct operation; scripts/campaign
crash-points does the same for every single call.  Only the way to the machines is faked.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from rain_deploy.errors import ExitCode
from tests.faults.crash_adapter import Kill, When
from tests.faults.crash_points import (
    SCENES,
    Scene,
    Score,
    Series,
    calls_of,
    distinct,
    reaches,
    try_fewer,
    try_late,
    try_points,
    vanishes,
)
from tests.faults.crash_world import World, world

WORLDS = 2
"""As many as there are cores to expect."""


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, ...]]:
    place = tmp_path_factory.mktemp("worlds")
    with world(place / "1", 1) as first, world(place / "2", 2) as second:
        yield first, second


@pytest.mark.slow
@pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES.keys())
def test_a_killed_command_loses_nothing(
    scene: Scene, worlds: tuple[World, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    calls = calls_of(worlds[0], scene)
    kills = tuple(distinct(scene, calls))

    def share(number: int) -> Score:
        return try_points(worlds[number], scene, kills[number::WORLDS], (Series.UP, Series.GC))

    with ThreadPoolExecutor(WORLDS) as pool:
        score = sum(pool.map(share, range(WORLDS)), Score())
    with capsys.disabled():
        print(f"\ncrash points of {scene.name}: {score} ({len(calls)} distinct operations)")
    assert not score.failed, "\n".join(score.failed)
    assert score.tried > 0


@pytest.mark.slow
@pytest.mark.parametrize("series", [Series.UP, Series.DOWN])
@pytest.mark.parametrize(
    ("scene", "operation"),
    [
        ("up", "register-ssh-key"),
        ("up", "create-security-group"),
        ("up", "add-rule-to-security-group"),
        ("up", "create-anti-affinity-group"),
        ("up", "create-instance"),
        ("grow", "create-instance"),
    ],
)
def test_what_a_dead_command_has_asked_for_is_found_when_it_comes_late(
    scene: str, operation: str, series: Series, worlds: tuple[World, ...]
) -> None:
    assert not try_late(worlds[0], SCENES[scene], operation, series)


@pytest.mark.parametrize(
    ("before", "words", "kill", "nodes"),
    [
        (0, ("up", "--nodes", "3"), Kill("create-instance", 3, When.BEFORE), 2),
        (0, ("up", "--nodes", "3"), Kill("create-instance", 3, When.SENT), 2),
        (1, ("scale", "3"), Kill("create-instance", 2, When.SENT), 2),
        (2, ("scale", "1"), Kill("delete-instance", 1, When.BEFORE), 1),
        (2, ("scale", "1"), Kill("get-operation", 1, When.SENT), 1),
        (2, ("down",), Kill("delete-instance", 2, When.BEFORE), 1),
        (2, ("down",), Kill("delete-ssh-key", 1, When.ANSWERED), 1),
    ],
)
def test_no_machine_runs_beside_the_nodes_that_up_is_asked_for(
    before: int, words: tuple[str, ...], kill: Kill, nodes: int, worlds: tuple[World, ...]
) -> None:
    assert not try_fewer(worlds[0], before, words, kill, nodes)


def test_what_a_killed_down_leaves_is_no_living_cluster(worlds: tuple[World, ...]) -> None:
    home = worlds[0].home()
    assert home.run("up", "--nodes", "2").status == 0
    assert home.run("down", kill=Kill("delete-security-group", 1, When.BEFORE)).status == -9
    assert home.run("scale", "2").status == ExitCode.INPUT
    assert not reaches(home, ("up",), {2})
    assert not vanishes(home, "down")
