"""A run whose machines go while it is followed: the command ends with the truth, and every view agrees."""

from __future__ import annotations

import json
import re
from collections import Counter

import pytest

from tests.lab.conftest import FIRST_UP_S
from tests.lab.lab import Lab
from tests.lab.light import LightMachines
from tests.local.command_line import CommandLine, Running
from tests.support.waiting import wait_for

STEPS = """\
import os, sys, time
from pathlib import Path
from rain.client import Client, remote

@remote()
def step(ctx, x, go):
    node, attempt = os.environ["RAIN_DEPLOY_SERVICE"].rpartition("/")[2], os.stat(f"{go}-starts").st_size
    Path(go).with_name(f"begun-{x}-on-{node}-in-{attempt}").touch()
    while x > 1 and not (Path(go).exists() or Path(f"{go}-{x}").exists()):
        time.sleep(0.1)
    return str(x)

with open(sys.argv[1] + "-starts", "a") as file:
    file.write("x")
with Client("localhost", 7210).new_session("steps") as session:
    for numbers in (range(2), range(2, 6)):
        for x in numbers:
            step(x, sys.argv[1], name="step x=%d" % x).output.keep()
        session.submit()
        if 0 in numbers:
            session.wait_all()
            print("two are done", flush=True)
    session.wait_all()
"""


@pytest.fixture
def line(user: CommandLine) -> CommandLine:
    (user.cwd / "steps.py").write_text(STEPS)
    return user


def up(line: CommandLine, *words: str) -> None:
    line.well("up", "--yes", "--json", *words, timeout_s=FIRST_UP_S)


def followed(line: CommandLine, *words: str) -> tuple[Running, str]:
    """A run of which two points have finished, and its id."""
    running = line.start("run", *words, "steps.py", str(line.cwd / "go"))
    running.wait_for("two are done")
    wait_for(lambda: shown_as_finished(running) == {0, 1}, describe=lambda: running.stderr)
    return running, str(line.well("runs", "--json").result["runs"][-1]["run"])


def shown_as_finished(running: Running) -> set[int]:
    """Return the points that whoever follows the run has seen as finished."""
    return {int(x) for x in re.findall(r"^step x=(\d+)\b.*finished", running.stderr, re.MULTILINE)}


def views(line: CommandLine) -> list[tuple[str, str]]:
    """State and outcome of the last run in ``status`` and ``runs``, and the active run in ``list``."""
    status, runs = line.well("status", "--json").result["run"], line.well("runs", "--json").result["runs"][-1]
    shown = [(run["state"], run["outcome"]) for run in (status, runs)]
    return [*shown, ("active", line.clusters()[0]["active_run"])]


def stop_the_second(light_lab: Lab, light_machines: LightMachines) -> None:
    """Stop the machine of node-2, which has no server."""
    machines = {vm.labels["rain-deploy-node"]: vm.id for vm in light_lab.instances()}
    light_machines.stop(machines["node-2"])


@pytest.mark.slow
def test_a_machine_that_powers_itself_off_ends_the_run_with_what_was_done(
    light_lab: Lab, line: CommandLine, light_machines: LightMachines
) -> None:
    up(line, "--nodes", "2", "--ttl", "1h")
    running, run = followed(line)
    server = next(vm for vm in light_lab.instances() if vm.labels["rain-deploy-node"] == "node-1")
    light_machines.machine(server.id).pass_time(2 * 3600)
    told = running.ended()
    assert told.exit_code == 43, told
    assert "Traceback" not in told.stderr
    assert "node-1 is powered off; 2 of 6 points finished" in told.stderr
    assert f"next: to start the machine: rain-deploy pull {run}" in told.stderr
    assert server.state == "stopped", "nothing is started to show what is known"
    assert views(line) == [("finished", "powered off")] * 2 + [("active", "")]
    light_machines.machine(server.id).pass_time(0)
    line("attach", "--json")
    rows = json.loads((line.cwd / "results" / run / "points.json").read_text())
    assert Counter(row["state"] for row in rows)["finished"] == 2
    line.well("down", "--yes")
    assert light_lab.left() == ()


@pytest.mark.slow
def test_a_run_goes_on_without_a_machine_that_is_lost(
    light_lab: Lab, line: CommandLine, light_machines: LightMachines
) -> None:
    up(line, "--nodes", "2")
    running, run = followed(line)
    stop_the_second(light_lab, light_machines)
    running.wait_for("attempt 2 goes on without node-2")
    (line.cwd / "go").touch()
    told = running.ended()
    assert (told.exit_code, "Traceback" in told.stderr) == (0, False), told
    assert "the script lost its connection to Rain's server" in told.stderr
    assert "node-2 was lost" in told.stderr
    assert "attempt 2 starts; 2 of 6 points are kept\n" in told.stderr
    assert told.stdout.count("two are done") == 1
    rows = json.loads((line.cwd / "results" / run / "points.json").read_text())
    seen = [(row["parameters"]["x"], row["state"], row["cached"]) for row in rows]
    assert seen == [(x, "finished", x < 2) for x in range(6)]
    line.well("down", "--yes")
    assert light_lab.left() == ()


@pytest.mark.slow
def test_a_machine_that_is_lost_is_replaced_while_the_run_goes_on(
    light_lab: Lab, line: CommandLine, light_machines: LightMachines
) -> None:
    up(line, "--nodes", "2", "--cpus-per-node", "1")
    before = {vm.labels["rain-deploy-node"]: vm.id for vm in light_lab.instances()}
    running, run = followed(line, "--replace-lost")
    stop_the_second(light_lab, light_machines)
    running.wait_for("attempt 2 goes on without node-2")
    running.wait_for("replacing node-2 at the same price; the run goes on meanwhile")
    running.wait_for("node-2 is replaced; it gets its first task when a running one ends")
    now = {vm.labels["rain-deploy-node"]: vm.id for vm in light_lab.instances()}
    assert (now["node-1"] == before["node-1"], now["node-2"] != before["node-2"]) == (True, True)
    (cluster,) = line.clusters()
    assert (cluster["nodes"], cluster["active_run"]) == (2, run)
    wait_for(lambda: [*line.cwd.glob("begun-*-on-1-in-2")], describe=lambda: running.stderr)
    first = next(line.cwd.glob("begun-*-on-1-in-2")).name.split("-")[1]
    (line.cwd / f"go-{first}").touch()  # Rain gives a new governor tasks when another task has ended
    wait_for(lambda: [*line.cwd.glob("begun-*-on-2-in-2")], describe=lambda: running.stderr)
    (line.cwd / "go").touch()
    told = running.ended()
    assert (told.exit_code, "Traceback" in told.stderr) == (0, False), told
    rows = json.loads((line.cwd / "results" / run / "points.json").read_text())
    assert [(row["parameters"]["x"], row["state"]) for row in rows] == [(x, "finished") for x in range(6)]
    assert {row["node"] for row in rows if row["attempt"] == 2 and not row["cached"]} == {"node-1", "node-2"}
    line.well("down", "--yes")
    assert light_lab.left() == ()


@pytest.mark.slow
def test_a_command_that_is_killed_while_it_replaces_a_machine_leaves_nothing_unknown(
    light_lab: Lab, line: CommandLine, light_machines: LightMachines
) -> None:
    up(line, "--nodes", "2")
    before = {vm.id for vm in light_lab.instances()}
    running, _ = followed(line, "--replace-lost")
    stop_the_second(light_lab, light_machines)
    wait_for(lambda: {vm.id for vm in light_lab.instances()} - before, describe=lambda: running.stderr)
    running.kill()
    running.ended()
    assert line.clusters()[0]["nodes"] == 2
    line.well("down", "--yes")
    assert light_lab.left() == ()


@pytest.mark.slow
def test_without_the_companion_a_lost_governor_ends_the_run(
    light_lab: Lab, line: CommandLine, light_machines: LightMachines
) -> None:
    up(line, "--nodes", "2")
    running, _ = followed(line, "--no-companion")
    stop_the_second(light_lab, light_machines)
    told = running.ended()
    assert told.exit_code == 40, told
    assert "node-2" in told.stderr.partition("error[RD40]")[2].partition("still running")[0]
    line.well("down", "--yes")


@pytest.mark.slow
def test_a_restarted_server_has_lost_the_run(
    light_lab: Lab, line: CommandLine, light_machines: LightMachines
) -> None:
    up(line, "--nodes", "1")
    running, run = followed(line, "--json")
    (machine,) = light_lab.instances()
    light_machines.stop(machine.id)
    light_machines.start(machine.id)
    told = running.ended()
    assert told.exit_code == 40, told
    assert "node-1 was restarted" in told.error["message"]
    assert views(line) == [("finished", "lost")] * 2 + [("active", "")]
    rows = json.loads((line.cwd / "results" / run / "points.json").read_text())
    states = Counter(row["state"] for row in rows)
    assert states["finished"] == 2
    assert states.keys() <= {"finished", "cancelled", "not run"}, "one more may have been running"
    line.well("up", "--yes", timeout_s=FIRST_UP_S)
    assert views(line) == [("finished", "lost")] * 2 + [("active", "")]
    line.well("down", "--yes")
