"""``sweep``: up, run and down in one; down also when the script fails or Ctrl-C comes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.local.command_line import CommandLine, living_in
from tests.local.conftest import MakeHome
from tests.local.scripts import SQUARES, WAITS
from tests.support.results import verify

SWEEP = ("sweep", "--provider", "local", "--nodes", "2")


@pytest.fixture
def line(make_home: MakeHome) -> CommandLine:
    made = make_home()
    (made.cwd / "squares.py").write_text(SQUARES)
    (made.cwd / "fails.py").write_text(f"{SQUARES}open('made.txt', 'w').write('made')\nraise SystemExit(3)\n")
    (made.cwd / "waits.py").write_text(WAITS)
    return made


def nothing_is_left(line: CommandLine) -> bool:
    return (line.clusters(), living_in(line.home)) == ([], {})


@pytest.mark.smoke
def test_everything_from_nothing_to_nothing(line: CommandLine) -> None:
    told = line.well(*SWEEP, "--json", "squares.py")
    assert [
        len(told.result["up"]["nodes"]),
        told.result["run"]["points"],
        told.result["down"]["nothing"],
    ] == [
        2,
        20,
        False,
    ]
    assert verify(Path(told.result["run"]["results_dir"])) == ()
    assert nothing_is_left(line)


def test_a_script_that_fails_takes_the_cluster_down_too(line: CommandLine) -> None:
    told = line(*SWEEP, "--json", "fails.py")
    assert (told.exit_code, told.result["run"]["exit_code"]) == (41, 3)
    out = Path(told.result["run"]["results_dir"])
    assert ((out / "files/made.txt").read_text(), verify(out)) == ("made", ())
    assert nothing_is_left(line)


def test_ctrl_c_cancels_pulls_and_tears_down(line: CommandLine) -> None:
    sweep = line.start(*SWEEP, "--json", "waits.py", str(line.cwd / "never"))
    sweep.wait_for("begun\n")
    sweep.interrupt()
    told = sweep.ended()
    assert (told.exit_code, told.error["code"]) == (130, "RD130")
    (out,) = (line.cwd / "results").iterdir()
    *_, ending = told.stderr.partition("the run did not finish; deleting default\n")
    assert f"run {out.name}: cancelled; results: {out}\n" in ending
    assert ending.count("deleted: ") >= 2
    assert "verified: nothing is left\n" in ending
    assert "cluster default is down" in ending
    assert ((out / "files/early.txt").read_text(), verify(out)) == ("early", ())
    assert nothing_is_left(line)


def test_results_that_cannot_be_written_keep_the_nodes(line: CommandLine) -> None:
    sweep = line.start(*SWEEP, "--json", "waits.py", str(line.cwd / "go"))
    sweep.wait_for("begun\n")
    (line.cwd / "results").write_text("a file where a directory should be")
    (line.cwd / "go").touch()
    told = sweep.ended()
    assert told.exit_code == 50
    assert "--out" in told.error["next"]
    assert [one["name"] for one in line.clusters()] == ["default"]
    assert line.well("down", "--out", "saved", "--json").result["pulled"]
    assert nothing_is_left(line)
