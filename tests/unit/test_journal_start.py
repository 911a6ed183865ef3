"""When a script's helper starts, it puts the journal in order."""

from __future__ import annotations

from pathlib import Path

from rain_deploy.node.files import write_json
from rain_deploy.node.journal.engine import Engine, EngineLost
from rain_deploy.node.journal.helper import Helper
from rain_deploy.node.journal.store import MERGED_FROM, Journal
from rain_deploy.node.run import the_run
from rain_deploy.node.wire import RunDescription
from tests.unit.test_journal_store import left_over, loaded, put, stored


def no_engine() -> Engine:
    raise EngineLost("it was not started")


def test_small_files_are_merged_leftovers_go_and_damage_is_named(tmp_path: Path) -> None:
    run, directory = tmp_path / "runs" / "r1", tmp_path / "journal"
    write_json(run / "run.json", RunDescription(run="r1", sequence=1, port=1, script="s.py"))
    for number in range(MERGED_FROM):
        put(Journal(directory), number, b"x")
    (directory / "00000000000000000001-000.seg").write_bytes(b"damaged")
    left_over(directory)
    Helper(the_run(run), Journal(directory), no_engine).end()
    assert len(list(directory.iterdir())) == 1
    assert all(stored(loaded(directory), number) == [b"x"] for number in range(MERGED_FROM))
    warnings = (run / "companion" / "warnings.txt").read_text()
    assert "00000000000000000001-000.seg of the journal is damaged" in warnings


def test_a_run_without_a_journal_starts_one(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "r1"
    write_json(run / "run.json", RunDescription(run="r1", sequence=1, port=1, script="s.py"))
    Helper(the_run(run), Journal(tmp_path / "journal"), no_engine).end()
    assert not (run / "companion").exists()
