"""The Python API on real nodes: each function returns what its command returns, and prints nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rain_deploy
from tests.local.command_line import LocalCluster
from tests.local.conftest import MakeHome
from tests.local.scripts import SQUARES, WAITS
from tests.support.waiting import wait_for

EXAMPLE = Path(__file__).parents[2] / "examples/search.py"
FACTOR = 3


def triple(x: int) -> int:
    return FACTOR * x


def triples(count: int) -> dict[str, Any]:
    """A Rain script as a function; the helpers and globals of this module go with it."""
    import matplotlib.pyplot as plt  # noqa: PLC0415 - as the nodes have them
    from rain.client import Client, remote  # noqa: PLC0415

    @remote()  # Rain takes annotations for something else
    def task(_ctx, x):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
        return str(triple(x))

    with Client("localhost", 7210).new_session("triples") as session:
        tasks = [task(x, name=f"triple x={x}") for x in range(count)]
        for each in tasks:
            each.output.keep()
        session.submit()
        values = [int(each.output.fetch().get_bytes()) for each in tasks]
    plt.plot(values)
    plt.show()
    return {"values": values, "best": max(values)}


def fails() -> None:
    raise RuntimeError("as it should")


def makes_no_json() -> object:
    return {1, 2}


@pytest.fixture(autouse=True)
def _nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    yield
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def here(shared: LocalCluster) -> dict[str, Any]:
    """Keywords for the session's cluster."""
    return {"cluster": shared.name, "home": shared.line.home, "cwd": shared.line.cwd}


@pytest.mark.smoke
def test_a_function_runs_on_the_cluster_and_its_value_comes_back(here: dict[str, Any]) -> None:
    seen: list[rain_deploy.events.Event] = []
    result = rain_deploy.run(triples, (4,), progress=seen.append, **here)
    assert result.value == {"values": [0, 3, 6, 9], "best": 9}
    assert (result.outcome, result.figures, result.points) == ("done", 1, 4)
    assert result.results_dir.parent == here["cwd"] / "results"
    states = [event.state for event in seen if isinstance(event, rain_deploy.events.RunChanged)]
    assert states[-1] == "finished"
    rows = rain_deploy.points(**here).rows
    assert [row.parameters for row in rows if row.point] == [{"x": x} for x in range(4)]


@pytest.mark.parametrize(("function", "told"), [(fails, "as it should"), (makes_no_json, "of type set")])
def test_a_function_that_fails_is_a_problem_of_its_result(
    here: dict[str, Any], function: Any, told: str
) -> None:
    result = rain_deploy.run(function, **here)
    assert isinstance(result.problem, rain_deploy.ScriptFailed)
    with pytest.raises(rain_deploy.ScriptFailed):
        result.value  # noqa: B018
    assert told in (result.results_dir / "stderr.log").read_text()


def test_a_script_runs_as_by_its_command(here: dict[str, Any]) -> None:
    (here["cwd"] / "squares.py").write_text(SQUARES)
    result = rain_deploy.run(Path("squares.py"), out="there", **here)
    assert result.results_dir == here["cwd"] / "there"
    assert (result.results_dir / "stdout.log").read_text().split() == [str(x * x) for x in range(20)]
    assert [run.points for run in rain_deploy.pull(out="again", **here).runs] == [20]
    assert (here["cwd"] / "again/points.csv").exists()


def test_a_detached_run_is_seen_cancelled_and_attached_to(here: dict[str, Any]) -> None:
    (here["cwd"] / "waits.py").write_text(WAITS)
    detached = rain_deploy.run("waits.py", ("never",), detach=True, **here)
    assert detached.detached
    wait_for(lambda: rain_deploy.status(check=True, **here).governors == 2)
    status = rain_deploy.status(check=True, **here)
    assert status.run
    assert (status.run.run, status.governors, status.problem) == (detached.run, 2, None)
    assert rain_deploy.cancel(**here).outcome == "cancelled"
    assert isinstance(rain_deploy.attach(**here).problem, rain_deploy.EndedEarly)


def test_a_cluster_comes_up_grows_and_goes(make_home: MakeHome) -> None:
    line = make_home()
    here: dict[str, Any] = {"home": line.home, "cwd": line.cwd, "provider": "local"}
    assert len(rain_deploy.up(nodes=1, **here).nodes) == 1
    assert rain_deploy.up(**here).changed == ()
    here.pop("provider")
    assert rain_deploy.scale(2, **here).added == ("node-2",)
    assert not rain_deploy.down(**here).nothing
    assert rain_deploy.down(**here).nothing


def test_the_example_works_in_a_fresh_process_and_leaves_nothing(make_home: MakeHome) -> None:
    line = make_home()
    (line.cwd / "search.py").write_bytes(EXAMPLE.read_bytes())
    environ = {**os.environ, "RAIN_DEPLOY_HOME": str(line.home)}
    told = subprocess.run(
        [sys.executable, "search.py"], cwd=line.cwd, env=environ, capture_output=True, text=True, check=True
    )
    *points, best, figure = told.stdout.splitlines()
    assert [point.split(" node-")[0] for point in points] == [
        f"train cost={cost} gamma={gamma}" for cost in (1, 4) for gamma in (0.05, 0.5)
    ]
    assert best.startswith("best: {'score': 0.9")
    assert Path(figure.removeprefix("figure: ")).is_file()
    assert line.clusters() == []


def test_a_sweep_leaves_the_value_and_no_cluster(make_home: MakeHome) -> None:
    line = make_home()
    done = rain_deploy.sweep(triples, (2,), provider="local", home=line.home, cwd=line.cwd)
    assert done.run
    assert done.run.value["values"] == [0, 3]
    assert line.clusters() == []
