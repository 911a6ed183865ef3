"""run, follow and cancel against a server node that is no more than its answers."""

from __future__ import annotations

import contextlib
import json
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.hosts import assign, survivors
from rain_deploy.core.cluster import Cluster, Node
from rain_deploy.core.events import Event, RunChanged
from rain_deploy.core.layout import RUN_PORTS
from rain_deploy.core.machine import Host
from rain_deploy.core.run import RunRecord, RunState
from rain_deploy.core.spec import ClusterSpec, RunSpec
from rain_deploy.core.step import Command, CommandResult
from rain_deploy.errors import (
    EngineError,
    HostKeyError,
    InputError,
    Locked,
    PullFailed,
    StateError,
    Unreachable,
    UsageError,
)
from rain_deploy.fleet.fanout import SshExecutor
from rain_deploy.parts.facts import DEBIAN_12
from rain_deploy.parts.machine import THEN_OFF_S
from rain_deploy.providers.hosts.provider import HostsProvider
from rain_deploy.runs.finish import RunResult, all_off_s
from rain_deploy.runs.follow import follow
from rain_deploy.runs.outage import RECONNECT_S
from rain_deploy.runs.states import CANCEL_S, await_end
from rain_deploy.state.store import Store
from rain_deploy.transport.base import Chunk, Forward
from rain_deploy.verbs.run import run
from rain_deploy.verbs.runs import CancelResult, attach, cancel
from tests.support.values import billed

HOSTS = tuple(Host(f"node-{i}", f"10.0.0.{i}", 22, "me", ("ssh-ed25519 AAAA",)) for i in (1, 2))
NODES = tuple(Node(host.name, host, DEBIAN_12, host.address, 7300 + host.index, 1) for host in HOSTS)
CLUSTER = Cluster("abcd1234", "one", "hosts", 1.0, NODES, base="/b", up=True)
OTHER = replace(CLUSTER, id="ffff0000", name="two")
RUN = RunRecord("r1", CLUSTER.id, "one", 1, 7231, "s.py", (), "00", 2.5, Path("/out"))


@dataclass
class ServerNode:
    """Implements the transport; every host answers alike."""

    states: dict[str, str] = field(default_factory=dict)
    follows: list[tuple[list[dict[str, Any]], int | None]] = field(default_factory=list)
    """Lines and exit status of each follow in turn; None: the connection is lost."""
    ship: int | None = 0
    queue: int | None = 0
    outcome: str = "done"
    """Of every run that has finished."""
    complaint: bytes = b"said why"
    described: list[dict[str, Any]] = field(default_factory=list)
    cleared: list[tuple[str, str]] = field(default_factory=list)
    """Node, and directory of the run whose variables were deleted there."""

    def connect(self, host: Host) -> None: ...

    def run(
        self,
        host: Host,
        command: Command,
        *,
        on_stdout: Chunk | None = None,
        on_stderr: Chunk | None = None,
    ) -> CommandResult:
        del on_stderr
        if command.stdin is not None:
            return self._result(host, self.ship)
        if 'rm -f -- "$R/env.json"' in command.argv[-1]:
            place = next(line for line in command.argv[-1].splitlines() if line.startswith("R="))
            self.cleared.append((host.name, place.rpartition("/")[2]))
            return CommandResult(0, b"", b"")
        words = command.argv if command.argv[0] != "sh" else tuple(shlex.split(command.argv[2]))
        if "follow" in words:
            lines, status = self.follows.pop(0)
            assert on_stdout
            on_stdout(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
            return self._result(host, status)
        if "runs" in words:
            ends = {"finished": self.outcome}
            rows = [{"run": run, "state": s, "outcome": ends.get(s, "")} for run, s in self.states.items()]
            return CommandResult(0, json.dumps(rows).encode(), b"")
        if "cancel" in words:
            self.states = dict.fromkeys(self.states, "finished")
        return self._result(host, self.queue)

    def _result(self, host: Host, status: int | None) -> CommandResult:
        if status is None:
            raise Unreachable("lost", node=host.name)
        return CommandResult(status, b"", self.complaint)

    def forward(self, host: Host, address: str, port: int, *, local_port: int = 0) -> Forward:
        raise NotImplementedError

    def close(self) -> None: ...


@dataclass
class World:
    node: ServerNode
    ctx: Context
    seen: list[Event]

    @property
    def store(self) -> Store:
        return self.ctx.store


@pytest.fixture
def world(tmp_path: Path) -> World:
    return world_at(tmp_path)


def world_at(tmp_path: Path) -> World:
    (tmp_path / "s.py").write_text("print(1)\n")
    node, seen = ServerNode(), list[Event]()
    store = Store(tmp_path / "home")
    for cluster in (CLUSTER, OTHER):
        store.save_cluster(cluster)
    ctx = Context(
        tmp_path / "home",
        store,
        node,
        node,
        lambda _: HostsProvider(user_home=tmp_path),
        seen.append,
        lambda _: True,
        tmp_path,
        SshExecutor(node),
    )
    return World(node, ctx, seen)


def detached(world: World, cluster: str = "one") -> RunRecord:
    result = run(world.ctx, cluster, RunSpec(Path("s.py"), detach=True))
    return next(record for record in world.store.runs() if record.id == result.run)


def test_nobody_replaces_nodes_of_a_run_that_is_not_followed(world: World) -> None:
    with pytest.raises(UsageError, match=r"^--replace-lost: with --detach nobody is there"):
        run(world.ctx, "one", RunSpec(Path("s.py"), detach=True, replace_lost=True))
    assert world.store.runs() == ()


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s

    def pause(self, seconds: float) -> None:
        self.now_s += seconds


def test_runs_of_two_clusters_in_the_same_second_are_two_runs(world: World) -> None:
    first, second = detached(world, "one"), detached(world, "two")
    assert first.id != second.id
    assert "abcd" in first.id
    assert "ffff" in second.id
    assert len(world.store.runs()) == 2


def test_the_port_of_a_run_that_is_not_over_goes_to_no_other(world: World) -> None:
    old = detached(world)
    world.node.states[old.id] = "running"
    for _ in range(len(RUN_PORTS) - 1):
        detached(world, "two")
    new = detached(world)
    assert (new.sequence - old.sequence) % len(RUN_PORTS) == 0
    assert new.port != old.port


def test_a_line_that_is_full_takes_no_more(world: World) -> None:
    for _ in RUN_PORTS:
        world.node.states[detached(world).id] = "queued"
    with pytest.raises(Locked, match="no more can be queued"):
        detached(world)
    assert len(world.store.runs()) == len(RUN_PORTS)


def test_a_run_that_did_not_reach_all_nodes_leaves_no_record(world: World) -> None:
    world.node.ship = None
    with pytest.raises(Unreachable):
        detached(world)
    assert world.store.runs() == ()


@pytest.mark.parametrize("detach", [True, False])
def test_a_run_that_does_not_want_to_wait_leaves_no_record(world: World, *, detach: bool) -> None:
    world.node.queue = 11
    world.node.follows = [([], 11)]
    with pytest.raises(Locked):
        run(world.ctx, "one", RunSpec(Path("s.py"), detach=detach, wait=False))
    assert world.store.runs() == ()


def ships_in_vain(world: World) -> None:
    world.node.ship = None
    detached(world)


def is_refused(world: World) -> None:
    world.node.queue = 11
    detached(world)


def is_refused_while_it_follows(world: World) -> None:
    world.node.follows = [([], 11)]
    run(world.ctx, "one", RunSpec(Path("s.py"), wait=False))


def is_cancelled_in_line(world: World) -> None:
    record = detached(world)
    world.node.states[record.id] = "queued"
    cancel(world.ctx, "one")


@pytest.mark.parametrize(
    "ends", [ships_in_vain, is_refused, is_refused_while_it_follows, is_cancelled_in_line]
)
def test_the_variables_of_a_run_that_never_runs_are_deleted_on_every_node(
    world: World, ends: Callable[[World], None]
) -> None:
    """No governor ever has them, so none deletes them."""
    with contextlib.suppress(Locked, Unreachable):
        ends(world)
    assert sorted(node for node, _ in world.node.cleared) == ["node-1", "node-2"]
    assert len({run for _, run in world.node.cleared}) == 1


@pytest.mark.root
@pytest.mark.parametrize("verb", [cancel, attach])
def test_a_full_disk_here_keeps_nobody_from_a_run(
    small_disk: Path, verb: Callable[[Context, str], CancelResult | RunResult]
) -> None:
    """Its results may go to another disk."""
    world = world_at(small_disk)
    record = detached(world)
    world.node.states[record.id] = "running"
    ended = {"t": "state", "state": "finished", "outcome": "done"}
    world.node.follows = [([ended, {"t": "end"}], 0)]
    with contextlib.suppress(OSError):
        (small_disk / "ballast").write_bytes(bytes(2 << 20))
    with contextlib.suppress(PullFailed):  # this fake has no results
        verb(world.ctx, "one")
    assert "finished" in {*world.node.states.values(), *(run.state for run in world.store.runs("one"))}
    assert world.store.unrecorded
    with pytest.raises(StateError):
        detached(world)


def test_a_run_that_may_be_in_line_stays_recorded(world: World) -> None:
    world.node.queue = None
    with pytest.raises(Unreachable) as caught:
        detached(world)
    assert caught.value.next_step == "rain-deploy runs -c one"
    assert [record.state for record in world.store.runs()] == [RunState.SHIPPED]


def test_the_cluster_is_free_for_others_once_the_run_is_in_line(world: World) -> None:
    taken: list[str] = []

    def emit(event: Event) -> None:
        if "running" in str(event):
            with world.store.lock("one", "cancel"):
                taken.append("lock")

    world.node.follows = [([{"t": "state", "state": "running"}], 1)]
    with pytest.raises(EngineError):
        run(replace(world.ctx, emit=emit), "one", RunSpec(Path("s.py")))
    assert taken == ["lock"]


def test_a_run_is_recorded_as_in_line_once_it_is_and_not_before(world: World) -> None:
    seen: list[tuple[str, str]] = []

    def emit(event: Event) -> None:
        if isinstance(event, RunChanged):
            seen.append((event.state, world.store.runs()[-1].state))
        if len(seen) == 2:
            raise KeyboardInterrupt

    world.node.follows = [([{"t": "state", "state": "running"}], 1)]
    with pytest.raises(KeyboardInterrupt):
        run(replace(world.ctx, emit=emit), "one", RunSpec(Path("s.py")))
    assert seen == [("shipped", "shipped"), ("running", "queued")]


def test_an_answer_of_another_shape_is_refused_and_says_what_to_do(world: World) -> None:
    world.node.follows = [([{"t": "state", "state": "asleep"}], 0)]
    with pytest.raises(EngineError, match=r"answer of node-1 cannot be read: StateLine\.state") as caught:
        run(world.ctx, "one", RunSpec(Path("s.py")))
    assert "rain-deploy up -c one" in str(caught.value.next_step)


def test_where_nothing_is_priced_no_machine_is_powered_off_after_a_run(world: World) -> None:
    with pytest.raises(InputError, match="never powered off"):
        run(world.ctx, "one", RunSpec(Path("s.py"), detach=True, then_off=True))
    assert world.store.runs() == ()


@pytest.mark.parametrize(
    ("limit_s", "ended_s", "off_s"),
    [
        (9000.0, 1000.0, 1000.0 + THEN_OFF_S),
        (None, 1000.0, 1000.0 + THEN_OFF_S),
        (1300.0, 1000.0, 1300.0),  # the time limit comes first
        (9000.0, None, None),  # it goes on
        (9000.0, 100.0, None),  # somebody has called it off, or started the machines again
    ],
)
def test_the_hour_of_then_off_is_that_of_the_last_machine(
    limit_s: float | None, ended_s: float | None, off_s: float | None
) -> None:
    assert all_off_s(billed(CLUSTER, limit_s=limit_s), ended_s, now_s=1010.0) == off_s


def test_a_run_tells_the_hour_at_which_its_machines_end(world: World) -> None:
    limit_s = time.time() + 3600
    world.store.save_cluster(billed(CLUSTER, limit_s=limit_s))
    result = run(world.ctx, "one", RunSpec(Path("s.py"), detach=True, then_off=True))
    assert result.limit_s == limit_s
    assert any("each machine powers itself off at" in str(event) for event in world.seen)
    told = next(str(event) for event in world.seen if "--then-off" in str(event))
    for word in (
        "10 min after the run has ended",
        "if that is earlier",
        "results stay on the disks",
        "extend 1h -c one",
    ):
        assert word in told


def test_a_run_does_not_begin_on_machines_whose_time_is_over(world: World) -> None:
    world.store.save_cluster(billed(CLUSTER, limit_s=time.time() - 60))
    with pytest.raises(InputError, match="has passed") as caught:
        detached(world)
    assert "rain-deploy extend 2h -c one" in str(caught.value.next_step)
    assert world.store.runs() == ()


def _silent(hours: int) -> list[tuple[list[dict[str, Any]], int | None]]:
    state = {"t": "state", "state": "running"}
    lost: list[tuple[list[dict[str, Any]], int | None]] = [([state], None)] * hours
    return [*lost, ([{"t": "state", "state": "finished"}, {"t": "end"}], 0)]


def test_a_silent_run_survives_a_lost_connection_every_hour(world: World) -> None:
    clock = Clock()
    world.node.follows = _silent(hours=5)

    def hour(_seconds: float) -> None:
        clock.now_s += 3600

    followed = follow(replace(world.ctx, clock=clock, pause=hour), CLUSTER, RUN)
    assert (followed.status.state, followed.heard is None) == (RunState.FINISHED, True)


def test_a_node_that_does_not_come_back_is_given_up(world: World) -> None:
    clock = Clock()
    world.node.follows = [([], None)] * 1000
    with pytest.raises(Unreachable) as caught:
        follow(replace(world.ctx, clock=clock, pause=clock.pause), CLUSTER, RUN)
    assert clock.now_s == pytest.approx(1000 + RECONNECT_S, abs=10)
    assert "attach r1" in str(caught.value.next_step)


def test_a_run_that_was_never_in_line_is_reported_as_that(world: World) -> None:
    world.node.follows = [([], 10)]
    with pytest.raises(InputError, match="was never queued") as caught:
        follow(world.ctx, CLUSTER, RUN)
    assert caught.value.next_step == "rain-deploy run -c one s.py"


def test_a_run_that_does_not_end_when_asked_is_not_awaited_for_ever(world: World) -> None:
    clock = Clock()
    world.node.states = {"r1": "running", "r2": "shipped"}
    with pytest.raises(EngineError, match="r1 did not end within 60 s"):
        await_end(replace(world.ctx, clock=clock, pause=clock.pause), CLUSTER, ("r1",))
    assert clock.now_s == pytest.approx(1000 + CANCEL_S, abs=1)
    assert await_end(world.ctx, CLUSTER, ("r2",))["r2"].state == RunState.SHIPPED


@pytest.mark.parametrize("outcome", ["cancelled", "done", "failed"])
def test_a_run_that_ends_by_itself_while_it_is_cancelled_was_not_cancelled(
    world: World, outcome: str
) -> None:
    record = detached(world)
    world.node.states, world.node.outcome = {record.id: "running"}, outcome
    result = cancel(world.ctx, "one")
    assert (result.outcome, result.changed) == (outcome, outcome == "cancelled")


def test_a_wrong_host_key_is_never_left_out(world: World) -> None:
    spec = ClusterSpec("one", "hosts", "named", min_nodes=1)
    wrong = HostKeyError("another key", node="node-2")
    with pytest.raises(HostKeyError):
        survivors(world.ctx, spec, ("node-1", "node-2"), {"node-2": wrong})


def test_a_node_that_is_left_out_is_remembered_until_it_comes_back(world: World) -> None:
    spec = ClusterSpec("one", "hosts", "named", min_nodes=1)
    ctx = replace(world.ctx, provider_for=lambda _: HostsProvider())
    alone = assign(ctx, spec, CLUSTER, {HOSTS[0]: DEBIAN_12})
    assert (alone.nodes, alone.left_out) == (NODES[:1], NODES[1:])
    back = assign(ctx, spec, alone, dict.fromkeys(HOSTS, DEBIAN_12))
    assert ([node.name for node in back.nodes], back.left_out) == (["node-1", "node-2"], ())
