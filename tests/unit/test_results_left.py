"""Results that stay on the node are named, all others are pulled, and nothing is deleted without a word."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from rain_deploy.core.run import RunRecord
from rain_deploy.errors import InputError, PullFailed, UnsafeResults
from rain_deploy.node.wire import LeftKind
from rain_deploy.runs.finish import RunResult
from rain_deploy.verbs.down import down
from rain_deploy.verbs.runs import pull
from rain_deploy.verbs.sweep import torn_down
from tests.unit.fake_cloud import World
from tests.unit.test_results_pull import tar_of

KEPT = [LeftKind.MUCH, LeftKind.UNREADABLE, LeftKind.REFUSED]
EMPTY = [LeftKind.SPECIAL, LeftKind.LINK]


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A cluster of three nodes with a run that has ended and is not pulled."""
    world = World.at(tmp_path)
    cluster = world.cluster()
    out = world.ctx.cwd / "results" / "r1"
    world.store.save_run(RunRecord("r1", cluster.id, cluster.name, 1, 7230, "s.py", (), "", 0.0, out))
    world.nodes.said["runs"] = [{"run": "r1", "state": "finished", "outcome": "done"}]
    return world


def sends(world: World, left: dict[str, LeftKind]) -> None:
    """The node sends a file, and a list of what stays there."""
    said = [{"path": path, "kind": kind, "why": f"it is {kind}"} for path, kind in left.items()]
    world.nodes.said["pack"] = tar_of(
        {
            "state.json": b'{"state": "finished", "outcome": "done", "exit_code": 0}',
            "files/r.csv": b"x",
            "left.json": json.dumps({"left": said}).encode(),
        }
    )


def on_node(world: World, path: str) -> str:
    cluster = world.store.cluster("one")
    assert cluster
    return shlex.quote(f"{cluster.layout.run('r1')}/{path}")


@pytest.mark.parametrize("kind", KEPT)
def test_down_keeps_the_cluster_and_pulls_everything_else(world: World, kind: LeftKind) -> None:
    sends(world, {"files/a": LeftKind.LINK, "files/big file": kind, "files/pipe": LeftKind.SPECIAL})
    with pytest.raises(PullFailed, match="nothing was deleted: run r1: 3 results were not pulled") as refused:
        down(world.ctx, "one")
    assert (world.ctx.cwd / "results/r1/files/r.csv").read_bytes() == b"x"
    assert "files/big file: it is" in (refused.value.details or "")
    how = "exec -c one --node 1 -- chmod -R u+rwX" if kind == LeftKind.UNREADABLE else "fetch -c one"
    assert f"rain-deploy {how} {on_node(world, 'files/big file')}" in (refused.value.next_step or "")
    assert "rain-deploy down -c one --discard-results" in (refused.value.next_step or "")
    assert world.names() == ["node-1", "node-2", "node-3"]
    assert not world.store.runs("one")[0].pulled
    down(world.ctx, "one", discard_results=True)
    assert world.names() == []


@pytest.mark.parametrize("kind", EMPTY)
@pytest.mark.parametrize("verb", ["down", "sweep"])
def test_what_has_no_content_keeps_no_cluster_and_is_named(world: World, kind: LeftKind, verb: str) -> None:
    sends(world, {"files/venv/bin/python": kind})
    assert (down if verb == "down" else torn_down)(world.ctx, "one").pulled == ("r1",)
    assert f"not pulled: files/venv/bin/python: it is {kind}" in world.told
    assert world.names() == []


@pytest.mark.parametrize("kind", EMPTY)
def test_what_has_no_content_fails_no_run_and_is_not_pulled_again(world: World, kind: LeftKind) -> None:
    sends(world, {"files/a": kind})
    result = pull(world.ctx, "one")
    assert result.problem is None
    assert [one.path for one in result.runs[0].left.left] == ["files/a"]
    assert world.store.runs("one")[0].pulled
    out = world.ctx.cwd / "results/r1"
    manifest = json.loads((out / "manifest.json").read_text())
    assert (manifest["complete"], manifest["left_on_node"][0]["path"]) == (True, "files/a")
    done = RunResult("one", "r1", "finished", "done", 0, out, 1.0, left=result.runs[0].left)
    assert done.problem is None
    assert down(world.ctx, "one").pulled == ()


@pytest.mark.parametrize("kind", KEPT)
def test_run_and_pull_name_what_stays_and_end_with_an_exit_code(world: World, kind: LeftKind) -> None:
    sends(world, {"files/a": kind})
    result = pull(world.ctx, "one")
    assert [(one.path, one.kind) for one in result.runs[0].left.left] == [("files/a", kind)]
    assert isinstance(result.problem, UnsafeResults)
    assert "run r1: 1 result was not pulled" in str(result.problem)
    assert "--discard-results" in (result.problem.next_step or "")
    manifest = json.loads((world.ctx.cwd / "results/r1/manifest.json").read_text())
    assert (manifest["complete"], manifest["left_on_node"]) == (
        False,
        [{"path": "files/a", "why": f"it is {kind}"}],
    )


def test_a_name_that_does_not_print_is_fetched_with_its_directory(world: World) -> None:
    sends(world, {"files/dir/caf\udce9": LeftKind.MUCH})
    problem = pull(world.ctx, "one").problem
    assert problem
    assert f"rain-deploy fetch -c one {on_node(world, 'files/dir')} ." in (problem.next_step or "")


def test_of_too_many_files_the_directory_is_fetched(world: World) -> None:
    sends(world, {f"files/cache/{number}": LeftKind.MANY for number in range(3)})
    problem = pull(world.ctx, "one").problem
    assert problem
    assert f"rain-deploy fetch -c one {on_node(world, 'files/cache')} .;" in (problem.next_step or "")


def test_when_the_user_has_deleted_it_there_down_goes_on(world: World) -> None:
    sends(world, {"files/a": LeftKind.MUCH})
    with pytest.raises(PullFailed):
        down(world.ctx, "one")
    sends(world, {})
    assert down(world.ctx, "one").pulled == ("r1",)
    assert world.names() == []


@pytest.mark.parametrize("verb", ["down", "pull"])
def test_one_run_that_cannot_be_pulled_keeps_no_other_from_it(world: World, verb: str) -> None:
    (first,) = world.store.runs("one")
    states = [{"run": f"r{number}", "state": "finished"} for number in (1, 2, 3)]
    world.nodes.said["runs"] = states
    for number in (2, 3):
        out = world.ctx.cwd / f"results/r{number}"
        world.store.save_run(replace(first, id=f"r{number}", sequence=number, out=out))
    sends(world, {})
    first.out.mkdir(parents=True)
    (first.out / "mine").touch()  # it holds other files
    with pytest.raises(InputError, match="r1 holds other files"):
        down(world.ctx, "one") if verb == "down" else pull(world.ctx, "one", all_runs=True)
    for number in (2, 3):
        assert (world.ctx.cwd / f"results/r{number}/files/r.csv").exists()
    assert [run.pulled for run in world.store.runs("one")] == [False, True, True]
    assert world.names() == ["node-1", "node-2", "node-3"]


def test_a_sweep_whose_results_stay_keeps_one_machine_and_says_how_to_end_it(world: World) -> None:
    sends(world, {"files/big": LeftKind.MUCH})
    with pytest.raises(PullFailed) as kept:
        torn_down(world.ctx, "one")
    assert world.names() == ["node-1"]
    assert "node-1 of one, which holds the results" in (kept.value.still_running or "")
    assert "rain-deploy fetch" in (kept.value.next_step or "")
    assert "rain-deploy down -c one --discard-results" in (kept.value.next_step or "")
