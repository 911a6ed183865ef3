"""Whatever goes wrong ends in one message, one exit code, and the command to type next."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from rain_deploy.cluster.context import Confirm, Context
from rain_deploy.core import events
from rain_deploy.core.machine import Intent
from rain_deploy.errors import Declined, HostKeyError, InstallFailed, Locked, RainDeployError, Unreachable
from rain_deploy.state.store import Store
from rain_deploy.verbs.check import CheckLine
from rain_deploy.verbs.nodes import ExecLine
from tests.unit.fake_application import RUN, World
from tests.unit.fake_application import _context as make_context

ROOT = Path(__file__).parents[2]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.py").touch()
    return World(tmp_path / "home")


def logs(world: World) -> list[Path]:
    return sorted((world.home / "logs").iterdir())


def test_an_error_says_where_what_why_what_still_runs_and_what_next(world: World) -> None:
    world.verbs.error = HostKeyError(
        "the host key has changed",
        node="node-2",
        details="offered ssh-ed25519 AAAA",
        still_running="2 nodes",
        next_step="ssh-keygen -R lab3",
    )
    result = world.invoke("status")
    assert (result.exit_code, result.stdout) == (31, "")
    assert result.stderr.splitlines() == [
        "error[RD31] node-2: the host key has changed",
        "  | offered ssh-ed25519 AAAA",
        "still running: 2 nodes",
        f"log: {logs(world)[0]}",
        "next: ssh-keygen -R lab3",
    ]


def test_the_next_command_is_the_last_line_also_where_a_report_is_made_at_the_end(world: World) -> None:
    @contextlib.contextmanager
    def reporting(home: Path, emit: events.EventSink, confirm: Confirm) -> Iterator[Context]:
        with make_context(home, emit, confirm) as context:
            yield context
        emit(events.Notice("report: results/report.html"))

    world.make_context = reporting
    world.verbs.run_result = replace(RUN, outcome="failed", points=2, failed_points=1)
    result = world.invoke("attach")
    assert result.exit_code == 42
    *_, report, error, log, last = result.stderr.splitlines()
    assert report == "report: results/report.html"
    assert (error[:12], log[:5], last) == ("error[RD42]:", "log: ", "next: rain-deploy points r1 -c default")


def test_an_error_that_does_not_say_what_exists_is_completed_from_state(world: World) -> None:
    world.living()
    world.verbs.error = InstallFailed("no space", node="node-1")
    result = world.invoke("up")
    assert result.exit_code == 32
    assert (
        "still running: cluster default: node-1, node-2; remove it with: rain-deploy down\n" in result.stderr
    )


def test_only_machines_are_said_to_run(world: World) -> None:
    world.living()
    store = Store(world.home)
    for kind in ("ssh-key", "group", "instance"):
        store.save_intent(Intent("ab12", "default", kind, "node-1" if kind == "instance" else kind))
    world.verbs.error = InstallFailed("no space", node="node-1")
    assert "still running: cluster default: node-1, node-2; remove it with" in world.invoke("up").stderr
    world.living("exoscale")
    world.verbs.error = InstallFailed("no space", node="node-1")
    shown = world.invoke("up").stderr.partition("still running: ")[2]
    assert shown.startswith("cluster default: node-1 (")
    assert "; it also has ssh-key, group; remove it with: " in shown


def test_text_of_others_cannot_steer_the_terminal_and_is_cut(world: World) -> None:
    details = "\n".join([f"line {n}" for n in range(30)] + ["\x1b]0;owned\x07 \u202egnp.exe" + "x" * 500])
    world.verbs.events = (events.Progress("node-1", "\x1b[2J"), events.Notice("sending \x1b[31mred"))
    world.verbs.error = InstallFailed("it said \x1b[2J", details=details)
    result = world.invoke("up", "-v", "--provider", "local")
    assert "\x1b" not in result.stderr
    assert "\u202e" not in result.stderr
    assert r"node-1: \x1b[2J" in result.stderr
    assert r"error[RD32]: it said \x1b[2J" in result.stderr
    shown = [line for line in result.stderr.splitlines() if line.startswith("  | ")]
    assert (len(shown), shown[0]) == (20, "  | line 11")
    assert shown[-1].startswith(r"  | \x1b]0;owned\x07 \u202egnp.exe")
    assert len(shown[-1]) < 310


def test_a_bug_of_ours_ends_with_1_and_its_traceback_in_a_private_log(world: World) -> None:
    world.verbs.error = ZeroDivisionError("division by zero")
    result = world.invoke("status")
    (log,) = logs(world)
    assert result.exit_code == 1
    assert "error[RD1]: a bug in rain-deploy: ZeroDivisionError: division by zero\n" in result.stderr
    assert f"log: {log}\n" in result.stderr
    assert "Traceback" not in result.stderr
    assert "Traceback" in log.read_text(encoding="utf-8")
    assert (log.stat().st_mode & 0o777, world.home.stat().st_mode & 0o777) == (0o600, 0o700)


def test_the_log_is_written_also_when_all_is_well_and_old_ones_go(world: World) -> None:
    for _ in range(3):
        assert world.invoke("list").exit_code == 0
    for n in range(60):
        (world.home / "logs" / f"20200101T0000{n:02}-up-1.log").touch()
    world.invoke("list")
    assert len(logs(world)) == 50


def test_a_log_keeps_no_value_of_env(world: World) -> None:
    world.invoke("run", "--env", "TOKEN=very-secret", "job.py")
    assert all("very-secret" not in log.read_text(encoding="utf-8") for log in logs(world))


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a directory that root cannot write to")
def test_a_home_that_cannot_be_written_is_named(world: World) -> None:
    result = World(Path("/proc/self/home")).invoke("list")
    assert result.exit_code == 12
    assert "error[RD12]: the home directory /proc/self/home cannot be written: " in result.stderr
    assert "next: set RAIN_DEPLOY_HOME to a directory that can be written" in result.stderr


@pytest.mark.parametrize(
    ("outcome", "code"),
    [("failed", 41), ("cancelled", 43), ("timeout", 43), ("engine", 40), ("lost", 40)],
)
@pytest.mark.parametrize("verb", ["run", "attach", "sweep"])
def test_a_run_that_did_not_end_well_shows_its_result_and_its_code(
    world: World, verb: str, outcome: str, code: int
) -> None:
    world.verbs.run_result = replace(world.verbs.run_result, outcome=outcome, exit_code=3)
    words = {
        "run": ("run", "job.py"),
        "attach": ("attach",),
        "sweep": ("sweep", "--provider", "local", "job.py"),
    }
    result = world.invoke(*words[verb])
    assert result.exit_code == code
    assert result.stdout.startswith(f"run r1: {outcome}, ")
    assert f"error[RD{code}]: run r1: " in result.stderr


def test_what_was_not_computed_again_is_counted_at_the_end(world: World) -> None:
    states = {"finished": 20}
    world.verbs.run_result = replace(world.verbs.run_result, points=20, point_states=states, cached_points=15)
    assert "20 points, 15 of them cached" in world.invoke("run", "job.py").stdout


def test_a_sweep_of_which_points_failed_ends_with_42(world: World) -> None:
    states = {"finished": 9, "failed": 2, "not run": 9}
    first = "task 18 (train x=3) failed on node-2: ValueError: bad \x1b[31mrate"
    ended = replace(world.verbs.run_result, outcome="failed", failed_points=2, point_states=states)
    world.verbs.run_result = replace(ended, first_failure=first)
    result = world.invoke("run", "job.py")
    assert result.exit_code == 42
    assert "20 points (9 finished, 2 failed, 9 not run)" in result.stdout
    assert "cached" not in result.stdout
    why = first.replace("\x1b", "\\x1b")
    assert f"run r1: 2 of 20 points failed\n  | {why}\n" in result.stderr


def test_a_script_that_a_task_without_parameters_ended_names_that_task(world: World) -> None:
    first = "task 7 (load) failed on node-1: FileNotFoundError: x.csv"
    ended = replace(world.verbs.run_result, outcome="failed", exit_code=1, first_failure=first)
    world.verbs.run_result = ended
    result = world.invoke("run", "job.py")
    assert (result.exit_code, f"  | {first}\n" in result.stderr) == (41, True)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [(None, 9, 41), (Unreachable("gone"), None, 30), (HostKeyError("new"), None, 31)],
)
def test_exec_ends_with_the_worst_that_happened(
    world: World, error: RainDeployError | None, status: int | None, code: int
) -> None:
    first = ExecLine("node-1", 1)
    world.verbs.exec_lines = (first, ExecLine("node-2", status, error=error))
    assert world.invoke("exec", "--", "false").exit_code == code


def test_check_ends_with_the_code_of_what_up_would_refuse(world: World) -> None:
    world.verbs.findings = (CheckLine("node-1", "refused", "no root", InstallFailed("no root")),)
    assert world.invoke("check").exit_code == 32
    world.verbs.findings = (CheckLine("node-1", "refused", "no root"),)
    assert world.invoke("check").exit_code == 10


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("bogus",), "There is no command 'bogus'."),
        (("swep",), "There is no command 'swep'. Did you mean 'sweep'?"),
        (("up", "--zome", "x"), "up has no option --zome. Did you mean '--zone'?"),
        (("up", "--bogus"), "up has no option --bogus."),
        (("up", "--nodes", "0"), "'--nodes': expected a whole number from 1 to 1000, got '0'"),
        (("up", "--nodes", "-1"), "'--nodes': expected a whole number from 1 to 1000, got '-1'"),
        (
            ("up", "--nodes", "1000000"),
            "'--nodes': expected a whole number from 1 to 1000, got '1000000'",
        ),
        (("up", "--trust-network", "10.0.0.1/8"), "Invalid value for '--trust-network': expected a network"),
        (("up", "--hosts", ","), "expected at least one host, and none twice"),
        (("up", "-c", "Mine"), "Invalid value for '-c' / '--cluster': expected up to 32 lower-case letters"),
        (("run",), "Missing argument 'SCRIPT'."),
        (("run", "--timeout", "soon", "job.py"), "Invalid value for '--timeout': expected a duration"),
        (
            ("exec", "--node", "0", "--", "ls"),
            "Invalid value for '--node': expected a node such as 2 or node-2",
        ),
        (("exec",), "Missing argument '-- CMD...'."),
        (("ssh", "1", "ls"), "ssh takes no argument 'ls'."),
        (("up", "--ttl", "soon"), "Invalid value for '--ttl': expected a duration above zero such as"),
        (("up", "--idle", "none"), "Invalid value for '--idle': expected a duration above zero"),
        (
            ("up", "--max-cost", "0"),
            "'--max-cost': expected an amount of money above zero such as 12.50, got",
        ),
        (("up", "--disk-size", "9"), "'--disk-size': expected a whole number from 10 to 51200, got '9'"),
        (("up", "--allow-ip", "me"), "Invalid value for '--allow-ip': expected a network such as"),
        (("scale", "0"), "expected a whole number from 1 to 1000, got '0'"),
        (
            ("up", "--ttl", "5"),
            "a duration of at least 10 minutes; 5 is in seconds, write 5h for hours",
        ),
        (("up", "--ttl", "5m"), "a duration of at least 10 minutes (write 10m), or \"none\", got '5m'"),
        (("up", "--ttl", "15"), "15 is in seconds, write 15m for minutes or 15h for hours"),
        (
            ("up", "--ttl", "599"),
            "at least 10 minutes; 599 is in seconds, write 599m for minutes or 599h for",
        ),
        (("up", "--ttl", "9m"), "Invalid value for '--ttl': expected a duration of at least 10 minutes"),
        (
            ("up", "--idle", "60"),
            "at least 10 minutes; 60 is in seconds, write 60m for minutes or 60h for hours",
        ),
        (("sweep", "--ttl", "2", "job.py"), "2 is in seconds, write 2h for hours"),
        (("extend", "2"), "a duration of at least 10 minutes; 2 is in seconds, write 2h for hours"),
        (("extend", "later"), 'expected a duration above zero such as 90, "30s", "60m" or "12h", or "none"'),
        (("logs", "--boot", "--install"), "--boot and --install are two logs; name one"),
        (("tunnel", "--json"), "tunnel is interactive and takes no --json"),
    ],
)
def test_a_wrong_command_line_ends_with_2_and_does_nothing(
    world: World, words: tuple[str, ...], said: str
) -> None:
    result = world.invoke(*words)
    assert (result.exit_code, world.verbs.calls) == (2, [])
    shown = result.stderr if "--json" not in words else result.stdout
    assert said in shown
    assert "--help" in shown
    assert not (world.home / "state.sqlite").exists()


def test_what_is_named_wrongly_ends_with_10(world: World, tmp_path: Path) -> None:
    (tmp_path / "rain-deploy.toml").write_text("nodez = 1", encoding="utf-8")
    result = world.invoke("up")
    assert (result.exit_code, world.verbs.calls, world.home.exists()) == (10, [], False)
    assert "rain-deploy.toml: unknown key 'nodez'; did you mean 'nodes'?" in result.stderr
    assert world.invoke("up", "--config", "none.toml").exit_code == 10


@pytest.mark.parametrize("verb", ["run", "attach", "logs"])
def test_ctrl_c_leaves_the_run_and_says_how_to_come_back_and_how_to_end_it(world: World, verb: str) -> None:
    world.verbs.events = (events.RunChanged("r1", "running"),)
    world.verbs.error = KeyboardInterrupt()
    result = world.invoke(verb, "-c", "mine", "job.py" if verb == "run" else "r1")
    assert result.exit_code == 130
    back, end = (f"rain-deploy {verb} r1 -c mine" for verb in ("attach", "cancel"))
    assert result.stderr.splitlines()[-1] == f"run r1 continues; next: {back}, or to cancel: {end}"


def test_a_run_that_was_only_shipped_is_not_said_to_go_on(world: World) -> None:
    world.living()
    world.verbs.events = (events.RunChanged("20261129-195411-7-9763-train", "shipped", "results go to x"),)
    world.verbs.error = KeyboardInterrupt()
    last = world.invoke("run", "job.py").stderr.splitlines()[-1]
    assert last == "interrupted before the node confirmed run 7; it may be queued; next: rain-deploy runs"


def test_a_run_that_goes_on_is_named_by_its_number(world: World) -> None:
    world.living()
    world.verbs.events = (events.RunChanged("20261129-195411-7-9763-train-all", "running"),)
    world.verbs.error = KeyboardInterrupt()
    last = world.invoke("run", "job.py").stderr.splitlines()[-1]
    assert last == "run 7 continues; next: rain-deploy attach 7, or to cancel: rain-deploy cancel 7"
    assert len(last) < 80


ENDINGS = {
    "tunnel": "the tunnel is closed",
    "dashboard": "the tunnel to the dashboard is closed",
    "status": "status was interrupted",
    "list": "list was interrupted",
    "check": "check was interrupted",
    "runs": "runs was interrupted",
    "exec -- true": "exec was interrupted; the command may still be running on the nodes",
}


@pytest.mark.parametrize(("words", "said"), ENDINGS.items())
def test_what_was_only_looked_at_ends_calmly(world: World, words: str, said: str) -> None:
    world.living()
    world.verbs.error = KeyboardInterrupt()
    result = world.invoke(*words.split())
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (130, said)
    assert "error" not in result.stderr
    assert "log" not in result.stderr


def test_a_no_is_one_plain_line(world: World) -> None:
    world.living()
    world.verbs.error = Declined("nothing was created", next_step="rain-deploy up --nodes 3")
    result = world.invoke("up")
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (
        2,
        "nothing was created; next: rain-deploy up --nodes 3",
    )
    assert "error" not in result.stderr
    assert json.loads(world.invoke("up", "--json").stdout)["error"]["code"] == "RD2"


@pytest.mark.parametrize("verb", ["status", "logs", "points", "exec", "extend", "gc"])
def test_what_costs_nothing_is_not_said_to_run_by_a_command_that_started_nothing(
    world: World, verb: str
) -> None:
    world.living()
    words = {"exec": ("exec", "--", "true"), "extend": ("extend", "2h")}.get(verb, (verb,))
    world.verbs.error = Unreachable("no answer")
    assert "still running" not in world.invoke(*words).stderr
    world.living("exoscale")
    assert "still running: cluster default: node-1, node-2 (0.0989 CHF" in world.invoke(*words).stderr


def test_ctrl_c_elsewhere_says_what_is_left(world: World) -> None:
    world.living()
    world.verbs.error = KeyboardInterrupt()
    result = world.invoke("up")
    assert result.exit_code == 130
    assert (
        "error[RD130]: up was interrupted\nstill running: cluster default: node-1, node-2;" in result.stderr
    )


def test_a_lock_of_somebody_else_is_an_error_like_any_other(world: World) -> None:
    world.verbs.error = Locked("cluster default is being changed by pid 1")
    assert world.invoke("down").exit_code == 11
