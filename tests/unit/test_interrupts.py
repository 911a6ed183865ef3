"""Ctrl-C and its kin: a command ends soon after its last word, whatever its threads wait for."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from rain_deploy.core.cluster import Cluster
from rain_deploy.core.spec import ClusterSpec
from rain_deploy.state.store import Store
from rain_deploy.verbs.up import up
from tests.unit import fake_cloud
from tests.unit.fake_application import World

ROOT = Path(__file__).parents[2]
ENDS_S = 2.0  # the promise: from the last word to the end of the process
ROOM_S = 4.0  # for a busy machine

CHILD = """
import pathlib, signal, sys
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # a nohup around the tests is not for this command
from rain_deploy.cli.main import main
from tests.unit import interrupted_work
from tests.unit.fake_application import World
home, waits = pathlib.Path(sys.argv.pop(1)), sys.argv.pop(1)
world = World(home)
world.wait = lambda: getattr(interrupted_work, waits)(home)
main(world.application())
"""


def child(home: Path, waits: str = "waiting", *words: str) -> subprocess.Popen[str]:
    """A process of its own that holds a tunnel open, and meanwhile does what ``waits`` names."""
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(home), waits, "tunnel", *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("127.0.0.1:")
    return process


def prints(process: subprocess.Popen[str], line: str) -> None:
    """The next line of its output is this one."""
    assert process.stdout is not None
    assert process.stdout.readline() == f"{line}\n"


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_command_in_order_with_its_number(tmp_path: Path, signum: signal.Signals) -> None:
    with child(tmp_path / "home") as process:
        prints(process, "waiting")
        process.send_signal(signum)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 128 + signum
    assert stderr.splitlines()[-1] == "the tunnel is closed"
    assert Store(tmp_path / "home").clusters() == ()


@pytest.mark.parametrize("waits", ["boots", "library", "login", "cloud", "resolves", "retries", "searches"])
def test_no_thread_keeps_an_interrupted_command(tmp_path: Path, waits: str) -> None:
    with child(tmp_path / "home", waits) as process:
        prints(process, "waiting")
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        words = list(process.stderr)  # until the process closes it
        began_s = time.monotonic()
        process.wait(timeout=60)
    assert any("the tunnel is closed" in line for line in words), words
    assert process.returncode == 130
    assert time.monotonic() - began_s < ENDS_S + ROOM_S


def test_what_has_begun_is_waited_for_where_it_must_be_recorded(tmp_path: Path) -> None:
    with child(tmp_path / "home", "creates") as process:
        prints(process, "waiting")
        process.send_signal(signal.SIGINT)
        prints(process, "recorded")
        process.communicate(timeout=60)
    assert process.returncode == 130


@pytest.mark.parametrize(
    ("waits", "said"),
    [
        ("keeps", "still recorded: cluster default: node-1, node-2;"),
        ("forgets", "cluster default is not recorded"),
        ("forgets_a_part", "still recorded: cluster default: node-1;"),
    ],
)
def test_a_second_ctrl_c_leaves_at_once_and_says_what_is_true_now(
    tmp_path: Path, waits: str, said: str
) -> None:
    World(tmp_path / "home").living()
    with child(tmp_path / "home", waits) as process:
        prints(process, "waiting")
        process.send_signal(signal.SIGINT)
        prints(process, "ending in order")
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"interrupted again: stopping now; {said}" in stderr
    assert ("remove it with: rain-deploy down" in stderr) == ("still" in said)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
def test_what_sends_a_signal_twice_does_not_disturb_the_ending(
    tmp_path: Path, signum: signal.Signals
) -> None:
    with child(tmp_path / "home", "ends_slowly") as process:
        prints(process, "waiting")
        process.send_signal(signum)
        prints(process, "ending in order")
        process.send_signal(signum)
        prints(process, "ended in order")
        process.communicate(timeout=60)
    assert process.returncode == 128 + signum


class InterruptedStore(Store):
    """The user stops the command at the moment when the cluster is recorded."""

    def __init__(self, home: Path, *, before: bool) -> None:
        super().__init__(home)
        self.before = before

    def save_cluster(self, cluster: Cluster) -> None:
        if self.before:
            raise KeyboardInterrupt
        super().save_cluster(cluster)
        raise KeyboardInterrupt


@pytest.mark.parametrize("before", [True, False], ids=["before the record", "right after it"])
@pytest.mark.parametrize("keep_partial", [False, True], ids=["undone", "kept"])
def test_an_up_that_is_stopped_at_its_first_record_leaves_nothing_unless_asked_to(
    tmp_path: Path, before: bool, keep_partial: bool
) -> None:
    world = fake_cloud.World.at(tmp_path)
    store = InterruptedStore(tmp_path / "home", before=before)
    spec = ClusterSpec("one", fake_cloud.PROVIDER, "test", owner=fake_cloud.ME, keep_partial=keep_partial)
    with pytest.raises(KeyboardInterrupt):
        up(replace(world.ctx, store=store), spec)
    recorded = [cluster.name for cluster in world.store.clusters()]
    assert (recorded, world.names()) == (["one"] if keep_partial and not before else [], [])
    assert ("to continue" in world.told) == (keep_partial and not before)
