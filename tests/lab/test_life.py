"""The life of a cluster on an account: it grows, shrinks, is extended, powers itself off, is woken, goes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.lab.conftest import FIRST_UP_S
from tests.lab.lab import Lab
from tests.lab.light import MACHINE, LightMachines
from tests.local.command_line import CommandLine
from tests.local.scripts import SQUARES, WAITS
from tests.support.waiting import wait_for

HOUR_S = 3600


@pytest.fixture
def line(user: CommandLine) -> CommandLine:
    """Where two scripts lie."""
    (user.cwd / "squares.py").write_text(SQUARES)
    (user.cwd / "waits.py").write_text(WAITS)
    return user


def up(line: CommandLine, *words: str) -> dict[str, Any]:
    return line.well("up", "--yes", "--json", *words, timeout_s=FIRST_UP_S).result


def on_its_machine(light_machines: LightMachines, light_lab: Lab) -> set[str]:
    directories = (light_machines.machine(vm.id).path(MACHINE) for vm in light_lab.instances())
    return {(directory / "limit").read_text().strip() for directory in directories}


def labels(light_lab: Lab) -> set[str]:
    return {vm.labels["rain-deploy-expires"] for vm in light_lab.instances()}


def states(light_lab: Lab) -> list[str]:
    return sorted(vm.state for vm in light_lab.instances())


def await_states(light_lab: Lab, *expected: str) -> None:
    wait_for(lambda: states(light_lab) == list(expected), describe=lambda: str(states(light_lab)))


@pytest.mark.slow
def test_a_cluster_grows_shrinks_and_computes_at_every_size(light_lab: Lab, line: CommandLine) -> None:
    up(line, "--nodes", "2")
    before = {vm.id for vm in light_lab.instances()}
    grown = line.well("scale", "3", "--yes", "--json", timeout_s=FIRST_UP_S).result
    assert (grown["before"], grown["after"], grown["added"]) == (2, 3, ["node-3"])
    assert before < {vm.id for vm in light_lab.instances()}
    assert line.well("run", "squares.py").stdout.split()[:20] == [str(x * x) for x in range(20)]
    line.well("status", "--check")
    running = line.start("run", "waits.py", str(line.cwd / "go"))
    running.wait_for("begun")
    refused = line("scale", "1", "--yes", "--json")
    assert refused.exit_code == 10
    assert "rain-deploy cancel" in refused.error["next"]
    (line.cwd / "go").touch()
    assert running.ended().exit_code == 0
    shrunk = line.well("scale", "1", "--yes", "--json").result
    assert shrunk["removed"] == ["node-2", "node-3"]
    assert states(light_lab) == ["running"]
    line.well("status", "--check")
    assert line.well("run", "squares.py").stdout.split()[:20] == [str(x * x) for x in range(20)]
    line.well("down", "--yes")
    assert light_lab.left() == ()


@pytest.mark.slow
def test_what_may_be_spent_lasts_as_long_as_the_machines_are_many(
    light_lab: Lab, line: CommandLine, light_machines: LightMachines
) -> None:
    up(line, "--nodes", "1", "--max-cost", "0.1")
    alone = int(next(iter(labels(light_lab)))[1:])
    line.well("scale", "2", "--yes", timeout_s=FIRST_UP_S)
    (together,) = labels(light_lab)
    now_s = alone - 0.1 / 0.04946 * HOUR_S
    assert int(together[1:]) - now_s == pytest.approx((alone - now_s) / 2, rel=0.1)
    assert on_its_machine(light_machines, light_lab) == {together[1:]}
    line.well("extend", "9h")
    assert {label[1:] for label in labels(light_lab)} == on_its_machine(light_machines, light_lab)
    assert int(next(iter(labels(light_lab)))[1:]) == pytest.approx(int(together[1:]), abs=120)
    line.well("down", "--yes")


@pytest.mark.slow
def test_a_cluster_that_its_limit_stopped_gives_its_results_and_goes(
    light_lab: Lab, line: CommandLine, light_machines: LightMachines
) -> None:
    up(line, "--nodes", "2", "--ttl", "1h")
    first = int(next(iter(labels(light_lab)))[1:])
    line.well("extend", "2h")
    assert labels(light_lab) == {f"t{first + 2 * HOUR_S}"}
    assert on_its_machine(light_machines, light_lab) == {str(first + 2 * HOUR_S)}
    detached = line.well("run", "--detach", "--json", "waits.py", str(line.cwd / "never"))
    run = detached.result["run"]
    wait_for(lambda: "begun" in line.well("logs", run).stdout)
    for vm in light_lab.instances():
        light_machines.machine(vm.id).pass_time(5 * HOUR_S)
    await_states(light_lab, "stopped", "stopped")
    for vm in light_lab.instances():
        light_machines.machine(vm.id).pass_time(0)
    told = line.well("status", "--json").result
    assert [node["state"] for node in told["nodes"]] == ["stopped", "stopped"]
    assert line("status", "--check").exit_code == 3
    assert line.clusters()[0]["state"] == "2 stopped"
    attached = line("attach", "--json", run)
    assert attached.exit_code == 43, attached
    assert attached.result["outcome"] == "powered off"
    assert states(light_lab) == ["running", "stopped"], "only the server's machine is started"
    assert (line.cwd / "results" / run / "files" / "early.txt").read_text() == "early"
    line.well("down", "--yes")
    assert light_lab.left() == ()


@pytest.mark.slow
def test_without_a_state_file_a_cluster_that_lives_goes_only_by_its_name(
    light_lab: Lab, line: CommandLine
) -> None:
    up(line, "--nodes", "1")
    colleague = light_lab.seed_instance(
        name="colleague", labels={**light_lab.instances()[0].labels, "rain-deploy-owner": "o-x"}
    )
    light_lab.seed_key("rain-deploy_o-x_default_0123456789")
    (line.home / "state.sqlite").unlink()
    kept = line.well("gc", "--delete", "--json").result["lines"]
    assert {(each["state"], each["action"]) for each in kept} == {("living", "kept"), ("foreign", "kept")}
    gone = line.well("gc", "--delete", "-c", "default", "--yes", "--json").result["lines"]
    assert {(each["state"], each["action"]) for each in gone} == {("left", "deleted"), ("foreign", "kept")}
    assert light_lab.left(seeded=False) == ()
    assert [vm.id for vm in light_lab.instances()] == [colleague.id]
    assert json.dumps([request.operation for request in light_lab.log]).count("delete-") > 0


@pytest.mark.slow
def test_up_makes_a_cluster_that_its_limit_stopped_compute_again(
    light_lab: Lab, line: CommandLine, light_machines: LightMachines
) -> None:
    up(line, "--nodes", "2", "--ttl", "1h")
    for vm in light_lab.instances():
        light_machines.machine(vm.id).pass_time(5 * HOUR_S)
    await_states(light_lab, "stopped", "stopped")
    for vm in light_lab.instances():
        light_machines.machine(vm.id).pass_time(0)
    line.well("extend", "3h")
    up(line)
    assert {label[1:] for label in labels(light_lab)} == on_its_machine(light_machines, light_lab), (
        "nothing ends it sooner"
    )
    assert line.well("run", "squares.py").stdout.split()[:20] == [str(x * x) for x in range(20)]
    line.well("status", "--check")
    line.well("down", "--yes")
    assert light_lab.left() == ()


@pytest.mark.slow
def test_after_a_run_with_then_off_the_machines_go_off_and_down_starts_none(
    light_lab: Lab, line: CommandLine, light_machines: LightMachines
) -> None:
    up(line, "--nodes", "2")
    told = line.well("run", "--then-off", "squares.py")
    assert "all machines are off by " in told.stdout
    assert "(in 9 min), because of --then-off" in told.stdout
    for vm in light_lab.instances():
        light_machines.machine(vm.id).pass_time(1000)
    await_states(light_lab, "running", "stopped")
    governor = light_machines.machine(next(vm.id for vm in light_lab.instances() if vm.state == "running"))
    wait_for((governor.path(MACHINE) / "silent").exists)
    governor.pass_time(1400)
    await_states(light_lab, "stopped", "stopped")
    assert line.well("points", "--json").result["rows"]
    line.well("down", "--yes")
    assert light_lab.left() == ()
    assert len(light_lab.log.of("start-instance")) == 0
