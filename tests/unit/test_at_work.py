"""A cluster that another command is making or changing: verbs say so, and do not call it broken."""

from __future__ import annotations

import json
import os
import socket
import time
from dataclasses import replace
from pathlib import Path

import pytest

from rain_deploy.cluster.lookup import living, recorded
from rain_deploy.errors import InputError, Locked
from rain_deploy.verbs.list import list_clusters
from rain_deploy.verbs.status import status
from tests.unit.fake_cloud import World

AT_WORK = rf"`up` \(process {os.getppid()} on .+, for 12 s\)"


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World.at(tmp_path)
    world.nodes.said["status"] = {"services": {"keeper": 1}, "governor": {"ready": True}, "runs": []}
    return world


def at_work(world: World, verb: str, cluster: str = "one", pid: int | None = None) -> None:
    note = {
        "verb": verb,
        "pid": pid or os.getppid(),
        "host": socket.gethostname(),
        "since_s": time.time() - 12,
    }
    path = world.ctx.home / "locks" / f"{cluster}.lock"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(note))


def test_what_another_up_has_not_finished_is_not_called_a_failure(world: World) -> None:
    cluster = world.cluster()
    world.ctx.store.save_cluster(replace(cluster, up=False))
    with pytest.raises(InputError, match="did not finish"):
        living(world.ctx, "one")
    at_work(world, "up")
    with pytest.raises(Locked, match=f"cluster one is not up: {AT_WORK} is at work on it") as caught:
        living(world.ctx, "one")
    assert caught.value.next_step == "try again when that has ended; rain-deploy status -c one shows it"
    result = status(world.ctx, "one")
    assert result.changing.startswith("`up` (process ")
    assert result.drift[0] == f"{result.changing} has not finished yet"
    assert [line.changing for line in list_clusters(world.ctx).clusters] == ["up"]


def test_a_cluster_that_is_not_on_record_yet_is_being_made(world: World) -> None:
    at_work(world, "up", "new")
    with pytest.raises(Locked, match=f"cluster new is not up: {AT_WORK} is at work on it"):
        recorded(world.ctx, "new")


@pytest.mark.parametrize(
    ("verb", "pid"),
    [("run", None), ("up", os.getpid()), ("up", 2**22 + 1)],
    ids=["a run", "ours", "killed"],
)
def test_a_run_our_own_command_and_one_that_was_killed_change_nothing(
    world: World, verb: str, pid: int | None
) -> None:
    world.cluster()
    at_work(world, verb, pid=pid)
    assert (status(world.ctx, "one").changing, status(world.ctx, "one").drift) == ("", ())
    assert [line.changing for line in list_clusters(world.ctx).clusters] == [""]
