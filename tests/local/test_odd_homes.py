"""Homes, names and environments that nobody expects; secrets; runs and ``up``s that were cut short."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import CACHES
from tests.local.command_line import PROGRAM, CommandLine, LocalCluster, living_in, role
from tests.local.conftest import MakeCluster, MakeHome
from tests.local.scripts import SQUARES, WAITS
from tests.support.files import files_with
from tests.support.processes import command, environments
from tests.support.waiting import wait_for

CANARY = "canary-6d1f"
STRANGE = "-d 'ü\" $HOME.py"


@pytest.fixture
def make_place(make_home: MakeHome, test_cache: Path, tmp_path: Path) -> Iterator[LocalCluster]:
    """A home whose name and whose user's settings are as odd as they come, with a cluster of one node."""
    make_home()
    line = CommandLine(tmp_path / 'it\'s a "home" $(id)', tmp_path / "wo rk", prefix=(str(tmp_path / "odd"),))
    (tmp_path / "odd").write_text('#!/bin/sh\numask 000\nunset HOME\nexec env LANG=C LC_ALL=C "$@"\n')
    (tmp_path / "odd").chmod(0o755)
    line.cwd.mkdir()
    (line.home / "local").mkdir(parents=True, mode=0o700)
    for name in CACHES:
        (line.home / name).symlink_to(test_cache / name)
    yield LocalCluster(line, "odd")
    line("down", "-c", "odd", "--yes", "--discard-results")


def open_to_others(directory: Path) -> list[Path]:
    """What somebody else can come to and change."""
    found = []
    for path in directory.iterdir():
        mode = 0 if path.is_symlink() else path.stat().st_mode
        found += [path] if mode & (stat.S_IWGRP | stat.S_IWOTH) else []
        if stat.S_ISDIR(mode) and mode & (stat.S_IXGRP | stat.S_IXOTH):
            found += open_to_others(path)
    return found


@pytest.mark.smoke
def test_a_home_and_a_script_with_odd_names_in_an_odd_environment(make_place: LocalCluster) -> None:
    line = make_place.line
    (line.cwd / STRANGE).write_text(SQUARES + "import sys; print(sys.argv)\n")
    make_place.well("up", "--provider", "local", "--nodes", "2")
    out = make_place.run("--", STRANGE, "two words", "ü")
    assert (out / "stdout.log").read_text().splitlines()[-2:] == [
        "361",
        str([f"./{STRANGE}", "two words", "ü"]),
    ]
    assert make_place.well("ssh", "2", "--", "echo", "$HOME").stdout == "$HOME\n"
    assert open_to_others(line.home) == []
    make_place.well("down")
    assert living_in(line.home) == {}


def test_a_home_of_200_characters(test_cache: Path, tmp_path: Path) -> None:
    line = CommandLine(tmp_path / ("l" * max(10, 200 - len(str(tmp_path)))), tmp_path)
    (line.home / "local").mkdir(parents=True)
    for name in CACHES:
        (line.home / name).symlink_to(test_cache / name)
    (tmp_path / "squares.py").write_text(SQUARES)
    told = line.well("sweep", "--provider", "local", "--nodes", "1", "--json", "squares.py")
    assert told.result["run"]["points"] == 20
    assert living_in(line.home) == {}


def test_a_directory_that_was_deleted(make_home: MakeHome, tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    argv = ["sh", "-c", 'cd "$0" && rmdir "$0" && exec "$@"', str(tmp_path / "gone"), str(PROGRAM), "down"]
    env = {**os.environ, "RAIN_DEPLOY_HOME": str(make_home().home)}
    told = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    assert told.returncode == 10
    assert "next: cd to one that is there" in told.stderr


def places(line: CommandLine, *outside: Path) -> set[str]:
    """Where the canary is: files by name, and processes of the home."""
    tops = (line.home, line.cwd, *outside)
    found = {path.name for top in tops for path in files_with(CANARY.encode(), top)}
    for pid, environment in living_in(line.home).items():
        if CANARY in command(pid):
            found.add("an argument")
        if CANARY in environment:
            found.add("a process")
    return found


def test_a_variable_of_env_is_where_it_is_needed_while_it_is_and_nowhere_else(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    made = make_cluster(2)
    cluster = LocalCluster(made.line.at(tmp_path), made.name)
    (tmp_path / "waits.py").write_text(WAITS)
    run = cluster.start(
        "run", "-v", "--env", "TOKEN", "waits.py", str(tmp_path / "go"), env={"TOKEN": CANARY}
    )
    run.wait_for("begun")
    assert places(cluster.line) == {"env.json", "a process"}
    (tmp_path / "go").touch()
    told = run.ended()
    assert (told.exit_code, CANARY in told.stdout + told.stderr) == (0, False)
    cluster.await_governors(2)
    wait_for(lambda: places(cluster.line) == set(), describe=lambda: str(places(cluster.line)))
    cluster.well("down")


def test_variables_of_the_caller_reach_the_installer_alone(make_home: MakeHome, tmp_path: Path) -> None:
    line = make_home().at(tmp_path)
    secret = {"UV_INDEX_PASSWORD": CANARY, "https_proxy": f"http://me:{CANARY}@127.0.0.1:9", "MINE": CANARY}
    line.well("up", "--provider", "local", "--nodes", "1", env=secret)
    assert places(line) == set()
    line.well("status", env=secret)
    assert places(line) == set()
    line.well("down")


@pytest.fixture
def cluster(make_cluster: MakeCluster, tmp_path: Path) -> Iterator[LocalCluster]:
    made = make_cluster(2)
    (tmp_path / "waits.py").write_text(WAITS)
    (tmp_path / "squares.py").write_text(SQUARES)
    yield LocalCluster(made.line.at(tmp_path), made.name)
    made("down", "--yes", "--discard-results")


def test_a_run_that_was_shipped_and_never_in_line_holds_nobody_up(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    (tmp_path / "go").touch()
    told = cluster.well("run", "--json", "--env", f"A={CANARY}", "--detach", "waits.py", str(tmp_path / "go"))
    directory = cluster.directory / "runs" / told.result["run"]
    wait_for(lambda: cluster.well("runs", "--json").result["runs"][-1]["outcome"] == "done")
    (directory / "state.json").unlink()  # as if the command line had been killed before it queued the run
    (directory / "env.json").write_text(f'{{"A": "{CANARY}"}}')
    refused = cluster("attach", "--json", told.result["run"])
    assert (refused.exit_code, "never queued" in refused.error["message"]) == (10, True)
    cluster.run("squares.py")
    assert not (directory / "env.json").exists()
    assert cluster.well("cancel", "--json", told.result["run"]).result["outcome"] == "cancelled"
    (directory / "state.json").unlink()
    down = cluster.well("down", "--json").result
    assert down["pulled"] == []


@pytest.mark.parametrize("following", ["nothing", "run", "down"])
def test_the_variables_of_a_run_that_was_killed_while_it_was_shipped_do_not_stay(
    cluster: LocalCluster, tmp_path: Path, following: str
) -> None:
    """Everything of it is killed, on the nodes too: nobody is left who could clear up."""
    (tmp_path / "large").write_bytes(os.urandom(64 << 20))
    run = cluster.start("run", "--env", f"TOKEN={CANARY}", "--files", "large", "squares.py")
    staging = cluster.line.home / "local" / "tmp"
    wait_for(lambda: [*staging.glob("stage.*/run/env.json")], describe=lambda: run.stderr)
    run.kill()
    for pid, env in environments().items():
        if f"\0RAIN_DEPLOY_LOCAL_NODE={cluster.id}/" in env and not role(pid, env):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    if following != "nothing":
        assert cluster(following, *(["squares.py"] if following == "run" else [])).exit_code == 0
        assert [*staging.glob("*")] == []
    wait_for(lambda: places(cluster.line) == set(), describe=lambda: str(places(cluster.line)))


def test_a_run_in_line_does_not_wait_for_nodes_that_came_after_it(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    first = cluster.start("run", "waits.py", str(tmp_path / "go"))
    first.wait_for("begun")
    second = cluster.start("run", "--json", "squares.py")
    second.wait_for("1 before it")
    governors = cluster.processes(None, "governor", "server", "job")
    cluster.well("up", "--nodes", "3")
    assert cluster.processes(None, "governor", "server", "job") == governors
    (tmp_path / "go").touch()
    assert first.ended().exit_code == 0
    assert second.ended().result["outcome"] == "done"
    cluster.await_governors(3)
    cluster.run("squares.py")


@pytest.mark.parametrize("moment", ["node-3: start: node.json", "governors registered"])
def test_ctrl_c_while_a_cluster_grows_leaves_it_as_it_was(cluster: LocalCluster, moment: str) -> None:
    before = cluster.processes(None, "ssh", "keeper", "supervisor")
    up = cluster.start("up", "-v", "--nodes", "3")
    up.wait_for(moment)
    up.interrupt()
    # It may have ended well before the signal, or have been closing down already: then the signal kills.
    assert up.ended().exit_code in {130, 0, -signal.SIGINT}, up.stderr
    if "deleting node-3" not in up.stderr:  # its work was done before the signal came
        assert "3 governors registered: done" in up.stderr
        cluster.well("status", "--check")
        assert len(cluster.well("status", "--json").result["nodes"]) == 3
    elif up.process.returncode == 130:
        assert cluster.processes(None, "ssh", "keeper", "supervisor") == before
        assert len(cluster.well("status", "--json").result["nodes"]) == 2
        assert [pid for pid, env in environments().items() if f"={cluster.id}/3\0" in env] == []
    cluster.run("squares.py")
