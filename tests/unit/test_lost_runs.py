"""A connection that is lost while a run is followed: what is asked and said, and what every view shows."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from rain_deploy.core.cluster import Cluster
from rain_deploy.core.events import PointSeen, ScriptOutput
from rain_deploy.core.machine import Host
from rain_deploy.core.run import RunRecord, RunState
from rain_deploy.core.step import Command, CommandResult
from rain_deploy.errors import EndedEarly, EngineError, ScriptFailed, Unreachable
from rain_deploy.results.pull import pull
from rain_deploy.runs.finish import RunResult, end_of
from rain_deploy.runs.follow import follow
from rain_deploy.runs.outage import RECONNECT_S
from rain_deploy.transport.base import Chunk
from rain_deploy.verbs.list import list_clusters
from rain_deploy.verbs.runs import attach, cancel, runs
from rain_deploy.verbs.status import status
from tests.support.results import verify
from tests.support.values import changed
from tests.unit.fake_cloud import Nodes, World
from tests.unit.test_results_pull import FILES, STATE, Node, tar_of

READY = {"services": {"keeper": 1}, "governor": {"ready": True}, "runs": []}
HOUR_S = 3600.0


@dataclass
class Following(Nodes):
    """Machines of which the server's sends two points and is lost, each time that its run is followed."""

    meanwhile: Callable[[], object] = lambda: None
    """What happens while it is followed."""
    finally_: dict[str, object] = field(default_factory=dict)
    """The run's last state, for a connection that is not lost."""

    def run(
        self, host: Host, command: Command, *, on_stdout: Chunk | None = None, on_stderr: Chunk | None = None
    ) -> CommandResult:
        if "follow" not in command.argv:
            return super().run(host, command, on_stdout=on_stdout, on_stderr=on_stderr)
        self.connect(host)
        points = [
            {"t": "point", "row": {"task": task, "point": True, "state": state}, "bytes": 9}
            for task, state in enumerate(("finished", "running", "submitted"))
        ]
        ends = [{"t": "state", **self.finally_}, {"t": "end"}] if self.finally_ else []
        lines = [{"t": "state", "state": "running"}, *points, *ends]
        assert on_stdout
        on_stdout(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
        self.meanwhile()
        if ends:
            return CommandResult(0, b"", b"")
        raise Unreachable("the connection was lost", node=host.name)


@dataclass
class Case:
    world: World
    nodes: Following
    cluster: Cluster
    record: RunRecord
    now_s: float = 1000.0

    def followed(self) -> RunResult:
        def pause(seconds: float) -> None:
            self.now_s += seconds

        ctx = replace(self.world.ctx, transport=self.nodes, clock=lambda: self.now_s, pause=pause)
        self.cluster = self.world.store.cluster("one") or self.cluster
        return end_of(ctx, self.cluster, self.record, follow(ctx, self.cluster, self.record))

    def views(self, *, silent: bool = False) -> set[tuple[str, str]]:
        """State and outcome in ``status`` and ``runs``; with ``list``, one of them where all agree."""
        self.world.cloud.silent = silent
        ctx = self.world.ctx
        shown = status(ctx, "one").run
        assert shown
        lines = [shown, *runs(ctx, "one").runs]
        (listed,) = list_clusters(ctx).clusters
        assert (listed.active_run == "") == (lines[0].state == "finished")
        return {(line.state, line.outcome) for line in lines}


@pytest.fixture
def case(tmp_path: Path) -> Case:
    world = World.at(tmp_path)
    world.nodes.said["status"] = READY
    world.nodes.said["runs"] = []
    nodes = Following(world.cloud, world.nodes.place)
    cluster = world.cluster(limit_s=time.time() + HOUR_S)
    out = tmp_path / "results"
    record = RunRecord("r1", cluster.id, "one", 1, 7231, "s.py", (), "00", 2.5, out, RunState.RUNNING)
    world.store.save_run(record)
    return Case(world, nodes, cluster, record)


def test_at_the_limit_a_run_ends_with_what_was_done_and_where_the_rest_is(case: Case) -> None:
    def limit() -> None:
        case.world.store.save_cluster(changed(case.cluster, limit_s=time.time() - 60))
        case.world.cloud.power_off("node-1")

    case.nodes.meanwhile = limit
    result = case.followed()
    problem = result.problem
    hour = time.strftime("%H:%M", time.localtime(time.time() - 60))
    assert isinstance(problem, EndedEarly)
    assert problem.message == f"run r1: time limit {hour} reached, machines are off; 1 of 3 points finished"
    start = "to start the machine: rain-deploy pull r1 -c one; or to delete it: rain-deploy down -c one"
    assert problem.next_step == start
    assert (result.state, result.pulled, case.now_s) == ("finished", False, 1000.0)
    assert ("start", case.cluster.nodes[0].host.machine) not in case.world.cloud.calls
    for silent in (False, True):
        assert case.views(silent=silent) == {("finished", "powered off")}


@pytest.mark.parametrize("silent", [False, True])
def test_a_run_on_a_machine_that_is_off_needs_no_cancel_and_starts_nothing(
    case: Case, *, silent: bool
) -> None:
    case.world.store.save_cluster(changed(case.cluster, limit_s=time.time() - HOUR_S))
    case.world.cloud.power_off("node-1")
    case.world.cloud.silent = silent
    result = cancel(case.world.ctx, "one")
    assert (result.state, result.changed) == ("finished", False)
    assert "time limit" in case.world.told
    assert "start" not in {call for call, _ in case.world.cloud.calls}


@pytest.mark.parametrize("limit_s", [None, HOUR_S])
def test_a_machine_that_is_off_before_its_limit_is_called_that(case: Case, limit_s: float | None) -> None:
    until_s = None if limit_s is None else time.time() + limit_s
    case.world.store.save_cluster(changed(case.cluster, limit_s=until_s))
    case.nodes.meanwhile = lambda: case.world.cloud.power_off("node-1")
    result = case.followed()
    assert (result.outcome, result.message) == (
        "powered off",
        "node-1 is powered off; 1 of 3 points finished",
    )
    assert case.views() == {("finished", "powered off")}


def test_a_machine_that_is_gone_has_lost_the_run(case: Case) -> None:
    machine = ("instance", case.cluster.nodes[0].host.machine)
    case.nodes.meanwhile = lambda: case.world.cloud.held.pop(machine)
    problem = case.followed().problem
    assert isinstance(problem, EngineError)
    assert problem.message == "run r1: the machine of node-1 is gone; 1 of 3 points finished"
    assert problem.next_step == "rain-deploy up -c one && rain-deploy run -c one s.py"
    assert f"kept here: 3 points of run r1, in {case.record.out}" in case.world.told
    assert (case.record.out / "points.csv").read_text().count("finished") == 1
    assert case.views() == {("finished", "lost")}


def all_pulled(case: Case, **state: object) -> None:
    """The run has ended and all of it is here."""
    sent = FILES | {"state.json": json.dumps(STATE | state).encode()}
    pull(Node(tar_of(sent)), case.record)
    case.record = replace(case.record, state=RunState.FINISHED, outcome="done", pulled=True)
    case.world.store.save_run(case.record)


def machine_gone(case: Case) -> None:
    del case.world.cloud.held["instance", case.cluster.nodes[0].host.machine]


def address_of_another(case: Case) -> None:
    case.world.nodes.strangers.add(case.cluster.nodes[0].host.address)


@pytest.mark.parametrize(
    "becomes",
    [machine_gone, address_of_another, lambda case: case.world.cloud.power_off("node-1"), lambda _case: None],
    ids=["gone", "another's", "off", "made again"],  # a machine that answers has no such run
)
@pytest.mark.parametrize("billed", [True, False])
def test_attach_shows_a_run_that_is_here_whatever_has_become_of_its_machine(
    case: Case, becomes: Callable[[Case], None], *, billed: bool
) -> None:
    all_pulled(case)
    becomes(case)
    if not billed:
        case.world.store.save_cluster(replace(case.cluster, bill=None))
    result = attach(case.world.ctx, "one")
    assert (result.outcome, result.exit_code, result.points, result.problem) == ("done", 0, 1, None)
    shown = [(event.stream, event.data) for event in case.world.events if isinstance(event, ScriptOutput)]
    assert shown == [("stdout", b"hello\n")]
    assert [event.row.value for event in case.world.events if isinstance(event, PointSeen)] == [0.5]
    assert (case.world.nodes.asked, case.world.cloud.calls) == ([], [])


@pytest.mark.parametrize("out", [None, "elsewhere"])
def test_attach_tells_how_a_run_ended_that_is_here_when_its_machine_is_gone(
    case: Case, out: str | None
) -> None:
    all_pulled(case)
    machine_gone(case)
    result = attach(case.world.ctx, "one", out=case.record.out.with_name(out) if out else None)
    assert (result.state, result.outcome, result.exit_code, result.problem) == ("finished", "done", 0, None)
    assert (result.pulled, result.results_dir, result.seconds) == (True, case.record.out, 2.5)
    assert (result.points, result.figures, result.files) == (1, 1, 1)
    assert f"all results of run r1 are here, in {case.record.out}" in case.world.told
    assert "kept here" not in case.world.told
    assert verify(case.record.out) == ()
    assert case.world.store.runs("one") == (case.record,)


def test_attach_brings_results_that_are_here_to_another_place_from_the_machine(case: Case) -> None:
    all_pulled(case)
    case.world.cloud.power_off("node-1")
    with pytest.raises(EngineError, match="cannot be followed"):  # this machine has no such run
        attach(case.world.ctx, "one", out=case.record.out.with_name("elsewhere"))
    assert ("start", case.cluster.nodes[0].host.machine) in case.world.cloud.calls


def test_a_machine_that_goes_while_attach_shows_a_run_that_is_here_changes_nothing(case: Case) -> None:
    machine = ("instance", case.cluster.nodes[0].host.machine)

    def meanwhile() -> None:
        all_pulled(case, outcome="failed", exit_code=3)
        machine_gone(case)

    case.nodes.meanwhile = meanwhile
    assert machine in case.world.cloud.held
    problem = case.followed().problem
    assert isinstance(problem, ScriptFailed)
    assert problem.message == "run r1: the script ended with exit code 3"
    assert verify(case.record.out) == ()


def test_attach_to_a_run_that_went_with_its_machine_says_how_to_go_on(case: Case) -> None:
    del case.world.cloud.held["instance", case.cluster.nodes[0].host.machine]
    problem = attach(case.world.ctx, "one").problem
    assert isinstance(problem, EngineError)
    assert problem.message == "run r1: the machine of node-1 is gone"
    assert problem.next_step == "rain-deploy up -c one && rain-deploy run -c one s.py"


def test_without_an_answer_of_the_account_the_limit_on_record_counts(case: Case) -> None:
    case.world.store.save_cluster(changed(case.cluster, limit_s=time.time() - HOUR_S))
    case.world.cloud.silent = True
    result = case.followed()
    assert (result.outcome, case.now_s) == ("powered off", 1000.0)
    assert "passed, so the machines should be off" in result.message


@pytest.mark.parametrize("silent", [False, True])
def test_while_nothing_says_that_it_ended_the_connection_is_tried_again(case: Case, *, silent: bool) -> None:
    def lost_for_good() -> None:
        case.world.cloud.silent = silent
        case.nodes.boots[case.cluster.nodes[0].host.machine] = 10_000

    case.nodes.meanwhile = lost_for_good
    with pytest.raises(Unreachable) as caught:
        case.followed()
    assert case.now_s == pytest.approx(1000 + RECONNECT_S, abs=10)
    assert caught.value.still_running == "run r1, unless node-1 was ended"
    gone = "; if node-1 is gone for good: rain-deploy up -c one && rain-deploy run -c one s.py"
    assert str(caught.value.next_step).endswith(gone)
    assert (case.record.out / "points.csv").exists()
    asked = case.world.cloud.calls.count(("survey", ""))
    assert 2 < asked <= RECONNECT_S / 5 + 2  # the account is not asked at every try


@pytest.mark.parametrize("outcome", ["engine", "lost"])
def test_what_breaks_while_the_machines_go_off_one_by_one_is_the_limit(case: Case, outcome: str) -> None:
    case.world.store.save_cluster(changed(case.cluster, limit_s=time.time() - 1))
    case.nodes.finally_ = {"state": "finished", "outcome": outcome, "message": "a governor was lost"}
    case.nodes.meanwhile = lambda: case.world.cloud.power_off("node-1")
    problem = case.followed().problem
    assert isinstance(problem, EndedEarly)
    assert problem.message.endswith(" reached; 1 of 3 points finished")
    assert "a governor" not in problem.message


@pytest.mark.parametrize(
    ("before_limit_s", "reason"),
    [(4 * HOUR_S, "a governor"), (200, "a governor"), (30, "time limit"), (-20, "time limit")],
)
@pytest.mark.parametrize("outcome", ["engine", "lost"])
def test_what_failed_long_before_the_limit_keeps_its_reason_when_it_is_heard_after_it(
    case: Case, outcome: str, before_limit_s: float, reason: str
) -> None:
    limit_s = time.time() - 600
    case.world.store.save_cluster(changed(case.cluster, limit_s=limit_s))
    end = {"state": "finished", "outcome": outcome, "message": "a governor was lost"}
    case.nodes.finally_ = {**end, "ended_s": limit_s - before_limit_s}
    cluster = case.world.store.cluster("one")
    assert cluster
    ended = follow(replace(case.world.ctx, transport=case.nodes), cluster, case.record).status
    assert ended.message.startswith(reason)
    assert ended.outcome == (outcome if reason == "a governor" else "powered off")


@pytest.mark.parametrize(
    ("silent", "why"),
    [(False, "reached, machines are off"), (True, "passed, so the machines should be off")],
)
def test_a_run_that_nobody_followed_does_not_go_on_beside_machines_that_are_off(
    case: Case, *, silent: bool, why: str
) -> None:
    case.world.store.save_cluster(changed(case.cluster, limit_s=time.time() - HOUR_S))
    for node in case.cluster.nodes:
        case.world.cloud.power_off(node.name)
    assert case.views(silent=silent) == {("finished", "unknown")}
    assert why in runs(case.world.ctx, "one").runs[0].message
    assert case.world.store.runs("one") == (case.record,)  # how it ended is on the disk
