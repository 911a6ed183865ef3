"""A task that the journal does not have says what differs from a result of the same name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rain_deploy.node.journal import misses
from rain_deploy.node.journal.engine import Watched
from rain_deploy.node.journal.misses import MOST_EXPLAINED, Misses
from rain_deploy.node.journal.store import Journal, Record
from rain_deploy.node.sweep import digest

SWEEP = {"script": "s", "files": "f", "software": "e", "sweep": "id"}
PARTS = {"function": "a", "arguments": "b", "inputs": "c", "options": "d", "order": "0"}


def stored(number: int, **more: Any) -> Record:
    plain: dict[str, Any] = {
        "key": f"{number:064x}",
        "kind": "result",
        "name": "train x=1",
        "task_type": "py/",
        "run": "old",
        "attempt": 1,
        "epoch": 1,
        "node": "node-1",
        "started_s": None,
        "duration_s": None,
        "ended_s": None,
        "info": {},
        "parts": PARTS | SWEEP,
    }
    return Record(**(plain | more))


def task(name: str = "train x=1", **parts: str) -> Watched:
    return Watched(session=1, task=1, key="k", name=name, parts=PARTS | parts)


def journal_of(directory: Path, *records: Record) -> Journal:
    journal = Journal(directory)
    journal.write([(one, ()) for one in records])
    again = Journal(directory)
    again.load()
    return again


def why(directory: Path, wanted: Watched, *records: Record, **sweep: str) -> str:
    return Misses(journal_of(directory, *records), "new", SWEEP | sweep).why(wanted)


@pytest.mark.parametrize(
    ("parts", "sweep", "differs"),
    [
        ({"function": "x"}, {}, "another function"),
        ({"arguments": "x"}, {}, "other arguments"),
        ({"function": "x", "inputs": "x"}, {}, "another function and other inputs"),
        ({}, {"files": "x", "sweep": "x"}, "other shipped files"),
        ({}, {"software": "x", "sweep": "x"}, "another Python environment or engine"),
        ({}, {"script": "x", "sweep": "x"}, "another path of the script"),
        ({}, {"sweep": "x"}, "other values of --env"),
        ({}, {}, "a key of another version of rain-deploy"),
    ],
)
def test_it_says_what_differs(
    tmp_path: Path, parts: dict[str, str], sweep: dict[str, str], differs: str
) -> None:
    assert (
        why(tmp_path, task(**parts), stored(1), **sweep)
        == f"the result that is kept from run old has {differs}"
    )


def listing(**files: str) -> Record:
    digits = digest(sorted(files.items()))
    return stored(0, key=digits, kind="files", name="", parts={}, info=files)


BEFORE = {"a.py": "1", "b.txt": "2", "c.txt": "3"}


@pytest.mark.parametrize(
    ("now", "differs", "changed"),
    [
        ({"a.py": "9", "b.txt": "2", "c.txt": "3"}, "another a.py", "a.py"),
        ({"a.py": "9", "b.txt": "8", "c.txt": "3"}, "another a.py and another b.txt", "a.py and b.txt"),
        (BEFORE | {"d.txt": "4"}, "no d.txt", "d.txt"),
        ({"a.py": "1", "b.txt": "2"}, "c.txt, which is not sent any more", "c.txt"),
        ({"x": "1"}, "no x, a.py, which is not sent any more, ", "x, a.py, b.txt and 1 more"),
    ],
)
def test_it_names_the_files_that_changed(
    tmp_path: Path, now: dict[str, str], differs: str, changed: str
) -> None:
    before = listing(**BEFORE)
    records = [stored(number, parts=PARTS | SWEEP | {"files": before.key[:12]}) for number in (1, 2)]
    misses = Misses(journal_of(tmp_path, before, *records), "new", SWEEP | {"files": "x", "sweep": "x"}, now)
    assert misses.why(task()).startswith(f"the result that is kept from run old has {differs}")
    assert misses.why(task())
    line = f"{changed} changed: results that were kept before do not fit, so their tasks run again"
    assert list(misses.changed()) == [line]
    assert misses.why(task())
    assert list(misses.changed()) == []


def test_what_only_some_tasks_have_otherwise_is_no_line_for_the_user(tmp_path: Path) -> None:
    misses = Misses(journal_of(tmp_path, stored(1)), "new", SWEEP)
    assert misses.why(task(function="x"))
    assert list(misses.changed()) == []


def test_another_script_with_the_same_names_did_not_change(tmp_path: Path) -> None:
    journal = journal_of(tmp_path, stored(1))
    other = Misses(journal, "new", SWEEP | {"script": "x", "sweep": "x"})
    assert (other.why(task(function="x")), list(other.changed())) == ("", [])
    renamed = Misses(journal, "new", SWEEP | {"script": "x", "sweep": "x"})
    assert renamed.why(task())
    assert [line.partition(":")[0] for line in renamed.changed()] == ["the path of the script changed"]


def test_a_result_that_fits_was_not_wanted(tmp_path: Path) -> None:
    said = why(tmp_path, task(), stored(1, key="k"))
    assert said == "the result that is kept from run old was not used, as with --fresh"


def test_a_journal_keeps_one_listing_also_when_it_is_merged(tmp_path: Path) -> None:
    before = listing(**BEFORE)
    journal = journal_of(tmp_path, before)
    for number in range(1, 12):
        journal.write([(stored(number), ())])
    journal.tidy()
    assert len(list(tmp_path.glob("*.seg"))) == 1
    assert journal.listing(before.key[:12]) == BEFORE
    assert (journal.listing(""), journal.listing("0123")) == (None, None)
    assert journal.usage().records == 11


def test_it_compares_with_the_nearest_result(tmp_path: Path) -> None:
    far = stored(1, parts=PARTS | SWEEP | {"function": "y", "arguments": "y"}, run="far")
    near = stored(2, parts=PARTS | SWEEP | {"inputs": "y"}, run="near")
    assert why(tmp_path, task(), far, near) == "the result that is kept from run near has other inputs"


@pytest.mark.parametrize(
    "records",
    [
        (),
        (stored(1, name="train x=2"),),
        (stored(1, run="new"),),
        (stored(1, kind="failure"),),
        (stored(1, parts={}),),
    ],
)
def test_without_a_result_of_another_run_it_says_nothing(tmp_path: Path, records: tuple[Record, ...]) -> None:
    assert why(tmp_path, task(function="x"), *records) == ""


def test_a_result_that_is_gone_is_not_compared(tmp_path: Path) -> None:
    journal = journal_of(tmp_path, stored(1))
    for segment in tmp_path.glob("*.seg"):
        segment.unlink()
    assert Misses(journal, "new", SWEEP).why(task(function="x")) == ""


def test_many_tasks_of_one_name_read_its_results_once(tmp_path: Path) -> None:
    journal = journal_of(tmp_path, *(stored(number) for number in range(50)))
    explaining = Misses(journal, "new", SWEEP)
    assert explaining.why(task(function="x"))
    for segment in tmp_path.glob("*.seg"):
        segment.unlink()
    said = [bool(explaining.why(task(function="x"))) for _ in range(MOST_EXPLAINED + 5)]
    assert sum(said) == misses.MOST_EXPLAINED - 1
