"""What was heard of a run becomes its results, beside what an earlier pull brought."""

from __future__ import annotations

from pathlib import Path

from rain_deploy.core.run import RunRecord
from rain_deploy.node.wire import Outcome, PointRow, RunState, RunStatus
from rain_deploy.results.heard import MOST_BYTES, Heard
from rain_deploy.results.manifest import read_manifest
from rain_deploy.results.pull import pull
from tests.support.results import verify
from tests.unit.test_results_pull import FILES, Node, run_record, tar_of

LOST = RunStatus(state=RunState.FINISHED, outcome=Outcome.LOST, attempt=2, message="it is gone")
INCOMPLETE = ("it was pulled before the run had ended",)


def heard(run: RunRecord) -> Heard:
    found = Heard()
    for task, state in ((1, "running"), (1, "finished"), (2, "running")):
        found.point(PointRow(task=task, point=True, state=state, parameters={"x": task}))
    found.printed("stdout", b"one\n", again=False)
    found.printed("stdout", b"two\n", again=True)
    found.printed("stdout", b"three\n", again=False)
    pulled = found.land(run, LOST, lambda _: None)
    assert (pulled.points, pulled.point_states, pulled.finished) == (2, {"finished": 1, "running": 1}, False)
    return found


def test_values_and_output_are_there(tmp_path: Path) -> None:
    run = run_record(tmp_path / "out")
    heard(run)
    manifest = read_manifest(run.out)
    assert manifest
    assert (manifest["outcome"], manifest["attempts"], manifest["complete"]) == ("lost", 2, False)
    assert verify(run.out) == INCOMPLETE
    assert (run.out / "stdout.log").read_text() == "two\nthree\n"
    assert (run.out / "points.csv").read_text().count("\n") == 3


def test_what_an_earlier_pull_brought_stays(tmp_path: Path) -> None:
    run = run_record(tmp_path / "out")
    pull(Node(tar_of(FILES, {"files/link": "model/weights.bin"})), run)
    heard(run)
    assert verify(run.out) == INCOMPLETE
    assert (run.out / "files/model/weights.bin").read_bytes() == FILES["files/model/weights.bin"]
    assert (run.out / "files/link").readlink() == Path("model/weights.bin")
    assert (run.out / "stdout.log").read_text() == "two\nthree\n"
    pull(Node(tar_of(FILES)), run)
    assert verify(run.out) == ()


def test_only_the_beginning_of_much_output_is_kept(tmp_path: Path) -> None:
    run, found = run_record(tmp_path / "out"), Heard()
    for _ in range(3):
        found.printed("stderr", b"x" * (MOST_BYTES // 2 + 1), again=False)
    found.land(run, LOST, lambda _: None)
    assert (run.out / "stderr.log").stat().st_size == MOST_BYTES
