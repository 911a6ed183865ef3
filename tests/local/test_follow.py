"""A run goes on without its follower; others take it up, wait in line for its end, or end it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.local.command_line import LocalCluster, Running
from tests.local.conftest import MakeCluster
from tests.local.scripts import WAITS
from tests.support.processes import kill
from tests.support.results import verify
from tests.support.waiting import wait_for


@pytest.fixture
def waiting(tmp_path: Path) -> tuple[str, str]:
    """A script that begins and waits, and its argument: the file ``go`` of the test's directory."""
    (tmp_path / "waits.py").write_text(WAITS)
    return "waits.py", str(tmp_path / "go")


def begun(cluster: LocalCluster, *words: str) -> tuple[Running, str]:
    """A run whose script has begun, and its id."""
    run = cluster.start("run", *words)
    run.wait_for("begun\n")
    return run, run_id(run)


def run_id(run: Running) -> str:
    found = re.search(r"^run (\S+): ", run.stderr, re.MULTILINE)
    assert found, run.stderr
    return found[1]


def whole(out: Path) -> bool:
    """Everything of the run of WAITS is here."""
    kept = {str(path.relative_to(out / "files")): path.read_text() for path in (out / "files").rglob("*")}
    printed = (out / "stdout.log").read_text()
    return not verify(out) and (kept, printed) == (
        {"early.txt": "early", "late.txt": "late"},
        "begun\ngone on\n",
    )


@pytest.mark.smoke
def test_a_run_outlives_its_command_line_and_is_taken_up_from_its_first_line(
    shared: LocalCluster, waiting: tuple[str, str], tmp_path: Path
) -> None:
    run, name = begun(shared, *waiting)
    run.kill()
    attached = shared.start("attach")
    attached.wait_for("begun\n")
    (tmp_path / "go").touch()
    told = attached.ended()
    assert (told.exit_code, told.stdout.partition("run ")[0]) == (0, "begun\ngone on\n")
    assert f"run {name}: done" in told.stdout
    assert whole(tmp_path / "results" / name)


def test_pull_brings_everything_of_a_run_whose_command_line_was_killed(
    shared: LocalCluster, waiting: tuple[str, str], tmp_path: Path
) -> None:
    run, name = begun(shared, *waiting)
    run.kill()
    early = shared.well("pull", "--json", name).result["runs"][0]
    assert (early["finished"], early["files"]) == (False, 1)
    (tmp_path / "go").touch()
    wait_for(lambda: shared.well("runs", "--json").result["runs"][-1]["state"] == "finished")
    shared.well("pull")
    assert whole(tmp_path / "results" / name)


@pytest.mark.smoke
def test_ctrl_c_stops_following_and_tells_how_to_go_on_and_how_to_end_it(
    shared: LocalCluster, waiting: tuple[str, str], tmp_path: Path
) -> None:
    run, name = begun(shared, *waiting)
    run.interrupt()
    told = run.ended()
    assert told.exit_code == 130
    number = name.split("-")[2]
    ways = [f"rain-deploy {verb} {number} -c {shared.name}" for verb in ("attach", "cancel")]
    assert told.stderr.splitlines()[-1] == f"run {number} continues; next: {', or to cancel: '.join(ways)}"
    attached = shared.start("attach", number)
    attached.wait_for("begun\n")
    attached.interrupt()
    assert attached.ended().exit_code == 130
    assert shared.well("cancel", "--json", name).result["outcome"] == "cancelled"
    after = shared("attach", "--json", name)
    assert (after.exit_code, after.result["outcome"]) == (43, "cancelled")
    assert (tmp_path / "results" / name / "files/early.txt").read_text() == "early"
    assert shared.well("cancel", "--json", name).result["changed"] is False


def test_a_detached_run_is_taken_up_when_it_is_wanted(
    shared: LocalCluster, waiting: tuple[str, str], tmp_path: Path
) -> None:
    told = shared.well("run", "--json", "--detach", *waiting)
    assert told.result["detached"]
    assert not (tmp_path / "results").exists()
    (tmp_path / "go").touch()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    out = Path(
        LocalCluster(shared.line.at(elsewhere), shared.name).well("attach", "--json").result["results_dir"]
    )
    assert out == tmp_path / "results" / told.result["run"]
    assert whole(out)


@pytest.mark.smoke
def test_runs_wait_in_line_and_are_told_how_many_are_before_them(
    shared: LocalCluster, waiting: tuple[str, str], tmp_path: Path
) -> None:
    first, first_id = begun(shared, *waiting)
    second = shared.start("run", *waiting)
    second.wait_for("queued (1 before it)")
    third = shared.start("run", "--json", *waiting)
    third.wait_for("queued (2 before it)")
    refused = shared("run", "--json", "--no-wait", *waiting)
    assert refused.exit_code == 11
    assert first_id in refused.error["message"]

    assert shared.well("cancel", run_id(second)).stdout == f"run {run_id(second)}: cancelled\n"
    assert second.ended().exit_code == 43
    assert third.process.poll() is None
    (tmp_path / "go").touch()
    assert (first.ended().exit_code, third.ended().exit_code) == (0, 0)
    assert whole(Path(third.ended().result["results_dir"]))
    assert first_id < third.ended().result["run"]
    lines = shared.well("runs", "--json").result["runs"][-4:]
    outcomes = {line["run"]: line["outcome"] for line in lines}
    assert [outcomes[first_id], outcomes[run_id(second)], outcomes[run_id(third)]] == [
        "done",
        "cancelled",
        "done",
    ]


def test_cancel_ends_a_run_and_what_it_had_made_comes_home(
    shared: LocalCluster, waiting: tuple[str, str], tmp_path: Path
) -> None:
    run, name = begun(shared, "--json", *waiting)
    shared.well("cancel")
    told = run.ended()
    assert (told.exit_code, told.result["run"], told.result["outcome"]) == (43, name, "cancelled")
    out = Path(told.result["results_dir"])
    assert (out / "files/early.txt").read_text() == "early"
    assert verify(out) == ()
    assert shared.processes(None, "job") == {}


def test_a_lost_connection_is_taken_up_where_it_broke(
    make_cluster: MakeCluster, waiting: tuple[str, str], tmp_path: Path
) -> None:
    made = make_cluster(1)
    cluster = LocalCluster(made.line.at(tmp_path), made.name)
    run, name = begun(cluster, *waiting)
    kill(*cluster.processes(1, "ssh"))
    run.wait_for("connection lost")
    job = cluster.processes(1, "job")
    assert cluster.well("up", "--json").result["started"] == 0
    assert cluster.processes(1, "job") == job
    (tmp_path / "go").touch()
    told = run.ended()
    assert (told.exit_code, told.stdout.partition("run ")[0]) == (0, "begun\ngone on\n")
    assert whole(tmp_path / "results" / name)
    cluster.well("down")


def test_keeper_and_supervisor_may_die_in_mid_run(
    shared: LocalCluster, waiting: tuple[str, str], tmp_path: Path
) -> None:
    run, name = begun(shared, *waiting)
    kill(*shared.processes(1, "supervisor"), *shared.processes(2, "keeper"))
    wait_for(lambda: shared.processes(1, "supervisor"))
    assert "node-2: started governor" in shared.well("up", "--json").result["changed"]
    (tmp_path / "go").touch()
    assert run.ended().exit_code == 0
    assert whole(tmp_path / "results" / name)
    shared.await_governors(2)
