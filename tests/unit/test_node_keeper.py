"""The keeper: which server its governor serves, with what environment, and what it leaves behind."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from rain_deploy.node.files import load, node_config, write_json
from rain_deploy.node.service.engine import Epoch
from rain_deploy.node.service.keeper import Keeper
from rain_deploy.node.service.process import end, identify, leader, scan
from tests.support.network import WORKER
from tests.support.waiting import wait_for

ADDRESS = f"127.104.{WORKER}.1"
IDLE_PORT, RUN_PORT = 17210, 17230
GOVERNOR = """\
#!/bin/sh
sleep 60 &
wait
"""
"""In Rain's place: a process with a child in its group, as a governor with an executor."""


@dataclass
class Node:
    """One node's directory, and servers that are no more than a listening port."""

    path: Path
    servers: dict[int, socket.socket] = field(default_factory=dict)

    @property
    def service(self) -> str:
        return f"unit-102-{os.getpid()}-{self.path.parent.name}/3"

    def install(self) -> None:
        engine = self.path / "rain"
        engine.parent.mkdir(parents=True)
        engine.write_text(GOVERNOR)
        engine.chmod(0o755)
        config = {
            "cluster_dir": str(self.path),
            "node_dir": str(self.path),
            "name": "node-3",
            "service": self.service,
            "env": sys.prefix,
            "engine": str(engine),
            "code": "/bundle",
            "address": f"127.104.{WORKER}.3",
            "governor_port": 7303,
            "server_address": ADDRESS,
            "idle_port": IDLE_PORT,
            "http_port": 7222,
            "cpus": 5,
            "server": False,
        }
        write_json(self.path / "node.json", config)

    def ship(self, name: str, sequence: int, **more: Any) -> Path:
        path = self.path / "runs" / name
        described = {"run": name, "sequence": sequence, "port": RUN_PORT + sequence, "script": "s.py", **more}
        write_json(path / "env.json", {"SECRET": name, "OMP_NUM_THREADS": "4"})
        write_json(path / "run.json", described)
        return path

    def serve(self, port: int) -> None:
        self.servers[port] = socket.create_server((ADDRESS, port))

    def close(self, port: int) -> None:
        self.servers.pop(port).close()

    def keeper(self) -> Keeper:
        return Keeper(node_config(self.path))

    def governor(self) -> int:
        found = leader(self.service, "governor")
        assert found
        return found.pid

    def environment(self) -> dict[str, str]:
        """Of the governor; empty when there is none, or no longer."""
        found = leader(self.service, "governor")
        try:
            words = Path(f"/proc/{found.pid if found else 0}/environ").read_text().split("\0")
        except OSError:
            return {}
        return dict(word.split("=", 1) for word in words if word)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path / "base" / "clusters" / "node")
    made.install()
    yield made
    for server in made.servers.values():
        server.close()
    end(lambda: scan(made.service), grace_s=0, deadline_s=10)


def steps(keeper: Keeper, until: Callable[[], object]) -> None:
    wait_for(lambda: until() or (keeper.step() and False))


def has_governor(node: Node) -> Callable[[], object]:
    return lambda: leader(node.service, "governor")


def test_without_a_server_there_is_no_governor(node: Node) -> None:
    node.keeper().step()
    assert scan(node.service) == []


def test_an_idle_server_gets_a_governor_with_one_thread_per_task(node: Node) -> None:
    node.serve(IDLE_PORT)
    node.ship("r1", 1)
    steps(node.keeper(), has_governor(node))
    env = node.environment()
    assert "SECRET" not in env
    assert {name: value for name, value in env.items() if name.endswith("_THREADS")} == dict.fromkeys(
        (
            "OMP_NUM_THREADS",
            "OPENBLAS_NUM_THREADS",
            "MKL_NUM_THREADS",
            "TF_NUM_INTRAOP_THREADS",
            "TF_NUM_INTEROP_THREADS",
        ),
        "1",
    )
    argv = Path(f"/proc/{node.governor()}/cmdline").read_text().split("\0")
    assert (
        f"--cpus=5 --listen 127.104.{WORKER}.3:7303 --workdir {node.path}/governor/epochs/1/work"
        in " ".join(argv)
    )
    assert f"{ADDRESS}:{IDLE_PORT}" in argv


def test_a_runs_server_comes_first_and_its_variables_win(node: Node) -> None:
    node.serve(IDLE_PORT)
    node.serve(RUN_PORT + 2)
    node.ship("r1", 1)
    run = node.ship("r2", 2, companion=True)
    steps(node.keeper(), has_governor(node))
    env = node.environment()
    assert (env["SECRET"], env["OMP_NUM_THREADS"], env["MKL_NUM_THREADS"]) == ("r2", "4", "1")
    assert (env["RAIN_DEPLOY_COMPANION"], env["RAIN_DEPLOY_RUN_DIR"]) == ("/bundle/site", str(run))
    assert load(node.path / "governor/epochs/1/epoch.json", Epoch) == Epoch("r2")


def test_a_governor_that_lost_its_server_is_cleared_with_its_children_and_another_made(node: Node) -> None:
    node.serve(IDLE_PORT)
    keeper = node.keeper()
    steps(keeper, lambda: len(scan(node.service, "governor")) == 2)
    first = set(scan(node.service))
    with (node.path / "governor/epochs/1/governor.log").open("a") as log:
        log.write("ERROR x: rain::governor::rpc::control: Lost connection to the server\n")
    steps(keeper, lambda: (found := leader(node.service, "governor")) and found not in first)
    assert not first & set(scan(node.service))
    assert (node.path / "governor/epochs/2").is_dir()


def test_what_a_dead_governor_left_is_ended_also_outside_its_group(node: Node) -> None:
    (node.path / "rain").write_text("#!/bin/sh\nsetsid sleep 60 &\nwait\n")
    node.serve(IDLE_PORT)
    keeper = node.keeper()
    steps(keeper, lambda: len(scan(node.service, "governor")) >= 2)
    first = set(scan(node.service))
    os.kill(node.governor(), signal.SIGKILL)
    node.close(IDLE_PORT)
    steps(keeper, lambda: not scan(node.service))
    assert all(not process.alive() for process in first)


def test_a_new_keeper_adopts_a_living_governor(node: Node) -> None:
    node.serve(IDLE_PORT)
    steps(node.keeper(), has_governor(node))
    governor = node.governor()
    other = node.keeper()
    for _ in range(3):
        other.step()
    assert node.governor() == governor
    assert len(list((node.path / "governor/epochs").iterdir())) == 1


def test_a_new_keeper_clears_what_a_dead_governor_left(node: Node) -> None:
    node.serve(IDLE_PORT)
    steps(node.keeper(), lambda: len(scan(node.service, "governor")) == 2)
    node.close(IDLE_PORT)
    os.kill(node.governor(), signal.SIGKILL)
    wait_for(lambda: leader(node.service, "governor") is None)
    node.keeper()
    assert scan(node.service) == []


def test_variables_go_when_a_served_run_is_over_and_not_before(node: Node) -> None:
    node.serve(IDLE_PORT)
    run = node.ship("r1", 1)
    keeper = node.keeper()
    steps(keeper, has_governor(node))
    assert (run / "env.json").exists()  # the idle server answers, but this run is still to come

    node.serve(RUN_PORT + 1)
    os.kill(node.governor(), signal.SIGKILL)
    steps(keeper, lambda: "SECRET" in node.environment())
    assert (run / "env.json").exists()

    node.close(RUN_PORT + 1)
    os.kill(node.governor(), signal.SIGKILL)
    steps(keeper, lambda: not (run / "env.json").exists())
    steps(keeper, lambda: "SECRET" not in (env := node.environment()) and env)


def test_a_run_is_not_served_without_its_variables(node: Node) -> None:
    """The node was cut off for so long that the run seemed over; its next attempt may go on elsewhere."""
    run = node.ship("r1", 1)
    (run / "env.json").unlink()
    node.serve(RUN_PORT + 1)
    node.serve(IDLE_PORT)
    steps(node.keeper(), has_governor(node))
    assert f":{IDLE_PORT}" in Path(f"/proc/{node.governor()}/cmdline").read_text()


def aged(run: Path) -> None:
    """It came to the node two hours ago."""
    then_s = time.time() - 7200
    os.utime(run / "run.json", (then_s, then_s))


def test_variables_of_a_run_that_never_came_into_line_go_while_no_run_is_served(node: Node) -> None:
    old, fresh, queued = node.ship("old", 1), node.ship("fresh", 2), node.ship("queued", 3)
    write_json(queued / "state.json", {"state": "queued"})
    aged(old)
    aged(queued)
    node.serve(IDLE_PORT)
    steps(node.keeper(), has_governor(node))
    steps(node.keeper(), lambda: not (old / "env.json").exists())
    assert (fresh / "env.json").exists()
    assert (queued / "env.json").exists()


def test_variables_of_another_run_stay_while_one_is_served(node: Node) -> None:
    """It may be the next in line; only the server node can tell."""
    node.ship("r1", 1)
    waits = node.ship("r2", 2, live=["r1"])
    aged(waits)
    node.serve(RUN_PORT + 1)
    steps(node.keeper(), lambda: "SECRET" in node.environment())
    keeper = node.keeper()
    for _ in range(5):
        keeper.step()
    assert (waits / "env.json").exists()


@pytest.mark.parametrize("keeper_too", [False, True])
def test_variables_of_a_served_run_go_when_no_server_answers_any_more(
    node: Node, monkeypatch: pytest.MonkeyPatch, *, keeper_too: bool
) -> None:
    """The server's machine is off or gone; the keeper may have been started anew with this one."""
    served, next_, mine = node.ship("r1", 1), node.ship("r2", 2, live=["r1"]), node.ship("r0", 0)
    write_json(mine / "state.json", {"state": "running"})  # as on the server node
    node.serve(RUN_PORT + 1)
    keeper = node.keeper()
    steps(keeper, lambda: node.environment().get("SECRET") == "r1")
    write_json(node.path / "governor/epochs/7/epoch.json", Epoch("r0"))
    node.close(RUN_PORT + 1)
    os.kill(node.governor(), signal.SIGKILL)
    if keeper_too:
        wait_for(lambda: leader(node.service, "governor") is None)
        keeper = node.keeper()
    monkeypatch.setattr("rain_deploy.node.service.keeper._TIDY_EVERY_S", 0.0)
    for _ in range(5):
        keeper.step()
    assert (served / "env.json").exists(), "its server may answer again in a moment"
    monkeypatch.setattr("rain_deploy.node.service.keeper._RUN_OVER_S", 0.1)
    steps(keeper, lambda: not (served / "env.json").exists())
    assert (next_ / "env.json").exists(), "it is in line until nobody answered for an hour"
    assert (mine / "env.json").exists(), "the supervisor ends it"


def test_variables_of_a_run_that_was_never_served_go_when_no_server_answered_for_an_hour(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, fresh = node.ship("old", 1), node.ship("fresh", 2)
    aged(old)
    monkeypatch.setattr("rain_deploy.node.service.keeper._TIDY_EVERY_S", 0.0)
    keeper = node.keeper()
    for _ in range(5):
        keeper.step()
    assert (old / "env.json").exists()
    monkeypatch.setattr("rain_deploy.node.service.keeper.NEVER_QUEUED_S", 0.1)
    steps(keeper, lambda: not (old / "env.json").exists())
    assert (fresh / "env.json").exists()


def test_the_keeper_removes_what_a_killed_stage_left_and_nothing_of_one_that_works(node: Node) -> None:
    base = node.path.parent.parent
    me = identify(os.getpid())
    assert me
    places = {
        name: base / "tmp" / f"stage.{name}"
        for name in (f"{me.pid}.{me.start_ticks}", f"{me.pid}.{me.start_ticks - 1}", "aB3x9q", "4194304.7")
    }
    for place in places.values():
        place.mkdir(parents=True)
        (place / "env.json").write_text("{}")
    node.keeper().step()
    assert [name for name, place in places.items() if place.exists()] == [f"{me.pid}.{me.start_ticks}"]


def test_a_governor_that_never_gets_ready_is_not_tried_without_pause(node: Node) -> None:
    (node.path / "rain").write_text("#!/bin/sh\nexit 1\n")
    node.serve(IDLE_PORT)
    keeper = node.keeper()
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        time.sleep(keeper.step())
    last = max(int(path.name) for path in (node.path / "governor/epochs").iterdir())
    assert 2 <= last <= 6
