"""The journal's helper: what it asks Rain for and writes, and how far a fault of one task or session goes."""

from __future__ import annotations

import itertools
import json
import socket
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rain_deploy.node.files import write_json
from rain_deploy.node.journal.engine import CHUNK_BYTES, FIRST_BYTES, Engine, EngineLost, listens
from rain_deploy.node.journal.helper import Helper
from rain_deploy.node.journal.records import MOST_TASKS
from rain_deploy.node.journal.store import Journal
from rain_deploy.node.points.notes import EXECUTOR_LOST
from rain_deploy.node.run import the_run
from rain_deploy.node.wire import LITTLE_BYTES, RunDescription
from tests.support.fake_rain import FakeRain


def key(session: int, task: int) -> str:
    return f"{session:032x}{task:032x}"


class Watching:
    """A helper of a run, with a Rain that is not real."""

    def __init__(self, place: Path) -> None:
        self.rain, self.path = FakeRain(), place / "runs" / "r1"
        write_json(self.path / "run.json", RunDescription(run="r1", sequence=1, port=1, script="s.py"))
        self.directory = place / "journal"
        self.clock_s = itertools.count(0.0, 0.25)
        journal = Journal(self.directory)
        self.helper = Helper(the_run(self.path), journal, self.connect, lambda: next(self.clock_s))
        self.connections, self.refusing = 0, False

    def connect(self) -> Engine:
        if self.refusing:
            raise EngineLost("refused")
        self.connections += 1
        if self.connections > 1:
            self.rain.lost_after = 1 << 30
        return Engine(self.rain)

    def watch(self, count: int, session: int = 1, **more: Any) -> None:
        for task in range(count):
            self.rain.tasks.setdefault((session, task), {})
        tasks = [
            {
                "session": session,
                "task": task,
                "key": key(session, task),
                "name": f"x={task}",
                "outputs": [{"id": task + 1000, "kept": False, "data_type": "blob"}],
                **more,
            }
            for task in range(count)
        ]
        self.helper.watch({"tasks": tasks})

    def finish(self, count: int, session: int = 1, content: bytes = b"1") -> None:
        for task in range(count):
            self.rain.finish(session, task, content)

    def kept(self, count: int, session: int = 1) -> list[int]:
        """Which of the first tasks have a result that another process finds."""
        journal = Journal(self.directory)
        assert journal.load() == []
        found = journal.results([key(session, task) for task in range(count)], whole=True)
        return [task for task in range(count) if key(session, task) in found]

    def ends(self) -> list[dict[str, Any]]:
        return [
            json.loads(line) for line in (self.path / "companion" / "ends.jsonl").read_text().splitlines()
        ]

    def warnings(self) -> list[str]:
        path = self.path / "companion" / "warnings.txt"
        return path.read_text().splitlines() if path.exists() else []

    def segments(self) -> int:
        return len(list(self.directory.glob("*.seg")))


@pytest.fixture
def watching(tmp_path: Path) -> Iterator[Watching]:
    watching = Watching(tmp_path)
    yield watching
    watching.helper.end()


def test_many_small_results_cost_one_request_each_and_one_file_together(watching: Watching) -> None:
    count = 2 * MOST_TASKS
    watching.watch(count)
    watching.finish(count)
    assert watching.helper.round() == count
    assert watching.kept(count) == list(range(count))
    assert watching.segments() == 2
    assert watching.rain.requests == {"states": 2, "fetch": count, "unkeep": 2}
    assert len(watching.rain.unkept) == count
    assert watching.helper.round() == 0
    assert watching.rain.requests["states"] == 2, "nothing is left to be asked for"


def test_large_results_do_not_wait_for_each_other(watching: Watching) -> None:
    watching.watch(60)
    watching.finish(60, content=bytes(LITTLE_BYTES // 30))
    watching.helper.round()
    assert watching.segments() == 2
    assert all(path.stat().st_size < LITTLE_BYTES + 100_000 for path in watching.directory.iterdir())
    assert watching.kept(60) == list(range(60))


def test_a_kept_result_is_found_without_reading_it_again_for_the_script(watching: Watching) -> None:
    watching.watch(3)
    watching.finish(3, content=b"value")
    watching.helper.round()
    found = watching.helper.find({"keys": [key(1, task) for task in range(4)]})["found"]
    assert sorted(found) == [key(1, task) for task in range(3)]
    (output,) = found[key(1, 1)]["outputs"]
    with Path(output["file"]).open("rb") as file:
        file.seek(output["offset"])
        assert file.read(output["size_bytes"]) == b"value"


def test_a_failure_is_kept_but_the_death_of_a_process_is_only_noted(watching: Watching) -> None:
    watching.watch(2)
    for task, error in enumerate(("ValueError: no", f"Task failed: {EXECUTOR_LOST}")):
        watching.rain.finish(1, task, user={"rain-deploy": {"failed": error}})
    watching.helper.round()
    journal = Journal(watching.directory)
    journal.load()
    assert list(journal.failures([key(1, 0), key(1, 1)])) == [key(1, 0)]
    assert [end["message"][:6] for end in watching.ends()] == ["ValueE", "Task f"]


def test_a_session_that_rain_does_not_know_costs_only_its_own_results(watching: Watching) -> None:
    for session in (1, 2, 3):
        watching.watch(3, session)
        watching.finish(3, session)
    del watching.rain.tasks[2, 1]
    watching.helper.round()
    assert [watching.kept(3, session) for session in (1, 2, 3)] == [[0, 1, 2], [], [0, 1, 2]]
    (warning,) = watching.warnings()
    assert "a session" in warning
    watching.watch(5, 1)
    watching.finish(5, 1)
    watching.helper.round()
    assert watching.kept(5, 1) == [0, 1, 2, 3, 4]


def test_a_session_that_the_script_closed_is_no_fault(watching: Watching) -> None:
    watching.watch(3)
    watching.rain.closed.add(1)
    assert (watching.helper.round(), watching.helper.round(), watching.warnings()) == (0, 0, [])
    assert watching.rain.requests["states"] == 1


def test_an_object_that_is_gone_costs_only_its_own_result(watching: Watching) -> None:
    watching.watch(4)
    watching.finish(4)
    del watching.rain.objects[1, 1002]
    watching.helper.round()
    assert watching.kept(4) == [0, 1, 3]
    assert [end["state"] for end in watching.ends()] == ["finished"] * 4
    assert sorted(watching.rain.unkept) == [(1, 1000), (1, 1001), (1, 1003)]


def test_a_task_of_which_rain_says_nonsense_costs_only_its_own_result(watching: Watching) -> None:
    watching.watch(4)
    watching.finish(4)
    watching.rain.tasks[1, 2]["start_time"] = "yesterday"
    watching.rain.tasks[1, 3]["user"] = {"rain-deploy": 7}
    watching.helper.round()
    assert watching.kept(4) == [0, 1, 3]
    assert [end["state"] for end in watching.ends()] == ["finished"] * 4
    (warning,) = watching.warnings()
    assert "x=2" in warning


def test_a_record_that_cannot_be_written_costs_only_itself(watching: Watching) -> None:
    watching.watch(3)
    watching.finish(3)
    watching.rain.tasks[1, 1]["governor"] = "\ud800"  # not in any text
    watching.rain.tasks[1, 1]["duration"] = float("nan")
    watching.helper.round()
    assert set(watching.kept(3)) >= {0, 2}
    assert len(watching.ends()) == 3


def test_what_was_fetched_before_the_engine_was_lost_is_kept(watching: Watching) -> None:
    watching.watch(300)
    watching.finish(300)
    watching.rain.lost_after = 1 + 128
    watching.helper.round()
    assert watching.kept(300) == list(range(128))
    assert watching.warnings() == []
    watching.helper.round()
    assert watching.rain.requests["states"] == 1, "its tasks are forgotten"


def test_no_engine_at_all_is_no_fault(tmp_path: Path) -> None:
    watching = Watching(tmp_path)

    def refuse() -> Engine:
        raise EngineLost("refused")

    helper = Helper(the_run(watching.path), Journal(watching.directory), refuse)
    helper.watch({"tasks": [{"session": 1, "task": 1, "key": key(1, 1)}]})
    assert (helper.round(), helper.round(), watching.warnings()) == (0, 0, [])
    helper.end()


def test_objects_that_the_script_does_not_need_go_once_they_are_kept(watching: Watching) -> None:
    watching.watch(2, outputs=[{"id": 1000, "kept": True, "data_type": "blob"}])
    watching.finish(1)
    watching.rain.objects[1, 7] = b""
    watching.helper.unkeep({"objects": [[1, 1000], [1, 7]]})
    assert watching.rain.unkept == [], "nobody asked the engine before"
    watching.helper.round()
    assert watching.rain.unkept == [(1, 1000)]
    watching.helper.unkeep({"objects": [[1, 7]]})
    assert watching.rain.unkept == [(1, 1000), (1, 7)]


def test_a_disk_that_takes_no_notes_gets_them_later(watching: Watching) -> None:
    watching.watch(2)
    watching.finish(1)
    notes = watching.path / "companion" / "ends.jsonl"
    notes.mkdir(parents=True)
    watching.helper.round()
    notes.rmdir()
    watching.finish(2)
    watching.helper.round()
    assert [end["task"] for end in watching.ends()] == [0, 1]


def once(*, more: int = 0) -> Callable[[], bool]:
    """Return what is asked after each batch: the script wants something after the first one, or some more."""
    batches = itertools.count()
    return lambda: next(batches) < more


def test_who_asks_waits_for_few_large_results(watching: Watching) -> None:
    """The script may ask while others are fetched."""
    each_bytes = LITTLE_BYTES - 1000
    watching.watch(8)
    watching.finish(8, content=bytes(each_bytes))
    assert watching.helper.round(go_on=once(more=1)) == 4
    assert watching.kept(8) == [0, 1, 2, 3]
    assert watching.helper.round() == 4
    assert watching.kept(8) == list(range(8))


@pytest.mark.parametrize("each_bytes", [200_000, FIRST_BYTES, LITTLE_BYTES // 2, 3 * LITTLE_BYTES])
def test_nothing_is_fetched_twice_however_often_the_script_asks(watching: Watching, each_bytes: int) -> None:
    count = 2 + 3 * LITTLE_BYTES // each_bytes
    watching.watch(count)
    watching.finish(count, content=bytes(each_bytes))
    while watching.helper.round(go_on=once()):
        pass
    assert watching.kept(count) == list(range(count))
    assert watching.rain.asked_bytes == count * each_bytes


def test_few_large_results_are_in_memory_at_once(watching: Watching) -> None:
    """Tasks that end together may have gigabytes."""
    watching.watch(6)
    watching.finish(6, content=bytes(2 * LITTLE_BYTES))
    watching.helper.round()  # loads what is loaded once
    watching.watch(6, session=2)
    watching.finish(6, session=2, content=bytes(2 * LITTLE_BYTES))
    tracemalloc.start()
    try:
        watching.helper.round()
        most_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert watching.kept(6, session=2) == list(range(6))
    assert most_bytes < 5 * LITTLE_BYTES  # one, and its parts while they are joined


def test_who_waits_hears_while_a_large_result_is_fetched(
    watching: Watching, capsys: pytest.CaptureFixture[str]
) -> None:
    watching.watch(1)
    watching.finish(1, content=bytes(8 * CHUNK_BYTES))  # each a quarter of a second
    watching.helper.round()
    assert capsys.readouterr().out.splitlines() == ['{"n": 0}'] * 3


def test_checking_large_results_says_once_a_second_that_it_goes_on(
    watching: Watching, capsys: pytest.CaptureFixture[str]
) -> None:
    watching.watch(2)
    watching.finish(2, content=bytes(3 << 20))  # checked in six pieces of a MB, each a quarter of a second
    watching.helper.round()
    capsys.readouterr()
    assert len(watching.helper.find({"keys": [key(1, 0), key(1, 1)]})["found"]) == 2
    assert capsys.readouterr().out.splitlines() == ['{"n": 0}'] * 2


@pytest.mark.parametrize("info", ["[]", "no JSON", '{"content_type": ["pickle"]}'])
def test_an_object_of_which_rain_says_nonsense_costs_only_its_own_result(
    watching: Watching, info: str
) -> None:
    watching.watch(4)
    watching.finish(4)
    watching.rain.object_info[1, 1002] = info
    watching.helper.round()
    assert set(watching.kept(4)) >= {0, 1, 3}
    assert [end["state"] for end in watching.ends()] == ["finished"] * 4
    assert watching.helper.round() == 0


@pytest.mark.parametrize("function", ["stored_of", "Values.of"])
def test_a_fault_of_ours_costs_only_that_and_nothing_is_tried_without_end(
    watching: Watching, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    def fail(*_: object) -> Any:
        raise KeyError("of ours")

    monkeypatch.setattr(f"rain_deploy.node.journal.helper.{function}", fail)
    watching.watch(3)
    watching.finish(3)
    assert (watching.helper.round(), watching.helper.round()) == (3, 0)
    assert watching.kept(3) == ([0, 1, 2] if function == "Values.of" else [])
    assert [end["state"] for end in watching.ends()] == ["finished"] * 3
    assert all("of ours" in warning for warning in watching.warnings())
    assert watching.warnings()


def test_a_task_of_which_rain_says_no_object_does_not_stop_the_others(watching: Watching) -> None:
    watching.watch(3)
    watching.finish(3)
    watching.rain.tasks[1, 0] = ["duration"]  # type: ignore[assignment]
    watching.rain.tasks[1, 1]["user"] = 7
    watching.helper.round()
    assert watching.kept(3) == [1, 2]


def test_a_connection_that_breaks_is_made_again_and_costs_nothing(watching: Watching) -> None:
    watching.watch(3)
    watching.helper.round()
    watching.finish(3)
    watching.rain.lost_after = 1 + 1 + 2  # within the fetches
    watching.helper.close({"session": 1})
    assert (watching.kept(3), watching.connections, watching.warnings()) == ([0, 1, 2], 2, [])


def test_a_connection_that_cannot_be_made_again_is_one_warning_if_the_script_goes_on(
    watching: Watching,
) -> None:
    watching.watch(2)
    watching.helper.round()
    watching.rain.lost_after, watching.refusing = 0, True
    assert (watching.helper.round(), watching.warnings()) == (0, []), "Rain's own end is no fault of ours"
    for session in (2, 3):
        watching.watch(2, session)
        watching.finish(2, session)
        watching.helper.round()
    (warning,) = watching.warnings()
    assert warning == "some results are not kept in the journal: the connection to Rain failed: refused"
    watching.refusing = False
    watching.watch(3, 3)
    watching.finish(3, 3)
    watching.helper.round()
    assert watching.kept(3, 3) == [0, 1, 2]
    assert len(watching.warnings()) == 1


@pytest.mark.parametrize("rain_is_there", [True, False])
def test_a_connection_that_is_never_made_is_one_warning_at_the_end_unless_rain_is_gone(
    watching: Watching, *, rain_is_there: bool
) -> None:
    watching.refusing = True
    watching.watch(2)
    watching.helper.close({"session": 1})
    watching.helper.round()
    watching.helper.end(lambda: rain_is_there)
    lost = "some results are not kept in the journal: the connection to Rain failed: refused"
    assert watching.warnings() == ([lost] if rain_is_there else [])


def test_a_connection_that_was_made_is_no_warning_at_the_end(watching: Watching) -> None:
    watching.watch(2)
    watching.helper.round()
    watching.helper.end(lambda: True)
    assert watching.warnings() == []


def test_a_server_is_there_as_long_as_somebody_listens_at_its_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address, port = server.getsockname()
        assert listens(address, port)
    assert not listens(address, port)
