"""The dead man's switch: the program itself, run at chosen times on a made-up machine."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rain_deploy.core.layout import IDLE_PORT
from rain_deploy.core.step import Stage
from rain_deploy.node.files import write_json
from rain_deploy.parts.machine import limit_program, limit_stage
from rain_deploy.parts.shell import stage_command
from tests.support.network import WORKER

BOOT = 1_800_000_000
MINUTE, HALF_AN_HOUR, HOUR = 60, 1800, 3600
SERVER = f"127.105.{WORKER}.1"
STUBS = {
    "systemctl": 'echo "$@" >>off',
    "uptime": '/bin/date -u -d "@$(cat boot)" "+%Y-%m-%d %H:%M:%S"',
    "ss": "cat sessions",
    "date": '[ "$1" = +%s ] && exec cat now\nexec /bin/date "$@"',
}


class Machine:
    """A machine that booted at BOOT; what it is told and sees lies in files."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        for name, text in STUBS.items():
            self.write(f"bin/{name}", f"#!/bin/sh\n{text}\n")
            (directory / "bin" / name).chmod(0o755)
        self.write("program", limit_program())
        self.write("boot", str(BOOT))
        self.write("sessions", "")
        self.tell(limit="none", idle="none")

    def write(self, name: str, text: str, *, at: float = BOOT) -> Path:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        os.utime(path, (at, at))
        return path

    def tell(self, *, at: float = BOOT, **files: object) -> None:
        for name, value in files.items():
            self.write(f"machine/{name}", f"{value}\n", at=at)

    def boot(self, at: float) -> None:
        self.write("boot", str(at))

    def session(self, program: str = "sshd") -> None:
        self.write("sessions", f'0 0 10.0.0.1:22 198.51.100.1:5000 users:(("{program}",pid=7,fd=4))\n')

    def no_session(self) -> None:
        self.write("sessions", '0 0 10.0.0.1:7210 10.0.0.2:5000 users:(("rain",pid=8,fd=4))\n')

    def run(self, name: str, *, at: float = BOOT + 1, **described: Any) -> Path:
        """A run as it is shipped to every node."""
        directory = self.directory / "base/clusters/c1/runs" / name
        described = {"run": name, "sequence": int(name[1:]), "port": 7231, "then_off": False, **described}
        text = json.dumps({**described, "args": ["x"], "live": ["r9"]}, indent=1, sort_keys=True)
        self.write(f"base/clusters/c1/runs/{name}/run.json", text, at=at)
        return directory

    def state(self, run: Path, state: str, *, at: float) -> None:
        """As the supervisor on the server's node writes it."""
        write_json(run / "state.json", {"inner": {"state": "finished"}, "state": state})
        os.utime(run / "state.json", (at, at))

    def node(self, server: str = SERVER) -> None:
        text = json.dumps({"address": "127.2.200.2", "server_address": server}, indent=1, sort_keys=True)
        self.write("base/clusters/c1/nodes/2/node.json", text)

    def goes_off(self, now: float) -> bool:
        """Look once, at ``now``."""
        (self.directory / "off").unlink(missing_ok=True)
        self.write("now", str(int(now)))
        environment = {
            "PATH": f"{self.directory / 'bin'}:{os.environ['PATH']}",
            "RAIN_DEPLOY_MACHINE": str(self.directory / "machine"),
            "RAIN_DEPLOY_BASE": str(self.directory / "base"),
        }
        program = subprocess.run(
            ["/bin/sh", self.directory / "program"],
            cwd=self.directory,
            env=environment,
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        assert program.stderr == ""
        off = self.directory / "off"
        assert not off.exists() or off.read_text(encoding="utf-8") == "poweroff\n"
        assert off.exists() == ("powering off" in program.stdout)
        return off.exists()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


class Listener:
    """A server's port, as long as it is open."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._socket = socket.create_server((SERVER, port))

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def server() -> Iterator[list[Listener]]:
    opened: list[Listener] = []
    yield opened
    for each in opened:
        each.close()


# The time limit


def test_it_goes_off_at_its_limit_and_not_before(machine: Machine) -> None:
    machine.tell(limit=BOOT + 600)
    assert not machine.goes_off(BOOT + 599)
    assert machine.goes_off(BOOT + 600)


def test_neither_run_nor_session_outlasts_the_limit(machine: Machine) -> None:
    machine.tell(limit=BOOT + HOUR, idle=HOUR)
    machine.session()
    machine.state(machine.run("r1"), "running", at=BOOT + MINUTE)
    assert not machine.goes_off(BOOT + HOUR - 1)
    assert machine.goes_off(BOOT + HOUR)


def test_without_a_limit_it_stays(machine: Machine) -> None:
    machine.tell(limit="none")
    assert not machine.goes_off(BOOT + 1000 * HOUR)


@pytest.mark.parametrize("limit", ["", "soon", "12.5", "-1", "$(touch off)", "1; touch off"])
def test_a_limit_that_was_damaged_is_twelve_hours_from_boot(machine: Machine, limit: str) -> None:
    machine.tell(limit=limit)
    assert not machine.goes_off(BOOT + 12 * HOUR - 1)
    assert machine.goes_off(BOOT + 12 * HOUR)


def test_a_machine_that_nobody_told_anything_stays(machine: Machine) -> None:
    for name in ("limit", "idle"):
        (machine.directory / "machine" / name).unlink()
    assert not machine.goes_off(BOOT + 1000 * HOUR)


def test_a_moved_limit_holds_from_the_next_look(machine: Machine) -> None:
    machine.tell(limit=BOOT + HOUR)
    machine.tell(limit=BOOT + 2 * HOUR)
    assert not machine.goes_off(BOOT + HOUR)
    assert machine.goes_off(BOOT + 2 * HOUR)


def test_a_boot_after_the_limit_grants_half_an_hour(machine: Machine) -> None:
    machine.tell(limit=BOOT - HOUR)
    assert not machine.goes_off(BOOT)
    assert not machine.goes_off(BOOT + HALF_AN_HOUR - 1)
    assert machine.goes_off(BOOT + HALF_AN_HOUR)


# Idleness


def test_an_idle_machine_goes_off_so_long_after_its_boot(machine: Machine) -> None:
    machine.tell(idle=600)
    assert not machine.goes_off(BOOT + 599)
    assert machine.goes_off(BOOT + 600)


@pytest.mark.parametrize("program", ["sshd", "sshd-session"])
def test_a_session_keeps_it_up(machine: Machine, program: str) -> None:
    machine.tell(idle=600)
    machine.session(program)
    assert not machine.goes_off(BOOT + HOUR)
    machine.no_session()
    assert not machine.goes_off(BOOT + HOUR + 599)
    assert machine.goes_off(BOOT + HOUR + 600)


@pytest.mark.parametrize("state", ["queued", "starting", "running"])
def test_a_run_keeps_the_server_up_until_it_has_finished(machine: Machine, state: str) -> None:
    machine.tell(idle=600)
    machine.state(machine.run("r1"), "finished", at=BOOT + 1)
    run = machine.run("r2")
    machine.state(run, state, at=BOOT + MINUTE)
    assert not machine.goes_off(BOOT + HOUR)
    machine.state(run, "finished", at=BOOT + HOUR + 1)
    assert not machine.goes_off(BOOT + HOUR + 599)
    assert machine.goes_off(BOOT + HOUR + 600)


def test_a_run_that_a_power_off_broke_off_keeps_nothing_up(machine: Machine) -> None:
    machine.tell(idle=600)
    machine.state(machine.run("r1", at=BOOT - HOUR), "running", at=BOOT - HOUR)
    assert machine.goes_off(BOOT + 600)


def test_a_machine_that_was_idle_before_its_boot_starts_to_count_anew(machine: Machine) -> None:
    machine.tell(idle=600)
    machine.session()
    assert not machine.goes_off(BOOT + 1)
    machine.no_session()
    machine.boot(BOOT + 10 * HOUR)
    assert not machine.goes_off(BOOT + 10 * HOUR + 599)
    assert machine.goes_off(BOOT + 10 * HOUR + 600)


def test_a_run_of_the_server_keeps_a_governor_up(machine: Machine, server: list[Listener]) -> None:
    machine.tell(idle=600)
    machine.node()
    machine.run("r1", port=7230)
    machine.run("r2", port=7231)
    server.append(Listener(7230))
    assert not machine.goes_off(BOOT + HOUR)
    server.pop().close()
    server.append(Listener(IDLE_PORT))
    assert machine.goes_off(BOOT + HOUR + 600)


# run --then-off


def test_the_server_goes_off_two_minutes_after_the_run(machine: Machine) -> None:
    run = machine.run("r1", then_off=True)
    machine.state(run, "running", at=BOOT + 1)
    assert not machine.goes_off(BOOT + HOUR)
    machine.state(run, "finished", at=BOOT + HOUR)
    assert not machine.goes_off(BOOT + HOUR + 119)
    assert machine.goes_off(BOOT + HOUR + 120)


def test_results_that_are_being_fetched_delay_it_by_half_an_hour_at_most(machine: Machine) -> None:
    machine.state(machine.run("r1", then_off=True), "finished", at=BOOT + HOUR)
    machine.session()
    assert not machine.goes_off(BOOT + HOUR + HALF_AN_HOUR - 1)
    assert machine.goes_off(BOOT + HOUR + HALF_AN_HOUR)


@pytest.mark.parametrize("later", ["queued", "running", "finished"])
def test_a_later_run_that_did_not_ask_for_it_calls_it_off(machine: Machine, later: str) -> None:
    machine.state(machine.run("r9", then_off=True), "finished", at=BOOT + HOUR)
    machine.state(machine.run("r10"), later, at=BOOT + HOUR)
    assert not machine.goes_off(BOOT + 10 * HOUR)


def test_an_earlier_run_that_goes_on_is_waited_for(machine: Machine) -> None:
    machine.state(machine.run("r1"), "running", at=BOOT + 1)
    machine.state(machine.run("r2", then_off=True), "finished", at=BOOT + 2)
    assert not machine.goes_off(BOOT + HOUR)


def test_a_limit_that_was_moved_after_the_end_calls_it_off(machine: Machine) -> None:
    machine.state(machine.run("r1", then_off=True), "finished", at=BOOT + HOUR)
    machine.tell(limit=BOOT + 9 * HOUR, at=BOOT + HOUR + 60)
    assert not machine.goes_off(BOOT + 8 * HOUR)
    assert machine.goes_off(BOOT + 9 * HOUR)


def test_one_that_was_moved_before_the_end_does_not(machine: Machine) -> None:
    machine.tell(limit=BOOT + 9 * HOUR, at=BOOT + 60)
    machine.state(machine.run("r1", then_off=True), "finished", at=BOOT + HOUR)
    assert machine.goes_off(BOOT + HOUR + 120)


@pytest.mark.parametrize("ended", [-HOUR, 10])
def test_started_again_to_fetch_something_it_stays_for_half_an_hour(machine: Machine, ended: int) -> None:
    """``ended``: before the power-off, or by the operator's side after the boot."""
    machine.tell(limit="none", at=BOOT - 3 * HOUR)
    machine.state(machine.run("r1", then_off=True, at=BOOT - 2 * HOUR), "finished", at=BOOT + ended)
    assert not machine.goes_off(BOOT + HALF_AN_HOUR - 1)
    assert machine.goes_off(BOOT + HALF_AN_HOUR)


def test_a_governor_follows_a_server_that_is_silent_for_five_minutes(
    machine: Machine, server: list[Listener]
) -> None:
    machine.node()
    machine.run("r1", then_off=True)
    server.append(Listener(7231))
    assert not machine.goes_off(BOOT + HOUR)
    server.pop().close()
    assert not machine.goes_off(BOOT + HOUR + 60)
    assert not machine.goes_off(BOOT + HOUR + 60 + 299)
    assert machine.goes_off(BOOT + HOUR + 60 + 300)


@pytest.mark.parametrize("port", [7231, IDLE_PORT])
def test_a_governor_whose_server_answers_between_stays(
    machine: Machine, server: list[Listener], port: int
) -> None:
    machine.node()
    machine.run("r1", then_off=True)
    assert not machine.goes_off(BOOT + 60)
    server.append(Listener(port))
    assert not machine.goes_off(BOOT + 120)
    server.pop().close()
    assert not machine.goes_off(BOOT + HOUR)
    assert machine.goes_off(BOOT + HOUR + 300)


def test_a_governor_waits_for_an_earlier_run_too(machine: Machine, server: list[Listener]) -> None:
    machine.node()
    machine.run("r1", port=7230)
    machine.run("r2", then_off=True)
    server.append(Listener(7230))
    for minutes in range(8):
        assert not machine.goes_off(BOOT + HOUR + minutes * MINUTE)


def test_silence_before_a_run_was_shipped_is_not_its_end(machine: Machine) -> None:
    machine.node()
    machine.run("r1", then_off=True)
    assert not machine.goes_off(BOOT + 60)
    machine.run("r2", then_off=True, at=BOOT + HOUR)
    assert not machine.goes_off(BOOT + HOUR + 1)
    assert machine.goes_off(BOOT + HOUR + 301)


def test_a_governor_that_was_started_again_stays_for_half_an_hour(machine: Machine) -> None:
    machine.node()
    machine.run("r1", then_off=True, at=BOOT - HOUR)
    assert not machine.goes_off(BOOT + 60)
    assert not machine.goes_off(BOOT + HALF_AN_HOUR - 1)
    assert machine.goes_off(BOOT + HALF_AN_HOUR)


# Moving the limit


def move(machine: Machine, limit_s: float | None) -> subprocess.CompletedProcess[bytes]:
    stage = limit_stage(limit_s)
    here = ("RAIN_DEPLOY_MACHINE", str(machine.directory / "machine"))
    stage = Stage(stage.name, stage.steps, stage.payload, (*stage.variables, here))
    command = stage_command(stage, str(machine.directory / "stage"))
    return subprocess.run(command.argv, capture_output=True, timeout=30, check=False)


def test_the_limit_is_moved_in_one_step_and_no_draft_stays(machine: Machine) -> None:
    assert move(machine, BOOT + 7.9).returncode == 0
    limit = machine.directory / "machine/limit"
    assert limit.read_text(encoding="utf-8") == f"{BOOT + 7}\n"
    assert limit.stat().st_mode & 0o777 == 0o644
    assert {path.name for path in limit.parent.iterdir()} == {"limit", "idle"}
    assert move(machine, None).returncode == 0
    assert limit.read_text(encoding="utf-8") == "none\n"


def test_the_same_limit_is_left_untouched(machine: Machine) -> None:
    machine.tell(limit=BOOT + 7)
    limit = machine.directory / "machine/limit"
    before = limit.stat().st_ino, limit.stat().st_mtime
    assert move(machine, BOOT + 7).returncode == 0
    assert (limit.stat().st_ino, limit.stat().st_mtime) == before


def test_a_machine_that_is_not_ours_is_given_no_limit(machine: Machine) -> None:
    (machine.directory / "machine/limit").unlink()
    moved = move(machine, BOOT)
    assert moved.returncode == 1
    assert b"no time limit of ours" in moved.stderr
    assert not (machine.directory / "machine/limit").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_limit_that_cannot_be_written_leaves_the_old_one_and_fails(machine: Machine) -> None:
    machine.tell(limit=BOOT)
    (machine.directory / "machine/.limit").symlink_to("/dev/full")
    assert move(machine, BOOT + 9).returncode == 1
    assert (machine.directory / "machine/limit").read_text(encoding="utf-8") == f"{BOOT}\n"
