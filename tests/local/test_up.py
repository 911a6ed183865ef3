"""``up``: leaves alone what is as it should be, mends what is not, undoes what it could not finish."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.local.command_line import LocalCluster, living_in
from tests.local.conftest import MakeCluster, MakeHome
from tests.local.scripts import WAITS
from tests.support.processes import kill
from tests.support.waiting import wait_for

SERVICES = ("ssh", "keeper", "supervisor", "server", "governor")


@dataclass(frozen=True)
class Growth:
    """A cluster of two nodes that has grown to three."""

    cluster: LocalCluster
    before: dict[int, str]
    """Its processes when it had two."""
    changed: list[str]
    after: dict[int, str]


@pytest.fixture(scope="module")
def growth(make_cluster: MakeCluster) -> Growth:
    cluster = make_cluster(2)
    before = cluster.processes()
    changed = cluster.well("up", "--nodes", "3", "--json").result["changed"]
    return Growth(cluster, before, changed, cluster.processes())


@pytest.fixture
def cluster(growth: Growth) -> LocalCluster:
    """Three nodes that the tests of this module damage and mend."""
    return growth.cluster


def roles(cluster: LocalCluster, node: int) -> dict[str, int]:
    """How many processes of each role a node has."""
    return {role: len(cluster.processes(node, role)) for role in SERVICES}


@pytest.mark.smoke
def test_the_second_up_changes_nothing_starts_nothing_and_says_so(shared: LocalCluster) -> None:
    before, living = shared.at_rest(), living_in(shared.line.home)
    told = shared.well("up", "--provider", "local", "--nodes", "2", "--json")
    assert (told.result["changed"], told.result["started"]) == ([], 0)
    assert shared.processes() == before
    wait_for(lambda: living_in(shared.line.home).keys() <= living.keys())
    assert "nothing had to be changed on the nodes" in shared.well("up").stdout


def test_a_node_has_its_services_and_no_more(shared: LocalCluster) -> None:
    shared.at_rest()
    assert roles(shared, 1) == dict.fromkeys(SERVICES, 1)
    assert roles(shared, 2) == {"ssh": 1, "keeper": 1, "supervisor": 0, "server": 0, "governor": 1}
    assert shared.governors() == 2


def test_fewer_nodes_than_live_are_refused_with_the_verb_that_shrinks(shared: LocalCluster) -> None:
    before = shared.at_rest()
    told = shared("up", "--nodes", "1", "--json")
    assert told.exit_code == 10
    assert "scale" in told.error["next"]
    assert shared.processes() == before


@pytest.mark.smoke
def test_growing_adds_a_governor_and_touches_no_other(growth: Growth) -> None:
    assert growth.changed == ["node-3: started governor"]
    assert growth.before.items() <= growth.after.items()
    assert growth.after.keys() - growth.before.keys() == growth.cluster.processes(3).keys()
    assert roles(growth.cluster, 3) == roles(growth.cluster, 2)
    assert growth.cluster.governors() == 3


@pytest.mark.parametrize(("node", "role"), [(2, "governor"), (1, "server")])
def test_a_governor_or_a_server_that_was_killed_comes_again_by_itself(
    cluster: LocalCluster, node: int, role: str
) -> None:
    old = cluster.processes(node, role)
    kill(*old)
    wait_for(lambda: len(cluster.processes(node, role)) == 1)
    assert cluster.processes(node, role).keys() != old.keys()
    cluster.await_governors(3)


@pytest.mark.parametrize("role", ["keeper", "supervisor"])
def test_keeper_and_supervisor_restart_each_other(cluster: LocalCluster, role: str) -> None:
    cluster.at_rest()
    others = {r: cluster.processes(1, r) for r in SERVICES if r != role}
    kill(*cluster.processes(1, role))
    wait_for(lambda: len(cluster.processes(1, role)) == 1)
    assert {r: cluster.processes(1, r) for r in SERVICES if r != role} == others


@pytest.mark.parametrize(
    ("killed", "started"),
    [
        ([(2, "ssh")], []),
        ([(2, "keeper")], ["node-2: started governor"]),
        ([(2, "keeper"), (2, "governor"), (2, "ssh")], ["node-2: started governor"]),
        ([(1, "keeper"), (1, "supervisor")], ["node-1: started governor", "node-1: started runner"]),
    ],
    ids=str,
)
def test_up_mends_what_was_killed(
    cluster: LocalCluster, killed: list[tuple[int, str]], started: list[str]
) -> None:
    cluster.at_rest()
    whole = {node: roles(cluster, node) for node in (1, 2, 3)}
    dead = {pid for node, role in killed for pid in cluster.processes(node, role)}
    # Rain's server dies of a lost governor, and the other governors end with it.
    kept = ("ssh", "keeper", "supervisor") if (2, "governor") in killed else SERVICES
    others = {pid: start for pid, start in cluster.processes(None, *kept).items() if pid not in dead}
    kill(*dead)
    assert cluster.well("up", "--json").result["changed"] == started
    assert others.items() <= cluster.processes().items()
    assert {node: roles(cluster, node) for node in (1, 2, 3)} == whole
    cluster.await_governors(3)


@pytest.mark.parametrize("moment", ["local nodes share", "node-2: start: node.json", "governors registered"])
def test_an_up_that_was_killed_converges_the_next_time_and_down_leaves_nothing(
    make_home: MakeHome, moment: str
) -> None:
    line = make_home()
    cluster = LocalCluster(line, "killed")
    killed = cluster.start("up", "--provider", "local", "--nodes", "2")
    killed.wait_for(moment)
    killed.kill()
    cluster.well("up", "--provider", "local", "--nodes", "2")
    assert [roles(cluster, 1), cluster.governors()] == [dict.fromkeys(SERVICES, 1), 2]
    cluster.well("down")
    assert (line.clusters(), living_in(line.home)) == ([], {})


def test_a_new_node_joins_after_the_run_that_is_active(make_cluster: MakeCluster, tmp_path: Path) -> None:
    made = make_cluster(1)
    cluster = LocalCluster(made.line.at(tmp_path), made.name)
    (tmp_path / "waits.py").write_text(WAITS)
    run = cluster.start("run", "waits.py", str(tmp_path / "go"))
    run.wait_for("begun\n")
    before = cluster.processes()
    told = cluster.well("up", "--nodes", "2")
    assert "is active: nothing is restarted" in told.stderr
    assert before.items() <= cluster.processes().items()
    (tmp_path / "go").touch()
    assert run.ended().exit_code == 0
    cluster.await_governors(2)
    cluster.well("down")


def test_down_alone_removes_what_a_killed_up_has_made(make_home: MakeHome) -> None:
    line = make_home()
    killed = line.start("up", "--provider", "local", "--nodes", "2")
    killed.wait_for("node-1: start: node.json")
    killed.kill()
    assert living_in(line.home) != {}
    line.well("down")
    assert (line.clusters(), living_in(line.home)) == ([], {})


def test_ctrl_c_in_up_undoes_what_it_made(make_home: MakeHome) -> None:
    line = make_home()
    up = line.start("up", "--provider", "local", "--nodes", "2")
    up.wait_for("node-1: start: node.json")
    up.interrupt()
    assert up.ended().exit_code == 130
    assert (line.clusters(), living_in(line.home)) == ([], {})
    assert "is not recorded on this machine" in line.well("down").stdout


@pytest.mark.parametrize("delay_s", [0.1, 0.5, 1.5])
def test_a_sigterm_in_the_first_seconds_of_up_ends_it_and_leaves_nothing(
    make_home: MakeHome, delay_s: float
) -> None:
    line = make_home()
    up = line.start("up", "--provider", "local", "--nodes", "2")
    time.sleep(delay_s)
    os.kill(up.process.pid, signal.SIGTERM)
    assert up.ended().exit_code in {128 + signal.SIGTERM, -signal.SIGTERM}  # the second: it had not begun
    assert (line.clusters(), living_in(line.home)) == ([], {})


def test_ctrl_c_in_a_second_up_leaves_the_cluster_as_it_was(cluster: LocalCluster) -> None:
    before = cluster.at_rest()
    kill(*cluster.processes(3, "keeper"))
    up = cluster.start("up", "-v")
    up.wait_for("node-3: start: node.json")
    up.interrupt()
    assert up.ended().exit_code == 130
    kept = {pid: start for pid, start in before.items() if pid in cluster.processes()}
    assert len(kept) == len(before) - 1
    cluster.well("up")
    assert [roles(cluster, 3), cluster.governors()] == [roles(cluster, 2), 3]


def test_check_and_the_dry_run_name_the_same_nodes(make_home: MakeHome) -> None:
    line, two = make_home(), ("--provider", "local", "--nodes", "2", "--json")
    found = line.well("check", *two).result["findings"]
    checked = {each["subject"].split()[0] for each in found if each["state"] == "change"}
    hosts = line.well("up", *two, "--dry-run").result["hosts"]
    assert checked == {host["host"] for host in hosts if host["steps"]} == {"node-1", "node-2"}
