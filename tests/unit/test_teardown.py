"""The stages of ``down``, executed by a user without root: they make nothing, and remove what refuses."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from rain_deploy.core.cluster import Cluster, Node
from rain_deploy.core.machine import Host
from rain_deploy.core.step import Stage
from rain_deploy.parts.services import remove_stage, stop_stage
from rain_deploy.parts.shell import stage_command
from rain_deploy.providers.local.server import remove_tree
from tests.support.stranger import STRANGER, given_to, without_root


@dataclass
class Place:
    """A base directory with the files of one cluster."""

    base: Path

    @property
    def cluster(self) -> Cluster:
        host = Host("node-1", "127.0.0.1", 22, "me", ())
        return Cluster("c1", "one", "hosts", 0.0, nodes=(Node("node-1", host),), base=str(self.base))

    @property
    def files(self) -> Path:
        return Path(self.cluster.layout.cluster)

    def run(self, stage: Stage) -> subprocess.CompletedProcess[str]:
        """What the stage does in the hands of a user without root."""
        user = {"user": STRANGER, "group": STRANGER, "extra_groups": ()} if os.geteuid() == 0 else {}
        argv = stage_command(stage, str(self.base)).argv
        return subprocess.run(argv, capture_output=True, text=True, check=False, **user)  # type: ignore[call-overload,no-any-return]

    def ends(self) -> None:
        """Both stages end well, and nothing of the cluster is left."""
        (node,) = self.cluster.nodes
        for stage in (stop_stage(self.cluster, node), remove_stage(self.cluster, wall=False)):
            done = self.run(stage)
            assert done.returncode == 0, done.stderr
        assert not self.files.exists()


@pytest.fixture
def place() -> Iterator[Place]:
    top = Path(tempfile.mkdtemp())  # pytest's own directories are closed to others
    top.chmod(0o755)
    place = Place(top / "base")
    (place.files / "nodes/1").mkdir(parents=True)
    (place.files / "nodes/1/node.json").write_text("{}")
    (place.files / "runs/r1/files/m").mkdir(parents=True)
    (place.files / "runs/r1/files/m/f").write_text("x")
    if os.geteuid() == 0:
        given_to(place.base, STRANGER)
    yield place
    remove_tree(top)
    shutil.rmtree(top, ignore_errors=True)


REFUSING = {
    "a directory that a script made read-only": ("runs/r1/files/m", 0o555),
    "one that cannot even be read": ("runs/r1/files/m", 0),
    "the directory of a node": ("nodes/1", 0o555),
    "the directory of the cluster": (".", 0o555),
    "the directory above it": ("..", 0o555),
    "the base directory": ("../..", 0o555),
}


@pytest.mark.parametrize("what", REFUSING)
def test_what_refuses_its_owner_is_removed_all_the_same(place: Place, what: str) -> None:
    name, mode = REFUSING[what]
    (place.files / name).resolve().chmod(mode)
    place.ends()


def test_a_link_is_removed_and_what_it_points_to_keeps_its_mode(place: Place) -> None:
    outside = place.base.parent / "outside"
    outside.mkdir(mode=0o500)
    (place.files / "runs/r1/files/m/link").symlink_to(outside)
    (place.files / "runs/r1/files/m").chmod(0o555)
    place.ends()
    assert outside.stat().st_mode & 0o777 == 0o500


def test_nothing_is_made_where_nothing_is_left(place: Place) -> None:
    """The machine was installed anew, or its directory was deleted by hand."""
    shutil.rmtree(place.base)
    place.base.parent.chmod(0o555)
    place.ends()
    assert list(place.base.parent.iterdir()) == []


def test_what_cannot_be_removed_is_named(place: Place) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    os.chown(place.files / "runs/r1/files/m", 0, 0)
    done = place.run(remove_stage(place.cluster, wall=False))
    assert done.returncode == 1
    assert "runs/r1/files/m/f" in done.stderr


def test_a_local_node_whose_files_refuse_their_owner_goes_too(tmp_path: Path) -> None:
    for name, mode in (("a/b", 0o555), ("c/d", 0), ("e", 0o555)):
        (tmp_path / "node" / name).mkdir(parents=True)
        (tmp_path / "node" / name / "file").touch()
        (tmp_path / "node" / name).chmod(mode)
    without_root(tmp_path, lambda: remove_tree(tmp_path / "node"))
    assert not (tmp_path / "node").exists()
