"""``down``: results come home, then nothing of the cluster is left, and that is proved."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.local.command_line import CommandLine, LocalCluster, listening, living_in
from tests.local.conftest import MakeCluster, MakeHome
from tests.local.scripts import WAITS
from tests.support.processes import kill
from tests.support.results import verify
from tests.support.waiting import wait_for

KEPT = {
    "cache",
    "logs",
    "durations.json",
    "journal",
    "state.sqlite",
    "local",
    "local/cache",
    "local/nodes",
    "local/clusters",
    "local/tmp",
    "locks",
    "clusters",
}
"""What a home keeps when its last cluster is down; those of them that are directories are empty, but logs."""


@pytest.fixture
def cluster(make_cluster: MakeCluster, tmp_path: Path) -> Iterator[LocalCluster]:
    """Of the test's own, with a script that waits."""
    made = make_cluster(2)
    (tmp_path / "waits.py").write_text(WAITS)
    yield LocalCluster(made.line.at(tmp_path), made.name)
    made("down", "--yes", "--discard-results")


def finished(cluster: LocalCluster, directory: Path) -> Path:
    """A detached run that has ended and is not pulled; where its results belong."""
    (directory / "go").touch()
    told = cluster.well("run", "--json", "--detach", "waits.py", str(directory / "go"))
    wait_for(lambda: cluster.well("runs", "--json").result["runs"][-1]["outcome"] == "done")
    return Path(told.result["results_dir"])


def left(line: CommandLine) -> set[str]:
    """What lies in the home, caches and the command line's own logs not looked into."""
    found = {str(path.relative_to(line.home)) for path in line.home.rglob("*")}
    return {name for name in found if not name.startswith(("cache/", "local/cache/", "logs/"))}


def prefix(cluster: LocalCluster) -> str:
    """What the addresses of its nodes begin with, ``127.1.2.``."""
    nodes = cluster.well("status", "--json").result["nodes"]
    return str(nodes[0]["address"]).rpartition(".")[0] + "."


@pytest.mark.smoke
def test_down_brings_home_what_is_not_home_leaves_nothing_and_proves_it(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    out = finished(cluster, tmp_path)
    addresses, identity = prefix(cluster), cluster.id
    assert len(set(listening(addresses))) > 4
    told = cluster.well("down", "--json")
    assert told.result["pulled"] == [out.name]
    assert ((out / "files/late.txt").read_text(), verify(out)) == ("late", ())
    assert told.result["deleted"] == ["node node-1", "node node-2"]
    certificate = "\n".join(told.result["certificate"])
    for node in ("node-1", "node-2"):
        assert f"{node}: no processes" in certificate
        assert f"{node}: no listening" in certificate
        assert f"{node}: no files" in certificate
    assert "no resource of" in certificate

    assert living_in(cluster.line.home) == {}
    assert set(listening(addresses)) == set()
    assert left(cluster.line) <= KEPT
    assert [path for path in cluster.line.home.rglob("*") if identity in path.name] == []
    assert "is not recorded on this machine" in cluster.well("down").stdout
    again = cluster.well("down", "--json").result
    assert (again["nothing"], again["deleted"]) == (True, [])


def test_an_active_run_is_asked_about_and_cancelled_with_yes(cluster: LocalCluster, tmp_path: Path) -> None:
    run = cluster.start("run", "--json", "waits.py", str(tmp_path / "never"))
    run.wait_for("begun\n")
    before = cluster.processes()
    refused = cluster("down", "--json")
    assert refused.exit_code == 2
    assert "Cancel it?" in refused.error["message"]
    assert cluster.processes() == before
    down = cluster.well("down", "--yes", "--json").result
    told = run.ended()
    assert told.exit_code in {43, 30, 10}, told
    (out,) = (tmp_path / "results").iterdir()
    assert down["pulled"] in ([out.name], [])
    assert ((out / "files/early.txt").read_text(), verify(out)) == ("early", ())
    assert living_in(cluster.line.home) == {}


def test_discarded_results_are_not_pulled(cluster: LocalCluster, tmp_path: Path) -> None:
    out = finished(cluster, tmp_path)
    assert cluster.well("down", "--discard-results", "--json").result["pulled"] == []
    assert not out.exists()
    assert living_in(cluster.line.home) == {}


def test_results_that_cannot_be_written_keep_the_cluster(cluster: LocalCluster, tmp_path: Path) -> None:
    out = finished(cluster, tmp_path)
    out.parent.write_text("a file where a directory should be")
    before = cluster.at_rest()
    told = cluster("down", "--json")
    assert told.exit_code == 50
    assert "--out" in told.error["next"]
    assert cluster.processes() == before
    assert (cluster.directory / "runs" / out.name / "files/late.txt").exists()
    down = cluster.well("down", "--out", "saved", "--json").result
    assert down["pulled"] == [out.name]
    assert verify(tmp_path / "saved" / out.name) == ()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="needs root and unshare")
def test_a_full_disk_keeps_the_cluster(cluster: LocalCluster, tmp_path: Path) -> None:
    (tmp_path / "waits.py").write_text("open('large', 'wb').write(bytes(range(256)) * 12000)")
    out = finished(cluster, tmp_path)
    out.parent.mkdir()
    before = cluster.at_rest()
    mounted = f'mount -t tmpfs -o size=1m none "{out.parent}" && exec "$@"'
    full = CommandLine(
        cluster.line.home,
        tmp_path,
        prefix=("unshare", "-m", "--propagation", "private", "sh", "-c", mounted, "sh"),
    )
    told = full("down", "-c", cluster.name, "--json")
    assert told.exit_code == 50
    assert "disk is full" in told.error["message"]
    assert cluster.processes() == before
    assert cluster.well("down", "--json").result["pulled"] == [out.name]
    assert verify(out) == ()


@pytest.mark.parametrize("moment", ["stop: processes", "remove: files"])
def test_a_down_that_was_killed_is_brought_to_its_end_by_the_next(cluster: LocalCluster, moment: str) -> None:
    killed = cluster.start("down")
    killed.wait_for(moment)
    killed.kill()
    cluster.well("down")
    assert living_in(cluster.line.home) == {}
    assert left(cluster.line) <= KEPT


def test_down_finds_what_its_nodes_left_when_their_ssh_servers_are_dead(cluster: LocalCluster) -> None:
    kill(*cluster.processes(None, "ssh"), *cluster.processes(2, "keeper"))
    cluster.well("down")
    assert living_in(cluster.line.home) == {}
    assert left(cluster.line) <= KEPT


def test_a_process_that_hides_from_its_service_is_found_all_the_same(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    hidden = "import os, signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"
    (tmp_path / "hides.py").write_text(
        "import os, subprocess, sys\n"
        "env = {name: value for name, value in os.environ.items() if 'SERVICE' not in name}\n"
        f"subprocess.Popen([sys.executable, '-c', {hidden!r}], env=env, start_new_session=True)\n"
    )
    cluster.run("hides.py")
    assert len(living_in(cluster.line.home)) > len(cluster.processes())
    cluster.well("down")
    assert living_in(cluster.line.home) == {}


def test_a_home_without_clusters_has_nothing_to_take_down(make_home: MakeHome) -> None:
    line = make_home()
    assert line.well("down", "--json").result["nothing"]
    assert subprocess.run(["ls", line.home / "local/nodes"], capture_output=True, check=False).stdout == b""
