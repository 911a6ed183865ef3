"""How busy nodes are, from what their governors report to Rain's event log."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from rain_deploy.node.files import write_json
from rain_deploy.node.load import load_line
from rain_deploy.node.run import Run
from rain_deploy.node.wire import ClusterConfig, Member, RunDescription

REPORTS = [
    {"governor": "10.0.0.1:7301", "cpu_usage": []},  # the first has no number yet
    {"governor": "10.0.0.1:7301", "cpu_usage": [10, 30]},
    {"governor": "10.0.0.2:7302", "cpu_usage": [100]},
    {"governor": "10.0.0.1:7301", "cpu_usage": [90, 95]},
]


def the_run(tmp_path: Path, reports: list[object]) -> Run:
    run = Run(tmp_path / "runs/r1", RunDescription(run="r1", sequence=1, port=1, script="s.py"))
    members = (
        Member(name="node-1", address="10.0.0.1", governor_port=7301),
        Member(name="node-2", address="10.0.0.2", governor_port=7302),
    )
    write_json(tmp_path / "server/cluster.json", ClusterConfig(nodes=members))
    log = run.attempt_dir / "log"
    log.mkdir(parents=True)
    with sqlite3.connect(log / "events.db") as database:
        database.execute("CREATE TABLE events (id INTEGER PRIMARY KEY, event_type TEXT, event TEXT)")
        rows = [
            ("Monitoring", report if isinstance(report, str) else json.dumps(report)) for report in reports
        ]
        database.executemany("INSERT INTO events (event_type, event) VALUES (?, ?)", rows)
    database.close()
    return run


def test_the_newest_report_of_each_node_counts(tmp_path: Path) -> None:
    assert load_line(the_run(tmp_path, [*REPORTS]), tmp_path / "server").busy == {"node-1": 92, "node-2": 100}


@pytest.mark.parametrize("damage", ["{", "[]", '{"governor": "x"}', '{"governor": 1, "cpu_usage": [1]}', "7"])
def test_a_report_of_another_shape_breaks_nothing(tmp_path: Path, damage: str) -> None:
    busy = load_line(the_run(tmp_path, [REPORTS[2], damage]), tmp_path / "server").busy
    assert busy["node-2"] == 100


def test_without_a_log_nothing_is_known(tmp_path: Path) -> None:
    run = Run(tmp_path / "runs/r1", RunDescription(run="r1", sequence=1, port=1, script="s.py"))
    assert load_line(run, tmp_path / "server").busy == {}
    (run.attempt_dir / "log").mkdir(parents=True)
    (run.attempt_dir / "log/events.db").write_bytes(b"SQLite format 3\0" + b"\xff" * 4096)
    assert load_line(run, tmp_path / "server").busy == {}
