"""Rows 72 to 74 of the fault matrix: a state file that cannot be written, cannot be read, or is held."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import resource
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.account import CLUSTER, Account, Home, until
from tests.faults.commands import Done, Running
from tests.lab.log import Request

PAGE_BYTES = 4096
ROOT = os.geteuid() == 0


def whole(home: Home) -> bool:
    """Whether the state file is one that SQLite finds no fault in."""
    with contextlib.closing(sqlite3.connect(home.state)) as database:
        (found,) = database.execute("PRAGMA integrity_check").fetchone()
    return bool(found == "ok")


# ---- 72: it cannot be written


def breaks_at(operation: str, cloud: Account, home: Home, disk: Callable[[int], None]) -> Done:
    """An ``up`` whose disk fails from the moment on in which the cloud has done an operation."""
    running: list[Running] = []

    def strike(_request: Request) -> None:
        until(lambda: bool(running), "the command is known here")
        disk(running[0].process.pid)

    cloud.lab.faults.call(operation, strike, stage="committed")
    running.append(home.start("up", "--nodes", "2"))
    done = running[0].wait()
    cloud.wait_until_quiet()
    return done


def only_small_writes_succeed(pid: int) -> None:
    """The state file is larger than this: SQLite can neither end a change nor take it back."""
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (2 * PAGE_BYTES, resource.RLIM_INFINITY))


def test_row_72_a_state_that_cannot_be_written_costs_no_create(cloud: Account, me: Home) -> None:
    me.ends(12, "up", "--nodes", "2", largest_file_bytes=me.state_size())
    assert cloud.creates() == []
    assert whole(me)
    me.converges("up", "--nodes", "2", nodes=2)


@pytest.mark.parametrize("operation", ["register-ssh-key", "create-security-group", "create-instance"])
def test_row_72_a_disk_that_fails_under_up_leaves_the_state_whole_and_no_machine_running(
    operation: str, cloud: Account, me: Home
) -> None:
    done = breaks_at(operation, cloud, me, only_small_writes_succeed)
    assert whole(me)
    me.check(done, 12)
    assert me.nodes() == []
    me.converges("up", "--nodes", "2", nodes=2)


def test_row_72_a_state_that_is_spoilt_under_up_leaves_no_machine_running(cloud: Account, me: Home) -> None:
    good: list[bytes] = []

    def spoil(_pid: int) -> None:
        good.append(me.state.read_bytes())
        me.state.write_bytes(bytes(len(good[0])))

    done = breaks_at("create-instance", cloud, me, spoil)
    assert done.status == 12, str(done)
    assert me.nodes() == []
    me.state.write_bytes(good[0])
    me.converges("up", "--nodes", "2", nodes=2)


def fill(ballast: Path) -> None:
    """Take all space that is left."""
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while file.write(bytes(PAGE_BYTES)):
            pass


@pytest.mark.root
@pytest.mark.parametrize("operation", ["list-zones", "create-instance"])
def test_row_72_a_full_disk_is_called_so_and_loses_no_machine_from_sight(
    operation: str, cloud: Account, small_disk: Path
) -> None:
    me, ballast = cloud.home(at=small_disk / "home"), small_disk / "ballast"
    assert me.store.clusters() == ()

    done = breaks_at(operation, cloud, me, lambda _pid: fill(ballast))
    ballast.unlink()
    assert "disk is full" in done.err
    assert whole(me)
    me.check(done, 12)
    me.converges("up", "--nodes", "2", nodes=2)


@contextlib.contextmanager
def full_disk(place: Path) -> Iterator[None]:
    """Not a byte more can be written."""
    fill(place / "ballast")
    yield
    (place / "ballast").unlink()


@contextlib.contextmanager
def read_only(place: Path) -> Iterator[None]:
    """As after a fault of the file system."""
    subprocess.run(["mount", "-o", "remount,ro", place], check=True)
    yield
    subprocess.run(["mount", "-o", "remount,rw", place], check=True)


@pytest.mark.root
@pytest.mark.parametrize("broken", [full_disk, read_only])
def test_row_72_a_home_that_cannot_be_written_hides_no_cluster_and_keeps_nobody_from_ending_it(
    broken: Callable[[Path], contextlib.AbstractContextManager[None]], cloud: Account, small_disk: Path
) -> None:
    me = cloud.home(at=small_disk / "home")
    me.well("up", "--nodes", "2")
    with broken(small_disk):
        for verb in ("status", "list", "runs", "gc"):
            assert me.well(verb).out
        refused = me.run("scale", "3")
        assert (refused.status, len(me.nodes())) == (12, 2)
        done = me.run("down")
        assert done.status == 12, str(done)
        assert "cannot record what it does" in done.err
        assert f"cluster {CLUSTER} is deleted, but its record stays" in done.err
        assert "verified: nothing is left" in done.out
        assert me.nodes() == []
    assert whole(me)
    me.well("down")
    assert me.store.clusters() == ()


@pytest.mark.root
def test_row_72_a_disk_that_fills_under_down_stops_no_delete(cloud: Account, small_disk: Path) -> None:
    me = cloud.home(at=small_disk / "home")
    me.well("up", "--nodes", "2")
    cloud.lab.faults.call("delete-instance", lambda _: fill(small_disk / "ballast"), stage="committed")
    done = me.run("down")
    assert (done.status, me.nodes()) == (12, []), str(done)
    (small_disk / "ballast").unlink()
    me.well("down")
    assert me.store.clusters() == ()


# ---- 73: it cannot be read


def garbage(path: Path) -> None:
    path.write_bytes(b"once upon a time " * 1000)


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def newer(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 99")


def open_to_all(path: Path) -> None:
    path.chmod(0o777)


def of_somebody_else(path: Path) -> None:
    if not ROOT:
        pytest.skip("only root can give files away")
    os.chown(path, 12345, 12345)


@pytest.mark.parametrize("damage", [garbage, truncated, newer, open_to_all, of_somebody_else])
def test_row_73_a_state_file_that_is_not_ours_to_trust_is_left_as_it_is(
    damage: object, cloud: Account, me: Home
) -> None:
    me.well("up", "--nodes", "1")
    good = me.state.read_bytes()
    assert callable(damage)
    damage(me.state)
    bad, requests = me.state.read_bytes(), len(cloud.lab.log)
    for verb in ("up", "down", "status"):
        done = me.run(verb)
        assert done.status == 12, str(done)
        assert "next: " in done.err
    assert me.state.read_bytes() == bad
    assert len(cloud.lab.log) == requests
    other = cloud.home()
    assert CLUSTER in other.well("gc").out
    me.state.unlink()
    me.state.write_bytes(good)
    me.state.chmod(0o600)
    me.converges("up", nodes=1)


# ---- 74: it is held


def test_row_74_the_lock_of_a_command_that_was_killed_is_free(cloud: Account, me: Home) -> None:
    cloud.lab.faults.hang("create-instance")
    running = me.start("up", "--nodes", "1")
    until(lambda: bool(cloud.lab.log.of("create-instance")), "a create is sent")
    assert me.start("down").wait().status == 11
    running.signal(signal.SIGKILL)
    running.wait()
    assert (me.path / "locks" / f"{CLUSTER}.lock").exists()
    cloud.lab.faults.clear()
    cloud.wait_until_quiet()
    me.converges("up", "--nodes", "1", nodes=1)


def test_row_74_a_holder_on_another_host_is_reported(cloud: Account, me: Home) -> None:
    me.well("up", "--nodes", "1")
    holder = {"pid": 4711, "host": "elsewhere", "verb": "scale", "since_s": time.time() - 60}
    lock = me.path / "locks" / f"{CLUSTER}.lock"
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(json.dumps(holder))
        file.flush()
        refused = me.ends(11, "down")
    assert "`scale`" in refused.err
    assert "process 4711 on elsewhere, for 1 min" in refused.err
    me.converges("up", nodes=1)
