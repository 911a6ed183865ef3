"""``up --dry-run``: tells what would run where, touches nothing, asks no network."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from rain_deploy.providers.keys import public_key
from tests.local.command_line import CommandLine, Told

WATCHED = """
import sys
seen = []
sys.addaudithook(lambda event, _: event.startswith("socket.") and seen.append(event))
from rain_deploy.cli.main import main
try:
    main()
finally:
    own = {"socket.gethostname"}
    print("sockets:", sorted(set(seen) - own), file=sys.stderr)
"""
"""The command line in a Python that notes every use of a socket, name look-ups too."""
STRANGE = ("me@203.0.113.1", "me@203.0.113.2:2222")
HOSTS = ("up", "--dry-run", "--provider", "hosts", "--hosts", ",".join(STRANGE))


@dataclass(frozen=True)
class Watched(CommandLine):
    """A user who knows the hosts, whose every command is watched."""

    def __call__(self, *words: str, env: dict[str, str] | None = None, timeout_s: float = 60.0) -> Told:
        variables = {
            "PATH": "/usr/bin:/bin",
            "RAIN_DEPLOY_HOME": str(self.home),
            "HOME": str(self.cwd),
            **(env or {}),
        }
        argv = [sys.executable, "-c", WATCHED, *words]
        done = subprocess.run(
            argv, cwd=self.cwd, env=variables, capture_output=True, text=True, timeout=timeout_s, check=False
        )
        return Told(done.returncode, done.stdout, done.stderr)

    def remembers(self) -> list[str]:
        """The state file, but for when it was made."""
        with sqlite3.connect(self.home / "state.sqlite") as database:
            return [line for line in database.iterdump() if 'INSERT INTO "home"' not in line]


@pytest.fixture
def line(tmp_path: Path) -> Watched:
    (tmp_path / "work/.ssh").mkdir(parents=True)
    key = public_key(tmp_path / "key")
    known = f"203.0.113.1 {key}\n[203.0.113.2]:2222 {key}\n"
    (tmp_path / "work/.ssh/known_hosts").write_text(known)
    return Watched(tmp_path / "home", tmp_path / "work")


def test_it_opens_no_socket_and_makes_nothing(line: Watched) -> None:
    line("list")
    empty = line.remembers()
    told = line(*HOSTS)
    assert told.exit_code == 0, told
    assert told.stderr.splitlines()[-1] == "sockets: []"
    assert line.remembers() == empty
    assert {path.name for path in line.home.iterdir()} == {"state.sqlite", "logs"}
    assert [path.name for path in line.cwd.iterdir()] == [".ssh"]


def test_the_audit_hook_sees_a_socket_where_one_is_opened(line: Watched) -> None:
    told = line("up", "--yes", "--provider", "hosts", "--hosts", "me@nowhere.invalid")
    assert "socket.getaddrinfo" in told.stderr.splitlines()[-1]


def test_nothing_is_known_of_the_hosts_so_debian_12_is_assumed_and_said(line: Watched) -> None:
    told = line(*HOSTS)
    assert "assumed for node-1, node-2: Debian 12 with root and systemd" in told.stdout + told.stderr
    plan = line(*HOSTS, "--json").result
    assert plan["facts"].startswith("assumed for node-1, node-2: Debian 12 with root and systemd")
    assert "digest stands as zeros" in plan["facts"], "the engine is still to be built"
    first, second = plan["hosts"]
    assert [stage["stage"] for stage in first["stages"]] == ["facts", "install", "wall", "start"]
    assert [stage["stage"] for stage in second["stages"]] == ["facts", "install", "wall", "start"]
    assert (first["host"], first["label"], second["label"]) == ("node-1", *STRANGE)
    scripts = line(*HOSTS, "-v").stdout
    for host in plan["hosts"]:
        assert all(
            stage["command"] in scripts and stage["command"] not in told.stdout for stage in host["stages"]
        )
        assert all(f"  change  {step}" in told.stdout for step in host["steps"])
        assert len(host["steps"]) > 3
    assert len(told.stdout.splitlines()) < 40


def test_every_stage_is_a_script_that_a_posix_shell_reads(line: Watched) -> None:
    for host in line(*HOSTS, "--json").result["hosts"]:
        for stage in host["stages"]:
            checked = subprocess.run(
                ["sh", "-n"], input=stage["command"], text=True, capture_output=True, check=False
            )
            assert (checked.returncode, checked.stderr) == (0, ""), stage


def test_it_refuses_what_up_would_refuse(line: Watched) -> None:
    assert line(*HOSTS, "--nodes", "3").exit_code == 10
    assert line("up", "--dry-run", "--provider", "hosts").exit_code == 10
    proxied = "Host far\n  HostName 203.0.113.1\n  ProxyCommand nc %h %p\n"
    (line.cwd / ".ssh/config").write_text(proxied)
    told = line("up", "--dry-run", "--provider", "hosts", "--hosts", "far")
    assert (told.exit_code, "ProxyCommand" in told.stderr) == (10, True)


def test_local_nodes_are_planned_without_being_made(line: Watched) -> None:
    told = line("up", "--dry-run", "--provider", "local", "--nodes", "2", "--json")
    assert [host["host"] for host in told.result["hosts"]] == ["node-1", "node-2"]
    assert not (line.home / "local").exists()
