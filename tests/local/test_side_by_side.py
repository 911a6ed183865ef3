"""Clusters side by side in one home: each runs, neither sees the other."""

from __future__ import annotations

from pathlib import Path

from tests.local.command_line import LocalCluster
from tests.local.conftest import MakeCluster
from tests.local.scripts import SQUARES

MEETS = """\
import pathlib, sys, time
mine, other = map(pathlib.Path, sys.argv[1:])
mine.touch()
while not other.exists():
    time.sleep(0.02)
"""
"""Ends only when the other script runs at the same time."""


def test_two_clusters_run_a_sweep_at_the_same_time(
    shared: LocalCluster, make_cluster: MakeCluster, tmp_path: Path
) -> None:
    made = make_cluster(2, line=shared.line)
    second = LocalCluster(shared.line.at(tmp_path), made.name)
    before = shared.processes()
    assert set(second.processes()).isdisjoint(before)
    (tmp_path / "meets.py").write_text(MEETS + SQUARES)
    places = [str(tmp_path / "a"), str(tmp_path / "b")]
    runs = [shared.start("run", "--json", "meets.py", *places)]
    runs.append(second.start("run", "--json", "meets.py", *reversed(places)))
    results = [run.ended().result for run in runs]
    assert [(result["outcome"], result["points"]) for result in results] == [("done", 20)] * 2
    assert results[0]["results_dir"] != results[1]["results_dir"]
    assert shared.processes(None, "ssh", "keeper", "supervisor").items() <= before.items()
    second.well("down")
    assert second.line.clusters() == [one for one in shared.line.clusters() if one["name"] == shared.name]
    shared.await_governors(2)
    assert len(shared.run("meets.py", places[0], places[0]).name) > 0
