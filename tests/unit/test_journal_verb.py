"""``journal``: what is kept of finished tasks is shown with its size, and deleted after a yes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rain_deploy.errors import Declined, InputError, Unreachable
from rain_deploy.node.files import write_json
from rain_deploy.node.journal.store import Journal
from rain_deploy.node.wire import BUSY, JournalUsage, RunDescription, RunState, RunStatus, read, to_json
from rain_deploy.results.journals import ABOUT, About
from rain_deploy.verbs.journal import journal
from tests.unit.fake_cloud import World
from tests.unit.test_journal_store import put

NODE = (sys.executable, "-c", "import sys; from rain_deploy.node.cli import main; sys.exit(main())")
USAGE = JournalUsage(bytes=2_000_000, records=7, segments=2, oldest_s=1.0, newest_s=2.0)


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World.at(tmp_path)
    world.cluster()
    world.nodes.said |= {"journal": to_json(USAGE), "runs": []}
    return world


def a_copy(world: World, cluster: str = "one", name: str = "ab12") -> Path:
    about = About(cluster=cluster, env_digest="e" * 32, usage=USAGE)
    path = world.ctx.home / "journal" / name
    write_json(path / ABOUT, about)
    return path


def test_the_server_node_and_all_copies_are_shown(world: World) -> None:
    copies = [a_copy(world), a_copy(world, "two", "cd34")]
    (world.ctx.home / "journal" / "junk").mkdir()
    (world.ctx.home / "journal" / "junk" / ABOUT).write_text("no json")
    result = journal(world.ctx, "one")
    assert [(line.where, line.cluster, line.usage, line.action) for line in result.lines] == [
        ("node-1", "one", USAGE, "kept"),
        *((str(path), cluster, USAGE, "kept") for path, cluster in zip(copies, ("one", "two"), strict=True)),
    ]


def test_pruning_asks_and_spares_other_clusters(world: World) -> None:
    ours, theirs = a_copy(world), a_copy(world, "two", "cd34")
    world.answers[:] = [False]
    with pytest.raises(Declined):
        journal(world.ctx, "one", prune=True)
    assert ours.exists()
    result = journal(world.ctx, "one", prune=True)
    assert [line.action for line in result.lines] == ["deleted", "deleted", "kept"]
    assert (ours.exists(), theirs.exists()) == (False, True)
    assert "7 results, 2.0 MB" in world.told


def test_nothing_is_pruned_while_a_run_may_use_it(world: World) -> None:
    ours = a_copy(world)
    world.nodes.said["runs"] = [{"run": "r1", "state": "running"}]
    with pytest.raises(InputError, match="r1 is not finished"):
        journal(world.ctx, "one", prune=True)
    assert ours.exists()
    assert len(journal(world.ctx, "one").lines) == 2


def test_a_server_that_does_not_answer_is_named_and_the_copies_are_shown(world: World) -> None:
    a_copy(world)
    for name in world.names():
        world.cloud.power_off(name)
    assert [line.cluster for line in journal(world.ctx, "one").lines] == ["one"]
    assert "nobody answers" in world.told
    with pytest.raises(Unreachable):
        journal(world.ctx, "one", prune=True)


def test_a_cluster_that_is_gone_may_have_a_copy(world: World) -> None:
    path = a_copy(world, "gone", "ef56")
    assert [line.cluster for line in journal(world.ctx, "gone", prune=True).lines] == ["gone"]
    assert not path.exists()
    with pytest.raises(InputError, match="not recorded"):
        journal(world.ctx, "gone")


def on_node(cluster: Path, *options: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*NODE, "journal", str(cluster), *options], capture_output=True, check=False, timeout=60
    )


def test_the_node_says_what_it_keeps_and_deletes_it(tmp_path: Path) -> None:
    stored = Journal(tmp_path / "journal")
    put(stored, 1, b"one")
    put(stored, 2, b"two")
    next((tmp_path / "journal").iterdir()).write_bytes(b"damaged")
    usage = read(JournalUsage, on_node(tmp_path).stdout)
    assert (usage.records, usage.segments, usage.damaged) == (1, 2, 1)
    write_json(tmp_path / "runs/r1/run.json", RunDescription(run="r1", sequence=1, port=1, script="s.py"))
    write_json(tmp_path / "runs/r1/state.json", RunStatus(state=RunState.RUNNING))
    busy = on_node(tmp_path, "--prune")
    assert (busy.returncode, b"r1" in busy.stderr) == (BUSY, True)
    assert read(JournalUsage, on_node(tmp_path).stdout) == usage
    write_json(tmp_path / "runs/r1/state.json", RunStatus(state=RunState.FINISHED))
    assert json.loads(on_node(tmp_path, "--prune").stdout)["records"] == 1
    assert read(JournalUsage, on_node(tmp_path).stdout) == JournalUsage()
    assert list((tmp_path / "journal").iterdir()) == []
