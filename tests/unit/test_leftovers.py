"""What a killed command leaves on a node has a name by which everybody knows when it is nobody's any more."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from rain_deploy.core.cluster import Cluster, Node
from rain_deploy.core.machine import Host
from rain_deploy.core.step import Command, PayloadFile, Stage, Step
from rain_deploy.parts.access import push_command
from rain_deploy.parts.services import remove_stage, stop_stage
from rain_deploy.parts.shell import pack, stage_command
from tests.support.waiting import wait_for

SECRET = b"canary-5e1b"
PAYLOAD = (PayloadFile("run/env.json", SECRET),)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path / "base"


class Ship:
    """A stage that has received its files, one of them a secret, and works on until it is ended."""

    def __init__(self, base: Path) -> None:
        go = base.parent / "go"
        step = Step(
            "wait", act=f'i=0; until [ -e "{go}" ] || [ $i -gt 300 ]; do sleep 0.1; i=$((i + 1)); done'
        )
        command = stage_command(Stage("ship", (step, step), PAYLOAD), str(base))
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command.argv, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, start_new_session=True
        )
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(command.stdin or b"")
        self.process.stdin.close()
        self.process.stdout.readline()  # it works
        assert holding(base)
        self.go = go

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(20)


@pytest.fixture
def ship(base: Path) -> Iterator[Ship]:
    made = Ship(base)
    yield made
    made.end()
    assert made.process.stdout
    made.process.stdout.close()


def holding(place: Path) -> list[Path]:
    """Files with the secret, wherever they are."""
    return [path for path in place.rglob("*") if path.is_file() and SECRET in path.read_bytes()]


def another(base: Path) -> None:
    """The next command: any stage that brings files."""
    run(stage_command(Stage("next", (Step("x", act="true"),), (PayloadFile("a", b"1"),)), str(base)))


def down(base: Path) -> str:
    """What ``down`` certifies."""
    cluster = Cluster("c1", "one", "hosts", 0.0, base=str(base))
    return run(stage_command(remove_stage(cluster, wall=False), str(base)))


def run(command: Command) -> str:
    done = subprocess.run(command.argv, input=command.stdin or b"", capture_output=True, check=True)
    return done.stdout.decode()


@pytest.mark.parametrize("following", [another, down])
def test_a_stage_that_was_killed_is_cleared_by_the_next_command(
    base: Path, ship: Ship, following: object
) -> None:
    ship.end()
    assert holding(base), "nobody could remove it"
    assert callable(following)
    following(base)
    assert list((base / "tmp").iterdir()) == []


def stop(base: Path) -> str:
    node = Node("node-1", Host("node-1", "127.0.0.1", 22, "me", ()))
    cluster = Cluster("c1", "one", "hosts", 0.0, (node,), base=str(base))
    return run(stage_command(stop_stage(cluster, node), str(base)))


def test_down_ends_no_stage_of_a_command_that_lives(base: Path, ship: Ship) -> None:
    """It may be another home's, on the same machine."""
    stop(base)
    assert ship.process.poll() is None
    assert holding(base)


def test_down_ends_a_stage_whose_connection_is_gone(base: Path) -> None:
    """Its shell has lost its parent, and works on."""
    command = stage_command(Stage("ship", (Step("long", act="sleep 45.3"),), PAYLOAD), str(base))
    base.parent.joinpath("script").write_text(command.argv[2])
    base.parent.joinpath("payload").write_bytes(command.stdin or b"")
    start = f'cd "{base.parent}" && setsid sh script <payload >out 2>&1 &'
    subprocess.run(["sh", "-c", start], check=True)
    wait_for(lambda: holding(base))
    (place,) = (base / "tmp").iterdir()
    shell = Path("/proc", place.name.split(".")[1])
    if shell.joinpath("stat").read_text().rpartition(")")[2].split()[1] != "1":
        os.kill(int(shell.name), signal.SIGTERM)
        pytest.skip("who loses its parent here gets another than process 1")
    stop(base)
    assert not shell.exists() or shell.joinpath("stat").read_text().rpartition(")")[2].split()[0] == "Z"
    assert list((base / "tmp").iterdir()) == []


def test_down_certifies_it(base: Path, ship: Ship) -> None:
    ship.end()
    assert f"files of commands that have ended under {base}/tmp" in down(base)


@pytest.mark.parametrize("following", [another, down])
def test_a_stage_that_works_keeps_its_files(base: Path, ship: Ship, following: object) -> None:
    assert callable(following)
    following(base)
    assert holding(base)
    ship.go.touch()
    assert ship.process.wait(20) == 0
    assert list((base / "tmp").iterdir()) == []


@pytest.mark.parametrize("name", ["stage.x3Fg9q", "stage.1.1", "stage.999999999.5", "stage..", "stage.1"])
def test_what_an_earlier_version_or_a_process_of_another_boot_left_goes_too(base: Path, name: str) -> None:
    place = base / "tmp" / name
    place.mkdir(parents=True)
    (place / "env.json").write_bytes(SECRET)
    down(base)
    assert not place.exists()


def test_a_stage_whose_reader_is_gone_leaves_nothing(base: Path, ship: Ship) -> None:
    """As the SSH server of a host leaves it when the laptop is gone: nobody sends it a signal."""
    assert ship.process.stdout
    ship.process.stdout.close()
    ship.go.touch()
    ship.process.wait(20)
    assert list((base / "tmp").iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_stage_that_is_asked_to_end_leaves_nothing(base: Path, ship: Ship, number: int) -> None:
    def ended() -> bool:
        os.killpg(ship.process.pid, number)  # a shell that is just being forked may miss one,
        with contextlib.suppress(subprocess.TimeoutExpired):  # but it must have time to clear up
            ship.process.wait(5)
        return ship.process.returncode is not None

    wait_for(ended)
    assert list((base / "tmp").iterdir()) == []


def test_a_push_that_was_killed_is_cleared_by_the_next(tmp_path: Path) -> None:
    source, place = tmp_path / "file", tmp_path / "there" / "file"
    source.write_bytes(SECRET)
    command, _, _ = push_command(source, str(place))
    process = subprocess.Popen(command.argv, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdin
    process.stdin.write(pack((PayloadFile("file", SECRET),))[:20])
    process.stdin.flush()
    wait_for(lambda: place.parent.exists() and [*place.parent.iterdir()])
    process.kill()
    process.wait()
    process.stdin.close()
    assert [path.name[:18] for path in place.parent.iterdir()] == [".rain-deploy-push."]
    run(command)
    assert [path.name for path in place.parent.iterdir()] == ["file"]


@pytest.mark.parametrize("rest", ["old", "1.2", "1.2.old", "1.b", "a.2", "..", "1", "1.2\n"])
@pytest.mark.parametrize("prefix", [".push", ".rain-deploy-push"])
def test_a_push_removes_no_directory_of_the_user(tmp_path: Path, prefix: str, rest: str) -> None:
    source, place = tmp_path / "file", tmp_path / "there" / "file"
    source.write_bytes(b"1")
    mine = place.parent / f"{prefix}.{rest}"
    mine.mkdir(parents=True)
    (mine / "notes").write_text("mine")
    command, _, _ = push_command(source, str(place))
    run(command)
    assert (mine / "notes").exists() != (mine.name == ".rain-deploy-push.1.2")
    assert place.read_bytes() == b"1"
