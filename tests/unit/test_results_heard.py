"""What was heard of a run becomes its results, beside what an earlier pull brought."""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from pathlib import Path

import pytest

from rain_deploy.core.run import RunRecord
from rain_deploy.node.wire import Outcome, PointRow, RunState, RunStatus
from rain_deploy.results.heard import MOST_BYTES, Heard
from rain_deploy.results.manifest import read_manifest
from rain_deploy.results.pull import pull
from tests.support.results import verify
from tests.unit.test_results_pull import FILES, STATE, Node, run_record, tar_of

LOST = RunStatus(state=RunState.FINISHED, outcome=Outcome.LOST, attempt=2, message="it is gone")
INCOMPLETE = ("it was pulled before the run had ended",)


def heard(run: RunRecord, *, earlier: int = 0) -> Heard:
    found = Heard()
    for task, state in ((1, "running"), (1, "finished"), (2, "running")):
        found.point(PointRow(task=task, point=True, state=state, parameters={"x": task}))
    found.printed("stdout", b"one\n", again=False)
    found.printed("stdout", b"two\n", again=True)
    found.printed("stdout", b"three\n", again=False)
    pulled = found.land(run, LOST, lambda _: None)
    assert (pulled.points, pulled.point_states["running"], pulled.finished) == (2 + earlier, 1, False)
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
    heard(run, earlier=1)
    assert verify(run.out) == INCOMPLETE
    assert (run.out / "files/model/weights.bin").read_bytes() == FILES["files/model/weights.bin"]
    assert (run.out / "files/link").readlink() == Path("model/weights.bin")
    assert (run.out / "stdout.log").read_text() == "two\nthree\n"
    pull(Node(tar_of(FILES)), run)
    assert verify(run.out) == ()


def test_what_an_earlier_manifest_knows_of_the_run_stays(tmp_path: Path) -> None:
    run = run_record(tmp_path / "out")
    begun = STATE | {"state": "running", "outcome": "", "exit_code": None, "ended_s": None, "attempt": 3}
    begun |= {"warnings": ["a file was not sent"]}
    pull(Node(tar_of(FILES | {"state.json": json.dumps(begun).encode()})), run, cost="1.00 CHF")
    before = read_manifest(run.out)
    assert before
    for status, outcome in ((replace(LOST, attempt=1), "lost"), (RunStatus(), "lost")):
        Heard().land(run, status, lambda _: None)
        found = read_manifest(run.out)
        assert found
        assert {name for name in before if before[name] != found[name]} == {"outcome", "files"}
        assert found["outcome"] == outcome


def test_what_was_heard_first_stays_when_less_is_heard_again(tmp_path: Path) -> None:
    run = run_record(tmp_path / "out")
    heard(run)
    before = {name: (run.out / name).read_bytes() for name in ("points.csv", "points.json", "stdout.log")}
    again = Heard()
    again.point(PointRow(task=1, point=True, state="running", parameters={"x": 1}))
    for found in (Heard(), again):
        pulled = found.land(run, LOST, lambda _: None)
        assert pulled.point_states == {"finished": 1, "running": 1}
        assert {name: (run.out / name).read_bytes() for name in before} == before


@pytest.mark.parametrize("error", [errno.EPERM, errno.EXDEV, errno.EOPNOTSUPP])
def test_it_stays_on_a_file_system_without_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(error, "no hard links")

    run = run_record(tmp_path / "out")
    pull(Node(tar_of(FILES, {"files/link": "model/weights.bin"})), run)
    monkeypatch.setattr("os.link", refuse)
    heard(run, earlier=1)
    assert (run.out / "files/model/weights.bin").read_bytes() == FILES["files/model/weights.bin"]
    assert (run.out / "files/link").readlink() == Path("model/weights.bin")
    assert verify(run.out) == INCOMPLETE


def test_what_cannot_be_kept_leaves_all_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "the disk is full")

    run = run_record(tmp_path / "out")
    pull(Node(tar_of(FILES)), run)
    monkeypatch.setattr("os.link", refuse)
    monkeypatch.setattr("shutil.copy2", refuse)
    with pytest.raises(OSError, match="the disk is full"):
        heard(run, earlier=1)
    assert verify(run.out) == ()


def test_only_the_beginning_of_much_output_is_kept(tmp_path: Path) -> None:
    run, found = run_record(tmp_path / "out"), Heard()
    for _ in range(3):
        found.printed("stderr", b"x" * (MOST_BYTES // 2 + 1), again=False)
    found.land(run, LOST, lambda _: None)
    assert (run.out / "stderr.log").stat().st_size == MOST_BYTES
