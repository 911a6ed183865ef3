"""Rain's event log is read without disturbing its writer."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from rain_deploy.node.points.events import read_events

TABLE = """CREATE TABLE events (id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, timestamp TEXT NOT NULL,
    event_type VARCHAR(14) NOT NULL, session INTEGER, event TEXT NOT NULL)"""
INSERT = "INSERT INTO events (timestamp, event_type, session, event) VALUES (?, ?, ?, ?)"


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "with space#and?marks" / "events.db"
    path.parent.mkdir()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(TABLE)
        connection.commit()
    return path


@pytest.fixture
def writer(database: Path) -> Iterator[sqlite3.Connection]:
    """One that gives up at once when it finds a lock: stricter than Rain, which waits 5 s and then dies."""
    connection = sqlite3.connect(database, timeout=0)
    yield connection
    connection.close()


def write(connection: sqlite3.Connection, count: int) -> None:
    rows = [("2026-11-24T08:30:57+00:00", "Dummy", None, json.dumps({"n": n})) for n in range(count)]
    with connection:
        connection.executemany(INSERT, rows)


def test_events_come_in_steps_in_order(database: Path, writer: sqlite3.Connection) -> None:
    write(writer, 1200)
    steps, last = [], 0
    while events := read_events(database, last):
        steps.append([event.id for event in events])
        last = events[-1].id
    assert [len(step) for step in steps] == [500, 500, 200]
    assert sum(steps, []) == list(range(1, 1201))  # noqa: RUF017 - three lists


def test_an_absent_or_empty_file_has_no_events(tmp_path: Path) -> None:
    assert read_events(tmp_path / "events.db", 0) == ()
    (tmp_path / "events.db").touch()
    assert read_events(tmp_path / "events.db", 0) == ()


def test_what_is_not_committed_is_not_read(database: Path, writer: sqlite3.Connection) -> None:
    writer.execute("PRAGMA cache_spill = ON")
    writer.execute("PRAGMA cache_size = 2")  # so that uncommitted pages are in the file
    writer.execute("BEGIN")
    writer.executemany(INSERT, [("t", "Dummy", None, json.dumps({"n": "x" * 900}))] * 200)
    assert read_events(database, 0) == ()
    writer.commit()
    assert len(read_events(database, 0)) == 200


def test_a_writer_never_finds_the_log_locked(database: Path, writer: sqlite3.Connection) -> None:
    stop = threading.Event()
    read: list[int] = []

    def reader() -> None:
        while not stop.is_set():
            read.extend(event.id for event in read_events(database, read[-1] if read else 0))

    thread = threading.Thread(target=reader)
    thread.start()
    try:
        for _ in range(300):
            write(writer, 5)  # raises OperationalError "database is locked" if the reader locks
    finally:
        stop.set()
        thread.join()
    read.extend(event.id for event in read_events(database, read[-1] if read else 0))
    while events := read_events(database, read[-1]):
        read.extend(event.id for event in events)
    assert read == list(range(1, 1501))
