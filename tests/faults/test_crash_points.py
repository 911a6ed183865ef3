"""Row 2 of the fault matrix: whenever ``up``, ``scale`` or ``down`` is killed, nothing is lost from sight.

SIGKILL before a call, after it was sent, and after its answer, for every distinct operation; scripts/campaign
crash-points does the same for every single call.  Only the way to the machines is faked.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.account import Account, populated_account
from tests.faults.crash_adapter import Kill, When
from tests.faults.crash_points import (
    SCENES,
    Scene,
    Series,
    calls_of,
    distinct,
    patient_home,
    reaches,
    try_fewer,
    try_late,
    try_points,
    vanishes,
)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    """One for all: every point leaves it as it was, or cleans it."""
    with populated_account(tmp_path_factory.mktemp("cloud") / "account") as made:
        yield made


@pytest.mark.slow
@pytest.mark.parametrize(
    "scene",
    [pytest.param(scene, id=name, marks=pytest.mark.xdist_group(name)) for name, scene in SCENES.items()],
)
def test_a_killed_command_loses_nothing(scene: Scene, cloud: Account) -> None:
    score = try_points(cloud, scene, distinct(scene, calls_of(cloud, scene)), (Series.UP, Series.GC))
    print(f"crash points of {scene.name}: {score}")
    assert not score.failed, "\n".join(score.failed)
    assert score.tried > 0


@pytest.mark.slow
@pytest.mark.xdist_group("what comes late")
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
    scene: str, operation: str, series: Series, cloud: Account
) -> None:
    assert not try_late(cloud, SCENES[scene], operation, series)


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
    before: int, words: tuple[str, ...], kill: Kill, nodes: int, cloud: Account
) -> None:
    assert not try_fewer(cloud, before, words, kill, nodes)


def test_what_a_killed_down_leaves_is_no_living_cluster(cloud: Account) -> None:
    home = patient_home(cloud)
    assert home.run("up", "--nodes", "2").status == 0
    assert home.run("down", kill=Kill("delete-security-group", 1, When.BEFORE)).status == -9
    assert home.run("scale", "2").status == 10
    assert not reaches(home, ("up",), {2})
    assert not vanishes(home, "down")
