"""How often machines are spoken to: counts of connections, exec channels and bytes, never times."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from rain_deploy.runs.journal import WINDOW_S
from tests.local.command_line import LocalCluster
from tests.local.conftest import MakeCluster, MakeHome
from tests.local.scripts import SQUARES


def new_commands(cluster: LocalCluster, before: dict[int, int]) -> dict[int, list[str]]:
    return {node: cluster.commands(node)[seen:] for node, seen in before.items()}


def seen(cluster: LocalCluster) -> dict[int, int]:
    nodes = cluster.well("status", "--json").result["nodes"]
    return {node: len(cluster.commands(node)) for node in range(1, len(nodes) + 1)}


def test_a_run_speaks_once_with_every_node_and_little_more_with_the_server(
    shared: LocalCluster, tmp_path: Path
) -> None:
    (tmp_path / "squares.py").write_text(SQUARES)
    shared.run("squares.py")  # learns what became of runs that nobody followed to their end
    before, began_s = seen(shared), time.monotonic()
    shared.run("squares.py")
    spoken, took_s = new_commands(shared, before), time.monotonic() - began_s
    ship, follow, *last = spoken[1]
    assert len(spoken[2]) == 1
    assert "squares.py" not in ship  # the payload comes on stdin
    assert " queue " in follow
    assert " follow " in follow
    verbs = [verb for each in last for verb in (" pack ", " journal-send ") if verb in each]
    assert len(verbs) == len(last)
    assert verbs.count(" pack ") == 1
    # Side by side with the results; before that only if the run takes longer than the window.
    assert 1 <= verbs.count(" journal-send ") <= 1 + took_s / WINDOW_S


def test_a_second_up_asks_each_node_one_question_and_sends_nothing(shared: LocalCluster) -> None:
    before = seen(shared)
    shared.well("up", "--nodes", "2")
    spoken = new_commands(shared, before)
    assert {node: len(commands) for node, commands in spoken.items()} == {1: 1, 2: 1}
    for (command,) in spoken.values():
        assert "tar -x" not in command


@pytest.mark.slow
def test_up_opens_one_connection_per_node_and_one_channel_per_node_and_stage(
    make_home: MakeHome, make_cluster: MakeCluster
) -> None:
    line = make_home()
    forget_node_code(line.home / "local" / "cache")
    cluster = make_cluster(8, "--cpus-per-node", "1", line=line)
    for node in range(1, 9):
        assert cluster.logins(node) == 1
        facts, install, start = cluster.commands(node)
        assert "node_config_sha256" in facts
        assert ("mkdir -p" in install, "ensure" in install) == (True, False)
        assert ("governors registered" in start, "ensure" in start) == (node == 1, True)
    cluster.well("down")


def forget_node_code(cache: Path) -> None:
    """Of the shared cache all but what is quick to have again, so that there is something to install."""
    whole = cache.resolve()
    cache.unlink()
    cache.mkdir()
    for name in ("engine", "envs", "uv"):
        (cache / name).symlink_to(whole / name)
