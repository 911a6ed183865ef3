"""Another node code under a cluster that runs: its services go on as that code, and a run notices nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.local.command_line import LocalCluster
from tests.local.conftest import MakeCluster
from tests.local.scripts import WAITS
from tests.support.waiting import wait_for


@pytest.fixture
def cluster(make_cluster: MakeCluster, tmp_path: Path) -> Iterator[LocalCluster]:
    made = make_cluster(1)
    (tmp_path / "waits.py").write_text(WAITS)
    yield LocalCluster(made.line.at(tmp_path), made.name)
    made("down", "--yes", "--discard-results")


def upgrade(cluster: LocalCluster) -> str:
    """Put other code there, as the first half of an ``up`` does that is stopped before it starts services."""
    path = cluster.directory / "nodes/1/node.json"
    config = json.loads(path.read_text())
    new = str(cluster.directory / "newer code")
    shutil.copytree(config["code"], new)
    draft = path.with_name("draft")
    draft.write_text(json.dumps({**config, "code": new}))
    draft.rename(path)
    return new


def code_of(pid: int) -> str:
    """Empty at the moment in which a process becomes another program."""
    words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    return words[3] if len(words) > 3 else ""


@pytest.mark.parametrize("running", [False, True])
def test_services_go_on_as_the_new_code(cluster: LocalCluster, tmp_path: Path, *, running: bool) -> None:
    run = cluster.start("run", "--json", "waits.py", str(tmp_path / "go"))
    if running:
        run.wait_for("begun")
    else:
        (tmp_path / "go").touch()
        assert run.ended().exit_code == 0
        cluster.await_governors(1)
    before = cluster.processes()
    new = upgrade(cluster)
    services = cluster.processes(1, "keeper", "supervisor")
    wait_for(lambda: {code_of(pid) for pid in services} == {new}, describe=lambda: str(services))
    if running:
        (tmp_path / "go").touch()
        assert run.ended().result["outcome"] == "done"
        cluster.await_governors(1)
    else:
        assert cluster.processes() == before
    assert cluster.processes(1, "keeper", "supervisor") == services
    cluster.run("waits.py", str(tmp_path / "go"))
