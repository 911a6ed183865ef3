"""Tasks under which something died: counted over attempts, suspected, run alone, given up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import pytest

from rain_deploy.node.files import write_json
from rain_deploy.node.lives import Broken, Death, Lives
from rain_deploy.node.points.events import Event
from rain_deploy.node.points.notes import EXECUTOR_LOST, TaskEnd, TaskNote
from rain_deploy.node.points.recorder import Recorder
from rain_deploy.node.points.table import Points
from rain_deploy.node.run import Run
from rain_deploy.node.service.attempt import Loss
from rain_deploy.node.service.deaths import Deaths, deaths_of, deaths_on
from rain_deploy.node.service.engine import WarmProbe
from rain_deploy.node.service.outputs import clean_files
from rain_deploy.node.service.recovery import Conduct, Lost
from rain_deploy.node.wire import ClusterConfig, Member, NodeConfig, Outcome, PointRow, RunDescription

MEMBERS = (
    Member(name="node-1", address="10.0.0.1", governor_port=7211),
    Member(name="node-2", address="10.0.0.2", governor_port=7211),
)
LOG = "DEBUG 2026-11-30T02:33:21Z: rain::server::scheduler: Scheduler: (1,{task}) -> 10.0.0.{node}:7211\n"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    about = RunDescription(run="a-run", sequence=1, port=7230, script="s.py", cwd=".")
    run = Run(tmp_path, about)
    run.attempt_dir.mkdir(parents=True)
    return run


def points(run: Run, *alone: int) -> Points:
    """Four tasks; those with an odd number were given to node 2."""
    blank = PointRow(task=0, run=run.id, attempt=run.status().attempt, epoch=0)
    found = Points(blank, node_name=str, known=())
    for task in range(4):
        found.note_task(TaskNote(1, task, {"x": task}, name="p", key=f"k{task}", alone=task in alone))
    lines = (LOG.format(task=task, node=1 + task % 2) for task in range(4))
    (run.attempt_dir / "server.log").write_text(" INFO nothing\n" + "".join(lines))
    return found


def lost(run: Run, found: Points, *nodes: str) -> Deaths:
    """The loss of nodes, recorded as a supervisor does, before the next attempt."""
    deaths = deaths_on(run, found, nodes, MEMBERS)
    run.keep_lives(deaths.lives)
    run.update(attempt=run.status().attempt + 1)
    run.attempt_dir.mkdir(parents=True, exist_ok=True)
    return deaths


def test_what_a_lost_node_had_got_and_not_ended_may_be_the_reason(run: Run) -> None:
    found = points(run)
    found.note_end(TaskEnd(session=1, task=1, state="finished"))
    deaths = deaths_on(run, found, ("node-2",), MEMBERS)
    assert deaths.lives.deaths == (Death("k3", 1, "node-2"),)
    assert (deaths.words, deaths.alone) == ("", ())
    assert deaths_on(run, found, (), MEMBERS).lives.deaths == ()


def test_the_end_of_the_script_for_a_silent_node_ends_no_task(run: Run) -> None:
    closed = Event(1, "2026-11-30T02:33:30+00:00", "SessionClosed", {"session": 1, "reason": "ClientClose"})
    found = points(run)
    found.lost = True
    found.apply(closed)
    assert [death.key for death in deaths_on(run, found, ("node-2",), MEMBERS).lives.deaths] == ["k1", "k3"]
    found.lost = False
    found.apply(closed)
    assert deaths_on(run, found, ("node-2",), MEMBERS).lives.deaths == (), "the script closed it"


def test_two_deaths_make_a_suspect_and_one_alone_ends_it(run: Run) -> None:
    assert lost(run, points(run), "node-1").words == ""
    said = lost(run, points(run), "node-1", "node-2").words
    assert said == "; p (x=0), p (x=2) will run alone, after the others"
    assert run.lives.suspects == {"k0", "k2"}

    elsewhere = lost(run, points(run, 2), "node-2")
    assert elsewhere.alone == (), "the node that was lost had another task"
    found = points(run, 2)
    for task in (0, 1, 3):
        found.note_end(TaskEnd(session=1, task=task, state="finished"))
    deaths = lost(run, found, "node-1")
    assert deaths.words == "; p (x=2) was running alone and is given up"
    assert run.lives.suspects == {"k0", "k1", "k3"}
    why = "given up: its process or its node's engine died under it 3 times (on node-1)"
    assert run.lives.given_up == {"k2": f"{why}, the last time while it ran alone"}


def test_the_death_of_a_process_is_that_of_its_task(run: Run) -> None:
    found = points(run, 3)
    message = f"Task failed: {EXECUTOR_LOST}"
    found.note_end(TaskEnd(session=1, task=3, state="failed", message=message, hard=True))
    deaths = deaths_of(run, found, MEMBERS)
    assert deaths.lives.deaths == (Death("k3", 1, "node-2", alone=True),)
    assert deaths.lives.given_up.keys() == {"k3"}


def test_what_an_attempt_has_recorded_is_left_out_when_it_is_recorded_again() -> None:
    two = [(Death("k", one), Broken("1/1", one), one) for one in (1, 2)]
    deaths, broken, losses = zip(*two, strict=True)
    lives = Lives(begun_s=1.0, losses=losses, broken=broken, deaths=deaths)
    assert lives.before(2) == Lives(begun_s=1.0, losses=(1,), broken=broken[:1], deaths=deaths[:1])
    assert lives.before(3) == lives


def test_a_line_names_three_tasks_and_counts_the_others() -> None:
    deaths = Deaths(Lives(), suspects=tuple("edcba"))
    assert deaths.words == "; a, b, c and 2 more will run alone, after the others"


@dataclass
class Supervisor:
    config: NodeConfig
    probe: WarmProbe | None = None

    def meanwhile(self) -> None: ...


@dataclass
class Notes:
    """Stands for the recorder of an attempt."""

    points: Points

    def step(self) -> None: ...


@pytest.fixture
def conduct(run: Run, tmp_path: Path) -> Conduct:
    place = tmp_path / "node"
    config = NodeConfig(
        node_dir=place,
        cluster_dir=place,
        name="node-1",
        service="abcd/1",
        env=place,
        engine=place,
        code=place,
        address="10.0.0.1",
        governor_port=7211,
        server_address="10.0.0.1",
        idle_port=7212,
        http_port=7213,
        cpus=1,
        server=True,
    )
    config.server_dir.mkdir(parents=True)
    write_json(config.server_dir / "cluster.json", ClusterConfig(nodes=MEMBERS))
    clean_files(run).mkdir(parents=True)
    return Conduct(Supervisor(config), run)


def killed_and_again(note: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """A supervisor is killed before it writes lost.json, and another one does the same."""

    def killed(path: Path, _: object) -> None:
        assert path.name == "lost.json"
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("rain_deploy.node.service.recovery.write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            note()
    assert isinstance(note(), Lost)


def test_a_supervisor_that_is_killed_while_it_notes_an_attempt_counts_it_once(
    run: Run, conduct: Conduct, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = points(run, 3)
    message = f"Task failed: {EXECUTOR_LOST}"
    found.note_end(TaskEnd(session=1, task=3, state="failed", message=message, hard=True))
    recorder = cast("Recorder", Notes(found))
    killed_and_again(lambda: conduct._without((Outcome.FAILED, "no"), recorder), monkeypatch)  # noqa: SLF001
    assert run.lives.broken == (Broken("1/3", 1),)
    assert [death.key for death in run.lives.deaths] == ["k3"]


def test_a_supervisor_that_is_killed_while_it_notes_a_loss_counts_it_once(
    run: Run, conduct: Conduct, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss = Loss("node-1 was lost", nodes=("node-1",))
    for attempt in (1, 2, 3):
        recorder = cast("Recorder", Notes(points(run)))
        killed_and_again(partial(conduct._decide, loss, recorder), monkeypatch)  # noqa: SLF001
        assert run.lives.losses == tuple(range(1, attempt + 1))
        run.update(attempt=attempt + 1)
        run.attempt_dir.mkdir()
    assert [(death.key, death.attempt) for death in run.lives.deaths[:4]] == [
        (key, attempt) for attempt in (1, 2) for key in ("k0", "k2")
    ]
    said = [event.message for event in run.status().events]
    alone = "; p (x=0), p (x=2) will run alone, after the others"
    assert said == [
        "node-1 was lost; attempt 2 starts",
        f"node-1 was lost{alone}; attempt 3 starts",
        "node-1 was lost; attempt 4 starts",
    ]


def test_a_loss_after_a_new_result_is_the_first(run: Run, conduct: Conduct) -> None:
    run.keep_lives(Lives(losses=(1, 2, 3)))
    run.update(attempt=4)
    run.attempt_dir.mkdir()
    found = points(run)
    found.note_end(TaskEnd(session=1, task=1, state="finished"))
    assert isinstance(conduct._decide(Loss("it"), cast("Recorder", Notes(found))), Lost)  # noqa: SLF001
    assert run.lives.losses == (4,)
