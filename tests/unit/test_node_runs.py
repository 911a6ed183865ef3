"""Runs on disk: the line they wait in, the servers a keeper dials, the epochs that stay."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from rain_deploy.node.files import (
    NotInstalled,
    Tail,
    installed,
    member_name,
    node_config,
    open_log,
    read_json,
    tail,
    write_json,
)
from rain_deploy.node.run import Run, all_runs, join, load_run, state_line, unfinished
from rain_deploy.node.service.engine import clients_registered, fresh_epoch, server_fault
from rain_deploy.node.service.keeper import targets
from rain_deploy.node.service.process import node_argv
from rain_deploy.node.service.report import interrupted
from rain_deploy.node.wire import (
    MODULES_MISSING,
    ClusterConfig,
    Member,
    NeededModule,
    NodeConfig,
    Outcome,
    RunState,
    StateLine,
    read_modules,
    to_json,
)


def ship(runs: Path, name: str, sequence: int, port: int = 7230, **more: Any) -> Run:
    described = {"run": name, "sequence": sequence, "port": port, "script": "s.py", **more}
    write_json(runs / name / "env.json", {})
    write_json(runs / name / "run.json", described)
    run = load_run(runs / name)
    assert run
    return run


def test_a_run_whose_variables_are_deleted_is_not_queued(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would run without them, and nobody would be told."""
    run = ship(tmp_path, "r", 1)
    run.forget_env()
    assert join(run.path, no_wait=False) == 1
    assert "run the script again" in capsys.readouterr().err
    assert run.status().state == RunState.SHIPPED


def config_of(directory: Path) -> NodeConfig:
    return NodeConfig(
        cluster_dir=directory,
        node_dir=directory,
        name="node-1",
        service="c/1",
        env=Path("/e"),
        engine=Path("/e/rain"),
        code=Path("/c"),
        address="10.0.0.1",
        governor_port=7301,
        server_address="10.0.0.1",
        idle_port=7210,
        http_port=7222,
        cpus=2,
        server=True,
    )


def queue(run: Run) -> StateLine:
    answer = join(run.path, no_wait=False)
    assert isinstance(answer, StateLine)
    return answer


def test_a_run_that_imports_what_is_not_installed_is_not_queued(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    modules = [("json", True), ("only_there", True), ("no2", False), ("nomod", True)]
    there, installed_, maybe, sure = (
        NeededModule(name=name, where="s.py, line 1", sure=is_) for name, is_ in modules
    )
    packages = str(tmp_path / "site")
    (tmp_path / "site").mkdir()
    (tmp_path / "site/only_there.py").touch()
    run = ship(tmp_path, "r", 1, imports=to_json([there, installed_, maybe, sure]), packages=packages)
    write_json(run.path / "env.json", {"SECRET": "x"})
    assert join(run.path, no_wait=False) == MODULES_MISSING
    assert read_modules(capsys.readouterr().err) == (sure,)
    assert run.status().state == RunState.SHIPPED
    assert not (run.path / "env.json").exists()
    assert queue(ship(tmp_path, "d", 3, imports=to_json([sure]), packages="/damaged")).warnings == ()
    warned = queue(ship(tmp_path, "w", 2, imports=to_json([there, installed_, maybe]), packages=packages))
    assert warned.warnings == ("s.py, line 1, imports no2, which the nodes do not have",)
    assert run_of(tmp_path, "w").status().warnings == warned.warnings


def run_of(runs: Path, name: str) -> Run:
    run = load_run(runs / name)
    assert run
    return run


def test_runs_wait_in_the_order_of_their_sequence(tmp_path: Path) -> None:
    last, first, late = ship(tmp_path, "b", 3), ship(tmp_path, "c", 1), ship(tmp_path, "a", 2)
    assert (queue(last).ahead, queue(first).ahead, queue(late).ahead) == (0, 0, 1)
    assert [run.id for run in unfinished(tmp_path)] == ["c", "a", "b"]
    assert state_line(last).ahead == 2
    first.finish(Outcome.DONE)
    assert state_line(last).ahead == 1


def test_queueing_twice_changes_nothing(tmp_path: Path) -> None:
    run = ship(tmp_path, "a", 1)
    queue(run)
    run.update(state=RunState.RUNNING)
    assert queue(run).state == RunState.RUNNING


def test_runs_that_a_power_off_broke_off_are_over_and_keep_no_variables(tmp_path: Path) -> None:
    write_json(tmp_path / "node.json", config_of(tmp_path))
    runs = tmp_path / "runs"
    running, ended, waiting, killed, shipped = (ship(runs, name, n) for n, name in enumerate("abcde"))
    for run in (running, ended, waiting, killed):
        queue(run)
        write_json(run.path / "env.json", {"KEY": "secret"})
    running.update(state=RunState.RUNNING)
    ended.update(state=RunState.RUNNING)
    write_json(ended.path / "exit.json", {"exit_code": 0, "ended_s": 5.0})
    write_json(killed.path / "exit.json", {"exit_code": -9})
    assert interrupted(tmp_path) == ["a", "b", "c", "d"]
    outcomes = [run.status().outcome for run in (running, ended, waiting, killed)]
    assert outcomes == ["powered off", "done", "powered off", "powered off"]
    assert (ended.status().ended_s, running.env(Path("/code"))) == (5.0, {})
    assert [run.status().state for run in (running, shipped)] == [RunState.FINISHED, RunState.SHIPPED]
    assert interrupted(tmp_path) == []


def test_a_half_shipped_run_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "run.json").write_text('{"run": "b"')
    assert all_runs(tmp_path) == ()
    assert all_runs(tmp_path / "absent") == ()


def test_a_keeper_dials_the_newest_run_first(tmp_path: Path) -> None:
    ship(tmp_path, "old", 1, 7230)
    ship(tmp_path, "active", 2, 7231)
    ship(tmp_path, "new", 3, 7232, live=["active"])
    assert [run.id for run in targets(all_runs(tmp_path))] == ["new", "active"]


def test_a_keeper_does_not_dial_for_a_run_that_is_known_to_be_over(tmp_path: Path) -> None:
    over = ship(tmp_path, "over", 1, 7230)
    ship(tmp_path, "new", 2, 7231, live=["over"])
    over.finish(Outcome.DONE)
    assert [run.id for run in targets(all_runs(tmp_path))] == ["new"]


def test_a_port_belongs_to_the_newest_run_that_has_it(tmp_path: Path) -> None:
    ship(tmp_path, "old", 1, 7230)
    ship(tmp_path, "new", 71, 7230, live=["old"])
    assert [run.id for run in targets(all_runs(tmp_path))] == ["new"]
    assert targets(()) == ()


def test_variables_of_a_run_are_forgotten_when_asked(tmp_path: Path) -> None:
    run = ship(tmp_path, "a", 1)
    write_json(run.path / "env.json", {"KEY": "secret", "N": 3})
    assert run.env(Path("/code")) == {"KEY": "secret", "N": "3"}
    run.forget_env()
    run.forget_env()
    assert run.env(Path("/code")) == {}


def test_the_last_three_epochs_and_the_new_one_stay(tmp_path: Path) -> None:
    made = [fresh_epoch(tmp_path / "e") for _ in range(12)]
    assert [path.name for path in made] == [str(number) for number in range(1, 13)]
    assert sorted(path.name for path in (tmp_path / "e").iterdir()) == ["10", "11", "12", "9"]


def test_json_is_replaced_whole_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "d" / "state.json"
    write_json(path, {"a": 1})
    write_json(path, {"a": 2})
    assert read_json(path) == {"a": 2}
    assert [entry.name for entry in path.parent.iterdir()] == ["state.json"]
    path.write_text("[1]")
    assert read_json(path) == {}


def test_a_log_over_five_megabytes_starts_anew(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_bytes(b"x" * 4_000_000)
    os.close(open_log(log))
    assert log.stat().st_size == 4_000_000
    log.write_bytes(b"x" * 5_000_001)
    os.close(open_log(log))
    assert log.stat().st_size == 0


def test_the_end_of_a_file_is_read_as_text(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"first\n\xff last")
    assert tail(tmp_path / "log", 6) == "\ufffd last"
    assert tail(tmp_path / "absent") == ""


def test_lines_are_read_only_when_they_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_text('{"n": 1}\nnot json\n[2]\n{"n": ')
    rows = Tail(path)
    assert list(rows.json_lines()) == [{"n": 1}]
    with path.open("a") as file:
        file.write('3}\n{"n": "' + "x" * 200_000 + '"}\n')
    assert [len(str(row["n"])) for row in rows.json_lines()] == [1, 200_000]


NODES = tuple(Member(name=f"node-{n}", address=f"10.0.0.{n}", governor_port=7300 + n) for n in (1, 2))


@pytest.mark.parametrize(
    ("governor", "name"),
    [
        ("10.0.0.2:7302", "node-2"),
        ("127.0.0.1:7301", "node-1"),
        ("10.0.0.9:7309", "10.0.0.9:7309"),
    ],
)
def test_governors_are_called_by_their_nodes_name(governor: str, name: str) -> None:
    assert member_name(NODES, governor) == name


def test_a_node_that_was_not_installed_says_which_file_is_absent(tmp_path: Path) -> None:
    with pytest.raises(NotInstalled, match=r"node\.json.*No such file"):
        node_config(tmp_path)
    (tmp_path / "node.json").write_text(json.dumps({"cluster_dir": "/x"}))
    with pytest.raises(NotInstalled, match="node_dir is absent"):
        node_config(tmp_path)


def test_members_need_a_cluster_file(tmp_path: Path) -> None:
    write_json(tmp_path / "node.json", config_of(tmp_path))
    config = node_config(tmp_path)
    path = config.server_dir / "cluster.json"
    with pytest.raises(NotInstalled, match=r"cluster\.json"):
        installed(path, ClusterConfig)
    nodes = [{"node": 1, "name": "node-1", "address": "10.0.0.1", "governor_port": 7301}]
    write_json(path, {"nodes": nodes})
    assert installed(path, ClusterConfig).nodes == NODES[:1]
    assert node_argv(config, "pack", tmp_path) == ["/e/bin/python", "-I", "-S", "/c", "pack", str(tmp_path)]


SERVER_LOG = """\
 INFO 2026-11-24T08:39:23Z: rain::server::rpc::bootstrap: Connection 127.0.0.1:48344 registered as client
 INFO 2026-11-24T08:39:25Z: rain::server::rpc::bootstrap: Connection 10.0.0.2:1 registered as governor
ERROR 2026-11-24T08:39:26Z: rain::server::rpc::governor: Connection to governor 10.0.0.2:7302 lost

thread 'main' (1) panicked at src/server/state.rs:91:9:
not implemented
"""


def test_a_servers_log_tells_why_it_ended(tmp_path: Path) -> None:
    assert server_fault(tmp_path, NODES) == "it left no word"
    (tmp_path / "server.log").write_text(SERVER_LOG)
    assert server_fault(tmp_path, NODES) == "the connection to node-2 was lost"
    (tmp_path / "server.log").write_text(SERVER_LOG.replace("lost", "found"))
    assert server_fault(tmp_path, NODES) == "panicked at src/server/state.rs:91:9: not implemented"


def test_clients_are_counted_in_the_servers_log(tmp_path: Path) -> None:
    assert clients_registered(tmp_path) == 0
    (tmp_path / "server.log").write_text(SERVER_LOG)
    assert clients_registered(tmp_path) == 1
