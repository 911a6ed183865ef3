"""Processes are known by identity and by their environment, and ended to the last one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rain_deploy.node.service.process import (
    PLACE,
    ROLE,
    SERVICE,
    Process,
    end,
    group,
    identify,
    leader,
    reap,
    scan,
    spawn,
    variables,
)
from tests.support.waiting import wait_for

STUBBORN = """\
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(60)
"""
PARENT = """\
import subprocess, sys
subprocess.run([sys.executable, "-c", "print(1, flush=True); import time; time.sleep(60)"])
"""


@pytest.fixture
def service(tmp_path: Path) -> Iterator[str]:
    name = f"unit-102-{os.getpid()}-{tmp_path.name}/1"
    yield name
    assert end(lambda: scan(name), grace_s=0, deadline_s=10) == ()


def start(service: str, tmp_path: Path, code: str, role: str = "server", place: str = "/p/1") -> Process:
    env = {**os.environ, SERVICE: service, ROLE: role, PLACE: place}
    return spawn([sys.executable, "-c", code], log=tmp_path / "log", env=env)


def wait_for_text(path: Path, text: str) -> None:
    wait_for(lambda: text in path.read_text())


def test_a_process_with_the_same_number_is_not_the_same() -> None:
    myself = identify(os.getpid())
    assert myself
    assert myself.alive()
    assert not Process(myself.pid, myself.start_ticks + 1).alive()
    assert 0 <= myself.age_s() < 3600


def test_a_zombie_is_not_alive() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    process = identify(child.pid)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert identify(child.pid) is None
    assert process is None or not process.alive()
    child.returncode = 0


def test_children_that_have_ended_leave_no_zombie_whoever_waits_for_them(tmp_path: Path) -> None:
    started = [spawn(["true"], log=tmp_path / "log", env=dict(os.environ)) for _ in range(3)]
    answering = subprocess.Popen(["true"], stdout=subprocess.PIPE)
    pids = [answering.pid, *(process.pid for process in started)]
    wait_for(lambda: not any(map(identify, pids)))
    assert all(Path(f"/proc/{pid}").exists() for pid in pids)  # each is a zombie
    reap()
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert answering.communicate()[0] == b""  # who has started it with a pipe finds it ended
    reap()  # without children


def test_processes_are_found_by_exactly_their_marks(tmp_path: Path, service: str) -> None:
    first = start(service, tmp_path, "import time; time.sleep(60)", "server", "/p/1")
    second = start(service, tmp_path, "import time; time.sleep(60)", "governor", "/p/2")
    start(f"{service}0", tmp_path, "import time; time.sleep(5)")
    assert set(scan(service)) == {first, second}
    assert scan(service, "server") == [first]
    assert scan(service, "governor", Path("/p/2")) == [second]
    assert scan(service, "governor", Path("/p/1")) == []
    assert end(lambda: scan(f"{service}0"), grace_s=0, deadline_s=10) == ()


def test_what_was_started_is_found_at_once(tmp_path: Path, service: str) -> None:
    """The kernel shows no environment of a process that is just becoming another program."""
    for _ in range(40):
        started = start(service, tmp_path, "import time; time.sleep(60)")
        assert Path(f"/proc/{started.pid}/environ").read_bytes()
        os.kill(started.pid, signal.SIGKILL)
        with subprocess.Popen(["sleep", "60"], env={**os.environ, SERVICE: service}) as child:
            shown = variables(child.pid)
            child.kill()
            assert f"{SERVICE}={service}".encode() in shown.split(b"\0")
    assert end(lambda: scan(service), grace_s=0, deadline_s=10) == ()
    reap()


def test_what_was_started_is_told_from_its_children(tmp_path: Path, service: str) -> None:
    process = start(service, tmp_path, PARENT)
    wait_for_text(tmp_path / "log", "1")
    assert len(scan(service)) == 2
    found = leader(service, "server")
    assert found
    assert found == process
    assert len(group(process.pid)) == 2


def test_who_ignores_sigterm_is_killed_after_the_grace(tmp_path: Path, service: str) -> None:
    start(service, tmp_path, STUBBORN)
    wait_for_text(tmp_path / "log", "ready")
    started = time.monotonic()
    assert end(lambda: scan(service), grace_s=0.3, deadline_s=10) == ()
    assert time.monotonic() - started >= 0.3


def test_a_process_started_while_others_are_ended_is_ended_too(tmp_path: Path, service: str) -> None:
    code = (
        "import os, subprocess, sys, time\n"
        "def again(*_): subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'],"
        " start_new_session=True); os._exit(0)\n"
        "import signal; signal.signal(signal.SIGTERM, again)\n"
        "print('ready', flush=True); time.sleep(60)"
    )
    start(service, tmp_path, code)
    wait_for_text(tmp_path / "log", "ready")
    assert end(lambda: scan(service), grace_s=5, deadline_s=15) == ()
    assert scan(service) == []


def test_what_does_not_end_is_named() -> None:
    myself = Process(os.getpid(), 1)  # of another start, so no signal reaches it
    assert end(lambda: [myself], grace_s=0, deadline_s=0.1) == (myself,)
