"""``sweep`` takes down what it made; of what was there before only with a yes, and never the results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from rain_deploy.core.run import RunRecord
from rain_deploy.core.spec import ClusterSpec, RunSpec
from rain_deploy.errors import Declined, PullFailed, UsageError
from rain_deploy.node.wire import PointRow
from rain_deploy.results.points import write_json
from rain_deploy.verbs.scale import scale
from rain_deploy.verbs.sweep import how_ended, sweep, torn_down
from rain_deploy.verbs.up import up
from tests.unit.fake_cloud import ME, PROVIDER, World


def test_a_cluster_that_is_there_stays_without_a_yes(tmp_path: Path) -> None:
    world = World.at(tmp_path)
    cluster = world.cluster("one")
    no = replace(world.ctx, confirm=lambda _: False)
    with pytest.raises(UsageError, match="did not change"):
        sweep(no, ClusterSpec("one", cluster.provider, "test"), RunSpec(tmp_path / "s.py"))
    assert world.store.cluster("one") == cluster
    assert world.names() == ["node-1", "node-2", "node-3"]


def test_when_results_cannot_be_brought_home_the_server_alone_stays(tmp_path: Path) -> None:
    world = World.at(tmp_path)
    cluster = world.cluster("one")
    world.store.save_run(
        RunRecord("r1", cluster.id, "one", 1, 7230, "s.py", (), "", 0.0, tmp_path / "results" / "r1")
    )
    world.nodes.said["runs"] = [{"run": "r1", "state": "finished", "outcome": "done"}]
    with pytest.raises(PullFailed) as failed:
        torn_down(world.ctx, "one")
    assert world.names() == ["node-1"]
    assert "node-1 of one, which holds the results" in (failed.value.still_running or "")
    kept = world.store.cluster("one")
    assert kept is not None
    assert [node.name for node in kept.nodes] == ["node-1"]


@pytest.mark.parametrize("verb", ["up", "scale", "sweep"])
def test_a_no_to_the_price_leaves_the_next_command_to_the_one_that_was_typed(
    tmp_path: Path, verb: str
) -> None:
    world = World.at(tmp_path)
    no = replace(world.ctx, confirm=lambda question: "take it down" in question)
    spec = ClusterSpec("one", PROVIDER, "test", owner=ME, nodes=4)
    if verb == "scale":
        world.cluster("one")
    verbs: dict[str, Callable[[], object]] = {
        "up": lambda: up(no, spec),
        "scale": lambda: scale(no, spec, 4),
        "sweep": lambda: sweep(no, spec, RunSpec(tmp_path / "s.py")),
    }
    with pytest.raises(Declined, match="nothing was created") as declined:
        verbs[verb]()
    assert declined.value.next_step is None


@pytest.mark.parametrize(
    ("pulled", "states", "ending"),
    [
        (True, ["finished", "finished", "cancelled"], "; 2 of 3 points finished; results: "),
        (True, ["not run"], "; 0 of 1 point finished; results: "),
        (True, [], "; results: "),
        (False, [], "; no results were pulled"),
    ],
)
def test_after_an_interrupt_it_says_how_the_run_ended(
    tmp_path: Path, pulled: bool, states: list[str], ending: str
) -> None:
    out = tmp_path / "r1"
    out.mkdir()
    with (out / "points.json").open("w") as file:
        rows = (PointRow(task=task, state=state, point=True) for task, state in enumerate(states))
        write_json((*rows, PointRow(task=9, state="finished")), file)
    record = RunRecord(
        "r1", "c", "one", 1, 7230, "s.py", (), "", 0.0, out, outcome="cancelled", pulled=pulled
    )
    assert how_ended(record) == f"run r1: cancelled{ending}" + (str(out) if pulled else "")
