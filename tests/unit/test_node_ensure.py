"""``ensure`` starts a service once, also when somebody else starts it at the same moment."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from rain_deploy.node.files import node_config, write_json
from rain_deploy.node.service.process import Service, ensure, identify, runs_alone
from rain_deploy.node.wire import NodeConfig
from tests.support.waiting import wait_for


@pytest.fixture
def node_dir(tmp_path: Path) -> Path:
    """A node whose services end at once."""
    python = tmp_path / "env/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\nexit 0\n")
    python.chmod(0o755)
    config = NodeConfig(
        node_dir=tmp_path / "node",
        cluster_dir=tmp_path,
        name="node-1",
        service=f"ensure-{os.getpid()}/1",
        env=tmp_path / "env",
        engine=tmp_path / "rain",
        code=tmp_path / "code",
        address="127.0.0.1",
        governor_port=7301,
        server_address="127.0.0.1",
        idle_port=7210,
        http_port=7222,
        cpus=1,
        server=False,
    )
    write_json(config.node_dir / "node.json", config)
    return config.node_dir


def test_a_service_that_does_not_start_is_an_error_that_names_its_log(node_dir: Path) -> None:
    with pytest.raises(TimeoutError, match=r"the keeper of node-1 does not start; see .*keeper\.log"):
        ensure(node_dir, supervisor=None)


def test_a_service_that_another_one_started_meanwhile_is_started(node_dir: Path) -> None:
    def other() -> None:
        time.sleep(0.5)
        write_json(node_dir / "governor/keeper.pid", identify(os.getpid()))

    starting = threading.Thread(target=other)
    starting.start()
    assert ensure(node_dir, supervisor=None) == 0
    starting.join()


@pytest.mark.parametrize("becomes", [True, False], ids=["a child at its start", "older code"])
def test_a_child_of_a_service_is_not_taken_for_a_service_of_older_code(*, becomes: bool) -> None:
    argv = [sys.executable, "-c", "input()"]
    with (
        subprocess.Popen(argv, stdin=subprocess.PIPE) as service,
        subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child,
    ):
        wait_for(lambda: Path(f"/proc/{service.pid}/cmdline").read_text().split("\0")[:-1] == argv)
        both = [found for pid in (service.pid, child.pid) if (found := identify(pid))]
        looks = iter((both, both[:1] if becomes else both))
        assert runs_alone(lambda: next(looks), argv) is becomes
        assert runs_alone(lambda: both[:1], argv)
        assert not runs_alone(list, argv)
        older = iter((both[1:], []))
        assert not runs_alone(lambda: next(older), argv), "older code that ends meanwhile leaves nothing"
        service.kill()
        child.kill()


def test_a_recorded_identity_is_believed_only_while_it_lives(node_dir: Path) -> None:
    keeper, myself = Service(node_config(node_dir), "keeper"), identify(os.getpid())
    assert myself
    assert keeper.process() is None
    write_json(node_dir / "governor/keeper.pid", myself)
    assert keeper.process() == myself
    write_json(node_dir / "governor/keeper.pid", replace(myself, start_ticks=myself.start_ticks - 5))
    assert keeper.process() is None


def test_a_service_works_on_while_the_other_one_cannot_be_started(node_dir: Path) -> None:
    config = replace(node_config(node_dir), server=True)
    write_json(node_dir / "node.json", config)
    (config.server_dir / "supervisor.log").mkdir(parents=True)  # so the supervisor cannot be started

    def step() -> float:
        (node_dir / "node.json").unlink()
        return 0

    looked = Service(config, "keeper")
    with pytest.raises(IsADirectoryError):
        looked.look_after()
    repeating = threading.Thread(target=Service(config, "keeper").repeat, args=(step, node_dir / "node.json"))
    repeating.daemon = True
    repeating.start()
    repeating.join(timeout=20)
    assert not repeating.is_alive()
