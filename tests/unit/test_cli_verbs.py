"""What each command asks of its verb, and what it shows of the answer."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.shell_completion import ShellComplete

from rain_deploy.cli.main import VERBS, root
from rain_deploy.cli.show import text
from rain_deploy.core import events
from rain_deploy.core.run import RunRecord
from rain_deploy.errors import ApiError, UsageError
from rain_deploy.node.wire import LeftKind, LeftOut, LeftOuts, Parameter
from rain_deploy.options.table import Group
from rain_deploy.state.store import Store
from rain_deploy.verbs.down import DownResult
from rain_deploy.verbs.logs import NodeLog
from tests.unit.fake_application import DOWN, OUT, POINT, RUN, UP, World

HEAD = "NODE    ROLE      STATE  CPUS  LOAD  DISK FREE  ADDRESS"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A directory to type commands in, with a script, and no configuration."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.py").write_text("print(1)\n", encoding="utf-8")
    return World(tmp_path / "home")


def test_up_says_which_provider_and_why_then_what_it_changed(world: World) -> None:
    result = world.invoke("up", "--provider", "local", "--nodes", "2", "--with", "scipy", "--upgrade")
    assert result.exit_code == 0
    assert result.stderr == "provider local: named on the command line or in the environment\n"
    assert result.stdout.splitlines() == [
        "cluster default is up: 2 nodes (local), 12 s",
        "changed, with 4 processes started:",
        "  node-2 installed",
        HEAD,
        "node-1  server    ready     2  0.50    12.3 GB  127.1.0.1",
        "node-2  governor  ready     2                   127.1.0.2",
        "next: rain-deploy run SCRIPT",
    ]
    (spec,) = world.last()
    assert (spec.name, spec.nodes, spec.environment.packages) == ("default", 2, ("scipy",))
    assert spec.environment.upgrade


def test_up_tells_each_change_once_with_its_nodes(world: World) -> None:
    changed = tuple(f"node-{n}: started governor" for n in range(1, 8))
    world.verbs.up_result = replace(UP, changed=changed, started=7)
    assert world.invoke("up", "--provider", "local").stdout.splitlines()[1:3] == [
        "changed, with 7 processes started:",
        "  started governor: node-1, node-2, node-3, node-4, node-5 and 2 more",
    ]
    world.verbs.up_result = replace(UP, changed=(), started=0)
    assert "\nnothing had to be changed on the nodes\n" in world.invoke("up", "--provider", "local").stdout


def test_the_hour_of_then_off_takes_the_place_of_the_limit(world: World) -> None:
    now_s = time.time()
    world.verbs.run_result = replace(RUN, limit_s=now_s + 40_000, off_s=now_s + 590)
    shown = world.invoke("run", "job.py").stdout.splitlines()
    assert shown[-1].startswith("cluster default: all machines are off by ")
    assert shown[-1].endswith(" (in 9 min), because of --then-off")
    assert not any("time limit" in line for line in shown)


def test_a_run_that_brought_nothing_says_what_there_is(world: World) -> None:
    world.verbs.run_result = replace(RUN, figures=0, points=0, files=0)
    shown = world.invoke("run", "job.py").stdout.splitlines()
    assert shown[-1] == "  only what it printed: stdout.log, stderr.log"


EVIL = "\x1b]52;c;ZXZpbA==\x07\x9b2J\x1b[2J\r"


@pytest.mark.parametrize(
    "said",
    [
        {"warnings": (EVIL,)},
        {"outcome": f"powered off{EVIL}", "message": EVIL},
        {"point_states": {"finished": 1, EVIL: 1}},
        {"first_failure": EVIL, "failed_points": 1},
        {"state": EVIL, "outcome": ""},
        {"outcome": EVIL, "pulled": False},
    ],
    ids="-".join,
)
def test_nothing_that_a_node_says_of_a_run_steers_the_terminal(world: World, said: dict[str, Any]) -> None:
    world.verbs.run_result = replace(RUN, **said)
    shown = world.invoke("run", "job.py")
    assert "\\x1b]52" in shown.stdout + shown.stderr
    assert not set("\x1b\x07\x9b\r") & set(shown.stdout + shown.stderr)


@pytest.mark.parametrize("outcome", ["done", "failed"])
def test_a_run_names_what_was_not_pulled_however_it_ended(world: World, outcome: str) -> None:
    large = [LeftOut(path=f"files/{n}", kind=LeftKind.MUCH, why="it has 30 GB") for n in range(12)]
    left = LeftOuts(left=tuple(large), more=3)
    world.verbs.run_result = replace(RUN, outcome=outcome, exit_code=1, left=left, on_node="/b/r1")
    result = world.invoke("run", "job.py")
    shown = [line for line in result.stdout.splitlines() if line.startswith("  not pulled: ")]
    assert shown[0] == "  not pulled: files/0: it has 30 GB"
    assert shown[10:] == ["  not pulled: and 5 more: see manifest.json"]
    assert result.exit_code == (51 if outcome == "done" else 41)
    if outcome == "done":
        assert "15 results were not pulled, all others are here" in result.stderr
        assert "rain-deploy fetch -c default /b/r1/files/0 ." in result.stderr


@pytest.mark.parametrize(
    "values", [{"acc": 0.5, "loss": float("nan")}, {"value_0": 0.5, "value_1": float("nan")}]
)
def test_points_have_a_column_for_each_value_of_a_dict_or_tuple(
    world: World, values: dict[str, Parameter | None]
) -> None:
    world.verbs.rows = (replace(POINT, value=None, values=values),)
    head, line = world.invoke("points").stdout.splitlines()
    names = [name.strip() for name in head.split("  ") if name.strip()]
    assert [name for name in values if name in names] == list(values)
    assert "VALUE" not in names
    assert line.split()[3:5] == ["0.5", "NaN"]
    csv = world.invoke("points", "--csv").stdout.splitlines()
    assert ",0.5,NaN," in csv[1]
    assert json.loads(world.invoke("points", "--json").stdout)["result"]["rows"][0]["values"] == {
        name: 0.5 if value == 0.5 else "NaN" for name, value in values.items()
    }


@pytest.mark.parametrize("state", ["failed", "cancelled", "not run"])
def test_points_without_a_result_say_why(world: World, state: str) -> None:
    world.verbs.rows = (replace(POINT, state=state, message="ValueError: lr=0.5 diverges"),)
    head, line = world.invoke("points").stdout.splitlines()
    assert (head.endswith("  REASON"), line.endswith("  ValueError: lr=0.5 diverges")) == (True, True)


@pytest.mark.parametrize("interactive", [True, False])
def test_up_assumes_a_provider_only_where_somebody_can_object(world: World, *, interactive: bool) -> None:
    world.interactive = interactive
    result = world.invoke("up")
    assert result.exit_code == (0 if interactive else 2)
    assert result.stderr.startswith(
        "provider local: no provider" if interactive else "error[RD2]: no provider"
    )
    assert world.invoke("up", "--yes").exit_code == 2


def test_up_again_needs_no_provider(world: World) -> None:
    world.living("local")
    assert world.invoke("up").stderr == "provider local: as when this cluster was created\n"


@pytest.mark.parametrize("words", [("up", "--hosts", "me@a"), ("sweep", "--hosts", "me@a", "job.py")])
def test_dry_run_prints_a_line_per_step_as_check_does(world: World, words: tuple[str, ...]) -> None:
    result = world.invoke(words[0], "--dry-run", *words[1:])
    assert (result.exit_code, result.stderr.partition(":")[0]) == (0, "provider hosts")
    assert result.stdout.splitlines() == [
        "cluster default, provider hosts; nothing was done",
        "facts: assumed",
        "WHAT         STATE   FOUND",
        "node-1 me@a  change  installs it",
        "node-1 me@a  change  starts it",
        "to see the scripts, add -v",
    ]


def test_dry_run_prints_the_scripts_with_verbose(world: World) -> None:
    assert world.invoke("up", "--dry-run", "-v", "--hosts", "me@a").stdout.split("\n\n") == [
        "cluster default, provider hosts; nothing was done\nfacts: assumed",
        "# node-1 me@a",
        "## node-1: install\necho install",
        "## node-1: start\necho start\n",
    ]


def test_flag_before_environment_before_file(world: World, tmp_path: Path) -> None:
    (tmp_path / "rain-deploy.toml").write_text(
        'provider = "local"\nnodes = 2\nssh_port = 2022', encoding="utf-8"
    )
    world.invoke("up")
    assert (world.last()[0].nodes, world.last()[0].machines.ssh_port) == (2, 2022)
    world.environ = {"RAIN_DEPLOY_NODES": "3", "RAIN_DEPLOY_SSH_PORT": "2023", "RAIN_DEPLOY_CLUSTER": "mine"}
    world.invoke("up")
    assert (world.last()[0].nodes, world.last()[0].machines.ssh_port, world.last()[0].name) == (
        3,
        2023,
        "mine",
    )
    world.invoke("up", "--nodes", "4", "-c", "other")
    assert (world.last()[0].nodes, world.last()[0].name) == (4, "other")


def test_run_gives_the_script_everything_that_follows_it(world: World, tmp_path: Path) -> None:
    world.environ = {"TOKEN": "abc"}
    words = (
        "--env",
        "SEED=1=2",
        "--env",
        "TOKEN",
        "--files",
        "data",
        "--timeout",
        "30m",
        "--no-wait",
        "job.py",
    )
    result = world.invoke("run", *words, "--help", "--json", "--", "-c", "x y")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "run r1: done, 1 min 01 s",
        "results: /somewhere/results/r1",
        "  1 figure, 20 points, 2 files written by the script",
    ]
    name, spec, _ = world.last()
    assert (name, spec.script) == ("default", tmp_path / "job.py")
    assert spec.args == ("--help", "--json", "--", "-c", "x y")
    assert (spec.env, spec.files) == ((("SEED", "1=2"), ("TOKEN", "abc")), (tmp_path / "data",))
    assert (spec.timeout_s, spec.wait, spec.companion, spec.detach) == (1800, False, True, False)


def test_run_shows_the_script_s_own_output_unchanged(world: World) -> None:
    world.verbs.events = (
        events.RunChanged("r1", "running"),
        events.ScriptOutput("stdout", b"loss \xff\x1b[1m\n"),
        events.ScriptOutput("stderr", b"warned\n"),
    )
    result = world.invoke("run", "job.py")
    assert result.stdout_bytes.startswith(b"loss \xff\x1b[1m\nrun r1: done")
    assert result.stderr == "run r1: running\nwarned\n"
    quiet = world.invoke("run", "-q", "job.py")
    assert (quiet.stdout_bytes, quiet.stderr) == (b"loss \xff\x1b[1m\n", "warned\n")


def test_run_detached_says_how_to_come_back(world: World) -> None:
    result = world.invoke("run", "-d", "-c", "mine", "job.py")
    assert "next: rain-deploy attach r1\n" in result.stdout
    assert world.last()[1].detach


@pytest.mark.parametrize("verb", ["run", "sweep"])
@pytest.mark.parametrize(
    ("name", "source", "said"),
    [
        ("none.py", None, "cannot be read: No such file"),
        (".", None, "cannot be read: Is a directory"),
        ("bad.py", b"x = 1\nif x\n", "is not Python 3.11: line 2: expected ':'"),
        ("new.py", b"type X = int\n", "is not Python 3.11: line 1"),
        ("nul.py", b"\0", "is not Python"),
    ],
)
def test_a_script_that_cannot_run_is_refused_before_anything(
    world: World, tmp_path: Path, *, verb: str, name: str, source: bytes | None, said: str
) -> None:
    if source is not None:
        (tmp_path / name).write_bytes(source)
    result = world.invoke(verb, name)
    assert (result.exit_code, result.stdout, world.verbs.calls) == (10, "", [])
    assert said in result.stderr
    assert not world.home.exists()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("NOT_SET_HERE", "NOT_SET_HERE=VALUE, because there is no variable NOT_SET_HERE here"),
        ("1A=2", "NAME=VALUE or NAME, and '1A' is not a variable's name"),
        ("=3", "NAME=VALUE or NAME, and '' is not a variable's name"),
    ],
)
def test_a_variable_that_cannot_be_is_a_usage_error(world: World, given: str, expected: str) -> None:
    result = world.invoke("run", "--env", given, "job.py")
    assert (result.exit_code, world.verbs.calls) == (2, [])
    assert f"Invalid value for '--env': expected {expected}" in result.stderr


def test_sweep_takes_the_flags_of_up_and_run(world: World) -> None:
    result = world.invoke(
        "sweep", "--provider", "local", "--nodes", "2", "--timeout", "9", "job.py", "--nodes"
    )
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0] == "run r1: done, 1 min 01 s"
    assert result.stdout.splitlines()[-1] == "cluster default is down, 1.5 s"
    spec, wanted = world.last()
    assert (spec.nodes, wanted.timeout_s, wanted.args) == (2, 9, ("--nodes",))


def test_down_prints_its_certificate(world: World, tmp_path: Path) -> None:
    result = world.invoke("down", "--discard-results", "--out", "there", "-c", "mine")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "pulled: r1",
        "deleted: node-1",
        "deleted: node-2",
        "verified: nothing is left",
        "  node-1: no process",
        "  node-2: no file",
        "cluster default is down, 1.5 s",
    ]
    assert world.last() == ("mine", True, tmp_path / "there", None, ())
    world.invoke("down", "--forget", "node-2", "--forget", "all")
    assert world.last() == ("default", False, None, None, ("node-2", "all"))


def test_down_calls_nothing_verified_that_was_forgotten(world: World) -> None:
    left = "node-2 at 10.0.0.2: files under /var/lib"
    world.verbs.down_result = replace(DOWN, forgotten=(left,))
    told = world.invoke("down", "--forget", "node-2").stdout.splitlines()
    assert f"forgotten, NOT verified: {left}" in told
    assert "verified: nothing else is left" in told
    world.verbs.down_result = replace(DOWN, forgotten=(left,), certificate=(), deleted=())
    assert "  verified" not in world.invoke("down", "--forget", "all").stdout


def test_down_of_a_name_that_is_not_there_names_those_that_are(world: World) -> None:
    for clusters, shown in {
        ("default", "mine"): "(recorded: default, mine); did you mean default?",
        ("mine",): "(recorded: mine)",
        (): "(recorded: none)",
    }.items():
        world.verbs.down_result = DownResult("defualt", nothing=True, clusters=clusters)
        result = world.invoke("down", "-c", "defualt")
        assert result.exit_code == 0
        first = result.stdout.splitlines()[0]
        assert first.startswith(f"cluster defualt is not recorded on this machine {shown}")


def test_status_and_list_and_runs_are_tables(world: World) -> None:
    assert world.invoke("status").stdout.splitlines() == [
        "cluster default: local, 2 nodes, 2 governors registered with Rain",
        HEAD,
        "node-1  server    ready     2  0.50    12.3 GB  127.1.0.1",
        "node-2  governor  ready     2                   127.1.0.2",
        "run r1: done, hsearch.py",
    ]
    assert world.invoke("list").stdout.splitlines()[0] == ("CLUSTER  PROVIDER  NODES  CREATED           RUN")
    head, line = world.invoke("runs").stdout.splitlines()
    assert head == "NO  RUN  STATE  STARTED                 TOOK  RESULTS  SCRIPT"
    assert line.split()[:3] == ["1", "r1", "done"]
    assert line.endswith("1 min 15 s  pulled   hsearch.py --fast")


def test_status_check_ends_with_3_when_something_is_not_as_recorded(world: World) -> None:
    world.verbs.drift = ("node-2: governor does not run",)
    assert world.invoke("status").exit_code == 0
    result = world.invoke("status", "--check")
    assert result.exit_code == 3
    assert "not as recorded: node-2: governor does not run\n" in result.stdout
    assert "next: rain-deploy up -c default\n" in result.stderr


def test_status_of_a_cluster_that_is_being_changed_names_the_command_and_no_differences(world: World) -> None:
    world.verbs.drift, world.verbs.changing = ("node-2 is unreachable",), "`up` (process 7 on here, for 4 s)"
    shown = world.invoke("status").stdout
    assert "`up` (process 7 on here, for 4 s) is at work on it: this is how far it is\n" in shown
    assert "not as recorded" not in shown


def test_logs_come_as_they_were_written(world: World) -> None:
    result = world.invoke("logs", "r1")
    assert (result.stdout_bytes, result.stderr) == (b"loss \xff\n", "warned\n")
    assert world.last() == ("default", "r1", False)
    world.invoke("logs", "--node", "node-2", "--install")
    assert world.last() == ("default", 2, NodeLog.INSTALL)
    world.invoke("logs", "--node", "2", "--boot")
    assert world.last() == ("default", 2, NodeLog.BOOT)
    world.invoke("logs", "--node", "2")
    assert world.last() == ("default", 2, NodeLog.SERVICES)
    assert world.invoke("logs", "-f", "--node", "2").exit_code == 2


def test_points_are_a_table_with_a_column_per_parameter(world: World) -> None:
    assert world.invoke("points").stdout.splitlines() == [
        "NO   lr  units    VALUE  STATE     NODE     TOOK",
        " 1  0.1     32  0.93125  finished  node-2  4.2 s",
    ]
    assert len(world.invoke("points", "--all").stdout.splitlines()) == 3
    world.verbs.rows = (replace(POINT, cached=True),)
    assert world.invoke("points").stdout.splitlines()[1].split()[4] == "cached"
    assert world.invoke("points", "--csv").stdout.splitlines()[0].startswith("task,name,lr,units,value")
    assert world.invoke("points", "--csv", "--json").exit_code == 2


def test_points_that_are_followed_are_a_line_each(world: World) -> None:
    world.verbs.events = (events.PointSeen(POINT), events.PointSeen(replace(POINT, point=False)))
    result = world.invoke("points", "--follow")
    assert result.stdout == "lr=0.1 units=32: 0.93125 (finished on node-2)\n"


def test_points_that_are_followed_are_shown_when_they_end_and_once_in_all_attempts(world: World) -> None:
    changes: tuple[dict[str, Any], ...] = (
        {"state": "running", "value": None},
        {"value": None},
        {},
        {},
        {"state": "submitted", "value": None, "attempt": 2},
        {"attempt": 2, "cached": True},
        {"task": 5, "cached": True},
        {"task": 6, "value": float("nan")},
        {"task": 6, "value": float("nan")},
    )
    world.verbs.events = tuple(events.PointSeen(replace(POINT, **one)) for one in changes)
    assert world.invoke("points", "--follow").stdout.splitlines() == [
        "lr=0.1 units=32 (finished on node-2)",
        "lr=0.1 units=32: 0.93125 (finished on node-2)",
        "lr=0.1 units=32: 0.93125 (cached)",
        "lr=0.1 units=32: NaN (finished on node-2)",
    ]


def test_pull_attach_cancel_take_a_run_or_the_last(world: World, tmp_path: Path) -> None:
    assert (
        world.invoke("pull", "--all").stdout
        == "/somewhere/results/r1: 1 figure, 20 points, 2 files, 4.1 kB\n"
    )
    assert world.last() == ("default", None, True, None)
    assert world.invoke("pull", "r1", "--all").exit_code == 2
    assert world.invoke("report", "r1").stdout == "report: /somewhere/results/r1/report.html\n"
    assert world.last() == ("default", "r1")
    world.invoke("attach", "r1", "--out", "there")
    assert world.last() == ("default", "r1", tmp_path / "there")
    assert world.invoke("cancel").stdout == "run r1: cancelled\n"


def test_exec_shows_each_node_s_output_behind_its_name(world: World) -> None:
    result = world.invoke("exec", "--", "ls", "-l", "--json", "--")
    assert result.stdout == "node-1 | one\nnode-2 | two\n"
    assert result.stderr == "node-2 | oh\n"
    assert world.last() == ("default", None, ("ls", "-l", "--json", "--"))


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ((), ("default", None, ())),
        (("2",), ("default", 2, ())),
        (("node-2", "--", "ls", "-c", "a b"), ("default", 2, ("ls", "-c", "a b"))),
        (("--", "--help"), ("default", None, ("--help",))),
        (("-c", "mine", "1", "--", "x", "--", "y"), ("mine", 1, ("x", "--", "y"))),
    ],
)
def test_ssh_calls_the_system_s_own_and_ends_as_it_does(
    world: World, words: Sequence[str], asked: tuple[object, ...]
) -> None:
    result = world.invoke("ssh", *words)
    assert (result.exit_code, result.output, world.last()) == (7, "", asked)
    assert world.called == [("ssh", f"node-{asked[1] or 1}", *asked[2])]  # type: ignore[misc]


def test_push_and_fetch_say_what_went_where(world: World, tmp_path: Path) -> None:
    result = world.invoke("push", "data", "/tmp/data")
    assert result.stdout == f"{tmp_path}/data -> /tmp/data (node-1, node-2)\n3 files, 4.1 kB, 0.1 s\n"
    world.invoke("fetch", "--node", "2", "/tmp/data", "here")
    assert world.last() == ("default", "/tmp/data", tmp_path / "here", 2)


def test_dashboard_opens_the_browser_and_closes_its_tunnel(world: World) -> None:
    result = world.invoke("dashboard")
    assert (result.exit_code, result.stdout) == (0, "http://127.0.0.1:4001/\n")
    assert world.browsed == ["http://127.0.0.1:4001/"]
    assert [verb for verb, _ in world.verbs.calls] == ["dashboard", "closed"]
    world.invoke("dashboard", "--no-browser")
    assert len(world.browsed) == 1


def test_tunnel_prints_where_it_listens(world: World) -> None:
    assert world.invoke("tunnel", "--port", "7210").stdout == "127.0.0.1:7210\n"


def test_check_needs_nobody_to_object(world: World) -> None:
    result = world.invoke("check")
    assert (result.exit_code, result.stdout.splitlines()[1]) == (0, "node-1  change  builds the engine")


def test_without_a_verb_there_is_help(world: World) -> None:
    alone = world.invoke()
    assert (alone.exit_code, alone.stderr, "Commands:" in alone.stdout) == (0, "", True)
    assert world.invoke("help").stdout == alone.stdout
    assert world.invoke("help", "up").stdout == world.invoke("up", "--help").stdout
    assert world.invoke("--json", "help", "up").stdout == world.invoke("up", "--help").stdout


@pytest.mark.parametrize(
    "words",
    [
        ("-c", "mine", "--json", "run", "job.py", "-c", "x"),
        ("--json", "--cluster=mine", "run", "job.py", "-c", "x"),
        ("-c", "mine", "run", "--json", "job.py", "-c", "x"),
    ],
)
def test_the_common_options_may_stand_before_the_verb(world: World, words: tuple[str, ...]) -> None:
    result = world.invoke(*words)
    name, spec, _ = world.last()
    assert (name, spec.args, json.loads(result.stdout)["verb"]) == ("mine", ("-c", "x"), "run")


def test_a_path_is_shown_also_where_the_directory_has_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here := tmp_path / "here").mkdir()
    monkeypatch.chdir(here)
    assert (text.near(here / "r1"), text.near(OUT)) == ("r1", str(OUT))
    here.rmdir()
    assert text.near(here / "r1") == str(here / "r1")


def test_help_has_options_in_groups_and_says_once_what_they_share(world: World) -> None:
    shown = world.invoke("sweep", "--help").stdout
    heads = [line.removesuffix(":") for line in shown.splitlines() if line.endswith(":") and line[0] != " "]
    assert heads == [*(group.value for group in Group), "Examples"]
    assert shown.count("RAIN_DEPLOY_") == 1
    assert "--with PKG" in shown
    for said in ("May be repeated.", "A DURATION is", "An AMOUNT is in the currency", "[default: 12h]"):
        assert said in shown


def completed(world: World, line: str) -> list[str]:
    """What a shell offers for the last word of ``line``."""
    words = line.split(" ")
    params = ShellComplete(root, {"obj": world.application()}, "rain-deploy", "X")
    return [item.value for item in params.get_completions(words[:-1], words[-1])]


def test_completion_names_clusters_runs_zones_and_types(world: World) -> None:
    world.living("exoscale")
    assert completed(world, "status -c ") == ["default"]
    for number, script in enumerate(("train.py", "models/search.py", "train.py"), start=1):
        Store(world.home).save_run(
            RunRecord(f"2026-{number}", "ab12", "default", number, 1, script, (), "0", 1.0, Path("/out"))
        )
    assert completed(world, "logs ") == ["train", "search", "2026-1", "2026-2", "2026-3"]
    assert completed(world, "points 2026-3") == ["2026-3"]
    assert completed(world, "cancel tr") == ["train"]
    assert completed(world, "logs -c another ") == []
    assert world.verbs.calls == [], "no machine was asked"
    assert completed(world, "up --zone ch-g") == ["ch-gva-2"]
    assert completed(world, "types --zone ") == ["ch-dk-2", "ch-gva-2"]
    assert completed(world, "up --zone x --instance-type gpu") == ["gpu3.small"]
    assert completed(world, "up --provider ") == ["exoscale", "hosts", "local"]
    assert completed(world, "up --ttl ") == []
    world.verbs.error = ApiError("no answer")
    assert completed(world, "up --zone ") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_names_the_command(world: World, shell: str) -> None:
    result = world.invoke("completion", shell)
    assert (result.exit_code, "_RAIN_DEPLOY_COMPLETE" in result.stdout) == (0, True)
    assert not world.home.exists()


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_and_the_common_flags(world: World, verb: str) -> None:
    result = world.invoke(verb, "--help")
    assert (result.exit_code, result.stderr) == (0, "")
    for flag in ("--cluster", "--json", "--quiet", "--verbose", "--yes", "--config"):
        assert flag in result.stdout


def test_a_question_is_answered_by_yes_by_the_user_or_not_at_all(world: World) -> None:
    world.verbs.question = "Cancel r1?"
    refused = world.invoke("down")
    assert (refused.exit_code, world.verbs.answer) == (2, None)
    assert "error[RD2]: cannot ask without a terminal: Cancel r1?" in refused.stderr
    assert "next: rain-deploy down --yes\n" in refused.stderr
    assert (world.invoke("down", "-y").exit_code, world.verbs.answer) == (0, True)
    world.interactive = True
    asked = world.invoke("down", answer="n\n")
    assert (asked.exit_code, world.verbs.answer) == (0, False)
    assert asked.stderr == "Cancel r1? [y/N]: n\n"


TYPED = {
    ("up", "--provider", "local", "--nodes", "4", "-c", "mine"): "up --provider local --nodes 4 -c mine",
    ("-c", "ab", "run", "job.py", "two words"): "run -c ab job.py 'two words'",
    ("sweep", "--provider", "local", "job.py", "--env"): "sweep --provider local job.py --env",
    ("run", "--env", "A=secret", "--env=B=secret", "--env", "C", "job.py"): (
        "run --env 'A=…' '--env=B=…' --env C job.py"
    ),
    ("gc", "--delete", "-c", "mine"): "gc --delete -c mine",
}


@pytest.mark.parametrize("words", TYPED)
def test_the_step_after_a_no_repeats_what_was_typed_but_no_secret(
    world: World, words: tuple[str, ...]
) -> None:
    world.environ["C"] = "secret"
    verb, rest = TYPED[words].split(" ", 1)
    world.verbs.question = "Continue?"
    told = world.invoke(*words)
    assert f"next: rain-deploy {verb} --yes {rest}\n" in told.stderr
    world.interactive = True
    for step in (None, f"rain-deploy {verb} -c mine"):
        world.verbs.error = UsageError("nothing was created", next_step=step)
        told = world.invoke(*words, answer="n\n")
        assert f"next: rain-deploy {verb} {rest}\n" in told.stderr
        assert "secret" not in told.stderr
    world.verbs.error = UsageError("it was left as it is", next_step="rain-deploy attach")
    assert "next: rain-deploy attach\n" in world.invoke(*words, answer="n\n").stderr


def test_clean_shows_what_it_kept_and_why(world: World) -> None:
    told = world.invoke("clean", "--all")
    assert world.last() == (True,)
    assert told.stdout.splitlines() == [
        "WHAT     SIZE  ACTION  WHY                   WHERE",
        "uv    40.0 MB  kept    the next up needs it  /home/me/cache/uv/cd34",
        "removed 2.6 GB, kept 40.0 MB",
    ]


def test_explain_shows_the_whole_error_last(world: World) -> None:
    assert world.invoke("explain", "lr=0.1", "r1").stdout.splitlines() == [
        "point 3 of run r1: lr=0.1 units=32",
        "  state:     failed on node-2, 4.2 s",
        "  why:       ValueError: no",
        "  why:       it was executed: the result that is kept from run r0 has another function",
        "  arguments: lr=0.1, seed=7",
        "  key:       abababababababab",
        "  attempt:   1: lost on node-1, 4.2 s",
        "  attempt:   1: failed on node-2, 4.2 s",
        "",
        "Traceback (most recent call last):",
        '  File "h.py", line 7, in train',
        "ValueError: no",
    ]
    assert world.last() == ("default", "lr=0.1", "r1")
    assert world.invoke("explain").exit_code == 2


def test_journal_shows_where_results_are_kept_and_how_many(world: World) -> None:
    told = world.invoke("journal", "--prune")
    assert world.last() == ("default", True)
    rows = told.stdout.splitlines()
    assert rows[0].split() == ["WHERE", "CLUSTER", "RESULTS", "SIZE", "NEWEST", "NOTE", "ACTION"]
    assert rows[1].split()[:5] == ["node-1", "default", "20", "4.1", "kB"]
    assert "1 file damaged" in rows[2]
    assert "ACTION" not in world.invoke("journal").stdout
