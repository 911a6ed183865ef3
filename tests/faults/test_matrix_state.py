"""Rows 72 to 74 of the fault matrix: a state file that cannot be written, cannot be read, or is held."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.matrix import CLUSTER, Account, Home, until
from tests.faults.matrix_commands import Commands

PAGE_BYTES = 4096
ROOT = os.geteuid() == 0


def whole(home: Home) -> bool:
    """Whether the state file is one that SQLite finds no fault in."""
    with contextlib.closing(sqlite3.connect(home.state)) as database:
        (found,) = database.execute("PRAGMA integrity_check").fetchone()
    return bool(found == "ok")


# ---- 72: it cannot be written


@pytest.mark.parametrize("pages", [0, 2, 3])
def test_row_72_a_file_that_may_not_grow_leaves_the_state_as_it_was(
    pages: int, cloud: Account, me: Home
) -> None:
    size = me.state_size() + pages * PAGE_BYTES
    me.ends(12, "up", "--nodes", "2", largest_file_bytes=size)
    assert whole(me)
    me.converges("up", "--nodes", "2", nodes=2)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "none", str(place)]
    if not ROOT or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.root
@pytest.mark.parametrize("free", [0, 4, 7])
def test_row_72_a_full_disk_loses_no_machine_from_sight(
    free: int, cloud: Account, small_disk: Path
) -> None:
    me = cloud.home(at=small_disk / "home")
    assert me.store.clusters() == ()
    ballast = small_disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb") as file:
        while True:
            file.write(bytes(PAGE_BYTES))
            file.flush()
    os.truncate(ballast, max(0, ballast.stat().st_size - free * PAGE_BYTES))
    done = me.run("up", "--nodes", "2")
    ballast.unlink()
    assert "disk is full" in done.err
    me.check(done, 12)
    assert whole(me)
    me.converges("up", "--nodes", "2", nodes=2)


@contextlib.contextmanager
def breaking(commands: Commands, path: Path, nth: int) -> Iterator[None]:
    """Writes of a file fail with an error of the disk, from the n-th of each thread on."""
    inject = f"inject=pwrite64,fdatasync:error=EIO:when={nth}+"
    words = ["strace", "-qq", "-f", "-o", "/dev/null", "-P", str(path), "-e", inject]
    tracer = subprocess.Popen([*words, "-p", str(commands.pid)], stderr=subprocess.DEVNULL)
    try:
        until(commands.traced, "strace has attached itself")
        yield
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.wait(10)


@pytest.mark.skipif(shutil.which("strace") is None, reason="there is no strace to break a disk with")
@pytest.mark.parametrize("nth", [1, 4, 9])
def test_row_72_a_broken_disk_leaves_the_state_whole_and_no_machine_unseen(
    nth: int, commands: Commands, cloud: Account, me: Home
) -> None:
    assert me.store.clusters() == ()
    with breaking(commands, me.state, nth):
        done = me.run("up", "--nodes", "2")
    me.check(done, 12)
    assert whole(me)
    me.converges("up", "--nodes", "2", nodes=2)


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
    assert me.run_beside("down").status == 11
    running.signal(signal.SIGKILL)
    running.wait()
    assert (me.path / "locks" / f"{CLUSTER}.lock").exists()
    cloud.lab.faults.clear()
    cloud.wait_until_quiet()
    me.converges("up", "--nodes", "1", nodes=1)


def test_row_74_a_holder_on_another_host_is_told(cloud: Account, me: Home) -> None:
    me.well("up", "--nodes", "1")
    holder = {"pid": 4711, "host": "elsewhere", "verb": "scale", "since_s": time.time() - 60}
    lock = me.path / "locks" / f"{CLUSTER}.lock"
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(json.dumps(holder))
        file.flush()
        refused = me.ends(11, "down")
    assert "`scale`" in refused.err
    assert "process 4711 on elsewhere, for 6" in refused.err
    me.converges("up", nodes=1)
