"""The journal gives back what was stored, or nothing: never a wrong result, never an exception."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rain_deploy.node.journal import store
from rain_deploy.node.journal.segment import MAGIC, write_segment
from rain_deploy.node.journal.store import LISTING, Journal, Output, Record, read_body

BODIES = (b"\x80\x05K*.", b"", b"text of the second output")


def key(number: int) -> str:
    return f"{number:064x}"


def a_record(
    number: int, *bodies: bytes, kind: str = "result", message: str = "", attempt: int = 1
) -> Record:
    outputs = tuple(
        Output.of(body, info={"size": len(body)}, data_type="blob", content_type="pickle") for body in bodies
    )
    return Record(
        key=key(number),
        kind=kind,
        name=f"mnist size={number}",
        task_type="py/",
        run="a-run",
        attempt=attempt,
        epoch=attempt,
        node="node-1",
        started_s=1.5,
        duration_s=0.25,
        ended_s=1.75,
        info={"governor": "127.0.0.1:7211", "user": {"ä": [1, None]}},
        outputs=outputs,
        message=message,
        value=0.5,
        values={"loss": 1, "note": None},
    )


def stored(journal: Journal, number: int) -> list[bytes | None] | None:
    """Return the bodies of a key's result; None if it has no result."""
    found = journal.results([key(number)]).get(key(number))
    return [read_body(place) for place in found[1]] if found else None


def loaded(directory: Path) -> Journal:
    journal = Journal(directory)
    journal.load()
    return journal


def put(journal: Journal, number: int, *bodies: bytes) -> None:
    journal.write([(a_record(number, *bodies), bodies)])


def left_over(directory: Path) -> None:
    """Write what a writer that was killed an hour ago left."""
    path = directory / ".00000000000000000001-000.seg.77.tmp"
    path.write_bytes(b"half")
    os.utime(path, (time.time() - 3600,) * 2)


def the_segment(directory: Path) -> Path:
    (segment,) = directory.glob("*.seg")
    return segment


def test_what_was_stored_is_there_for_the_writer_and_for_a_later_reader(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    assert journal.load() == []
    record, failure = a_record(1, *BODIES), a_record(2, kind="failure", message="ValueError: \ud800 no")
    journal.write([(record, BODIES), (failure, ())])
    for one in (journal, loaded(tmp_path / "journal")):
        assert one.results([key(1)])[key(1)][0] == record
        assert stored(one, 1) == list(BODIES)
        assert one.results([key(2), key(3)]) == {}
        assert one.failures([key(1), key(2)]) == {key(2): failure}
        assert one.usage().records == 1


def test_a_file_counts_its_results_and_nothing_else(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    kinds = ("result", "failure", LISTING)
    journal.write([(a_record(number, kind=kind), ()) for number, kind in enumerate(kinds)])
    assert list(journal.files().values()) == list(loaded(tmp_path).files().values()) == [1]


def test_the_newest_result_counts_and_outdates_what_failed_before(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write([(a_record(1, kind="failure"), ())])
    assert len(loaded(tmp_path).failures([key(1)])) == 1
    put(journal, 1, b"first")
    put(journal, 1, b"second")
    for one in (journal, loaded(tmp_path)):
        assert stored(one, 1) == [b"second"]
        assert one.failures([key(1)]) == {}


def test_a_dropped_key_is_a_miss(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    put(journal, 1, b"one")
    journal.drop(key(1))
    journal.drop(key(2))
    assert stored(journal, 1) is None


def test_a_segment_cut_at_every_byte_of_its_last_record_loses_only_that_record(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write([(a_record(1, *BODIES), BODIES)])
    first = the_segment(tmp_path).stat().st_size
    the_segment(tmp_path).unlink()
    journal.write([(a_record(1, *BODIES), BODIES), (a_record(2, *BODIES), BODIES)])
    segment = the_segment(tmp_path)
    whole = segment.read_bytes()
    for length in range(first, len(whole)):
        segment.write_bytes(whole[:length])
        cut = Journal(tmp_path)
        problems = cut.load()
        assert (stored(cut, 1), stored(cut, 2)) == (list(BODIES), None)
        assert len(problems) == (length > first), length
    for length in range(first):
        segment.write_bytes(whole[:length])
        assert (stored(loaded(tmp_path), 1), stored(loaded(tmp_path), 2)) == (None, None)


def test_a_flipped_bit_anywhere_gives_no_wrong_result_and_costs_at_most_its_segment(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    batch = [(a_record(number, *BODIES), BODIES) for number in (1, 2)]
    journal.write(batch)
    segment = the_segment(tmp_path)
    put(journal, 3, b"of another segment")
    whole, harmed = segment.read_bytes(), 0
    for at in range(len(whole)):
        segment.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        damaged = loaded(tmp_path)
        assert stored(damaged, 3) == [b"of another segment"]
        for number, (record, _) in enumerate(batch, start=1):
            if found := damaged.results([key(number)]):
                assert found[key(number)][0] == record
                bodies = [read_body(place) for place in found[key(number)][1]]
                assert all(body in {None, right} for body, right in zip(bodies, BODIES, strict=True))
                harmed += None in bodies
            else:
                harmed += 1
    assert harmed >= len(whole)


def test_files_that_are_no_segments_are_named_or_overlooked(tmp_path: Path) -> None:
    put(Journal(tmp_path), 1, b"one")
    (tmp_path / "00000000000000000001-000.seg").write_bytes(b"\0" * 5000)
    (tmp_path / "00000000000000000002-000.seg").write_bytes(b"")
    (tmp_path / "00000000000000000003-000.seg").mkdir()
    (tmp_path / "notes.seg").write_text("of somebody else")
    journal = Journal(tmp_path)
    problems = journal.load()
    assert [problem[:24] for problem in problems] == [f"{number:020}-000" for number in (1, 2, 3)]
    assert stored(journal, 1) == [b"one"]


def test_a_record_whose_outputs_do_not_fit_its_bodies_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="size"):
        Journal(tmp_path).write([(a_record(1, b"one"), (b"another",))])
    assert list(tmp_path.iterdir()) == []


class FailingOnce:
    """A function of os that fails at one call of it."""

    def __init__(self, name: str, at: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self._real, self._left = getattr(os, name), at
        monkeypatch.setattr(os, name, self)

    def __call__(self, *args: object, **kwargs: object) -> object:
        self._left -= 1
        if self._left == 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return self._real(*args, **kwargs)


@pytest.mark.parametrize(("name", "at"), [("fsync", 1), ("fsync", 2), ("replace", 1)])
def test_a_disk_that_fails_leaves_nothing_half_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, at: int
) -> None:
    journal = Journal(tmp_path)
    put(journal, 1, b"one")
    before = set(tmp_path.iterdir())
    FailingOnce(name, at, monkeypatch)
    with pytest.raises(OSError, match="Input/output"):
        put(journal, 2, b"two")
    assert set(tmp_path.iterdir()) == before
    assert (stored(journal, 1), stored(journal, 2)) == ([b"one"], None)
    put(journal, 2, b"two")
    assert stored(loaded(tmp_path), 2) == [b"two"]


def test_a_full_disk_damages_nothing_that_is_stored(tmp_path: Path) -> None:
    """The limit on a file's size stops a write in its middle, as a full disk does."""
    journal = Journal(tmp_path)
    put(journal, 1, b"one")
    before = set(tmp_path.iterdir())
    old = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, old[0][1]))
    try:
        with pytest.raises(OSError, match="too large"):
            put(journal, 2, b"x" * 200_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old[0])
        signal.signal(signal.SIGXFSZ, old[1])
    assert set(tmp_path.iterdir()) == before
    assert (stored(journal, 1), stored(journal, 2)) == ([b"one"], None)


READER = """
import sys
from pathlib import Path
from tests.unit.test_journal_store import key, loaded, read_body
directory, reads = Path(sys.argv[1]), 0
while not (directory / "stop").exists() or not reads:
    for number, (record, places) in loaded(directory).results(key(n) for n in range(30)).items():
        bodies = [read_body(place) for place in places]
        assert bodies in ([number.encode() * 9], [None]), (number, bodies)  # None: merged meanwhile
        reads += 1
print(reads)
"""


def test_others_may_read_while_one_writes_and_merges(tmp_path: Path) -> None:
    command = [sys.executable, "-c", READER, str(tmp_path)]
    readers = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    journal = Journal(tmp_path)
    for number in range(30):
        put(journal, number, key(number).encode() * 9)
        if number % 10 == 9:
            journal.tidy()
    (tmp_path / "stop").touch()
    for reader in readers:
        out, err = reader.communicate(timeout=60)
        assert (reader.returncode, err) == (0, b"")
        assert int(out) > 0
    assert all(stored(loaded(tmp_path), number) for number in range(30))


def test_small_neighbours_are_merged_and_what_no_longer_counts_goes(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    put(journal, 0, b"large" * store.SMALL_BYTES)
    for number in range(store.MERGED_FROM):
        put(journal, 1, str(number).encode())
        journal.write([(a_record(2, kind="failure", attempt=number), ())])
    before = journal.usage().bytes
    journal.tidy()
    for one in (journal, loaded(tmp_path)):
        assert (one.usage().segments, one.usage().records) == (2, 2)
        assert one.usage().bytes < before
        assert stored(one, 1) == [str(store.MERGED_FROM - 1).encode()]
        assert one.failures([key(2)])[key(2)].attempt == store.MERGED_FROM - 1
    put(journal, 1, b"newer")
    assert stored(loaded(tmp_path), 1) == [b"newer"]


def test_a_merge_that_was_killed_before_it_deleted_its_parts_loses_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for number in range(store.MERGED_FROM):
        put(journal, number, b"x" * (store.SMALL_BYTES // 2))
        journal.write([(a_record(99 + number, kind="failure"), ())])
    parts = {path: path.read_bytes() for path in tmp_path.glob("*.seg")}
    journal.tidy()
    for path, data in parts.items():
        path.write_bytes(data)
    left_over(tmp_path)
    again = loaded(tmp_path)
    failed = [key(99 + number) for number in range(store.MERGED_FROM)]
    assert set(again.failures(failed)) == set(failed)
    again.tidy()
    last = loaded(tmp_path)
    assert all(stored(last, number) for number in range(store.MERGED_FROM))
    assert set(last.failures(failed)) == set(failed)
    assert len(list(tmp_path.iterdir())) == last.usage().segments <= 2


def test_what_was_merged_is_in_the_segment_that_has_its_records(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for number in range(store.MERGED_FROM):
        put(journal, number, b"x" * (store.SMALL_BYTES // 2))
    parts = {path: path.read_bytes() for path in tmp_path.glob("*.seg")}
    journal.tidy()
    merged = the_segment(tmp_path)
    for path, data in parts.items():  # as if it was killed before it deleted them
        path.write_bytes(data)
    again = loaded(tmp_path)
    again.tidy()
    assert len(again.files()) == 2
    assert again.merged() == {path.name: merged.name for path in parts}


def merged_once(directory: Path) -> Path:
    journal = Journal(directory)
    for number in range(store.MERGED_FROM):
        put(journal, number, b"x" * 1000)
    journal.tidy()
    return the_segment(directory)


def test_what_a_damaged_segment_was_merged_from_is_not_said_to_be_in_the_next(tmp_path: Path) -> None:
    """The laptop deletes what is said to be there: it may have the only whole copy."""
    first = merged_once(tmp_path)
    data = bytearray(first.read_bytes())
    data[1500] ^= 1  # a body
    first.write_bytes(data)
    journal = loaded(tmp_path)
    for number in range(20, 20 + store.MERGED_FROM):
        put(journal, number, b"y")
    journal.tidy()
    assert len(journal.files()) == 1
    assert len(journal.merged()) == store.MERGED_FROM
    assert first.name not in journal.merged()


@pytest.mark.parametrize("loss", [Path.unlink, lambda path: path.write_bytes(MAGIC)])
def test_what_vanishes_before_it_is_merged_is_not_said_to_be_merged(
    tmp_path: Path, loss: Callable[[Path], object]
) -> None:
    journal = Journal(tmp_path)
    for number in range(store.MERGED_FROM):
        put(journal, number, b"x")
    gone = min(tmp_path.glob("*.seg"))
    loss(gone)
    journal.tidy()
    assert len(journal.merged()) == store.MERGED_FROM - 1
    assert gone.name not in journal.merged()


def test_who_waits_hears_while_a_large_result_is_written(tmp_path: Path) -> None:
    heard = list[int]()
    write_segment(tmp_path / "large", [bytes(130 << 20), b"more"], lambda: heard.append(1))
    assert len(heard) == 2
    assert (tmp_path / "large").stat().st_size == len(MAGIC) + (130 << 20) + len(b"more")


def test_the_oldest_go_when_the_journal_is_over_its_limit(tmp_path: Path) -> None:
    journal = Journal(tmp_path, limit_bytes=100_000)
    for number in range(10):
        put(journal, number, b"x" * 30_000)
        assert journal.usage().bytes <= 100_000
    assert [number for number in range(10) if stored(loaded(tmp_path), number)] == [7, 8, 9]
    put(journal, 10, b"x" * 200_000)
    assert [number for number in range(11) if stored(loaded(tmp_path), number)] == [10]
    few = Journal(tmp_path, limit_records=3)
    few.load()
    for number in range(20, 25):
        put(few, number, b"small")
    assert [number for number in range(30) if stored(loaded(tmp_path), number)] == [22, 23, 24]
    assert few.prune(limit_bytes=0) > 0
    assert list(tmp_path.iterdir()) == []


def test_without_a_limit_the_disk_sets_one(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    put(journal, 1, b"one")
    put(journal, 2, b"two")
    assert (stored(journal, 1), stored(journal, 2)) == ([b"one"], [b"two"])
    assert Journal(tmp_path / "absent").prune() == 0


TIDYING = """
import sys
from pathlib import Path
from tests.unit.test_journal_store import loaded
for _ in range(20):
    loaded(Path(sys.argv[1])).tidy()
"""


def test_several_may_write_and_tidy_at_once(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    command = [sys.executable, "-c", TIDYING, str(tmp_path)]
    put(journal, 0, b"x")
    others = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(2)]
    for number in range(100):
        put(journal, number, b"x")
    for other in others:
        assert other.communicate(timeout=60)[1] == b""
    assert [number for number in range(100) if stored(loaded(tmp_path), number) != [b"x"]] == []
