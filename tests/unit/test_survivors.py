"""``--min-nodes``: a cluster goes on without some nodes, never without its server."""

from __future__ import annotations

from pathlib import Path

import pytest

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.hosts import survivors
from rain_deploy.core.events import Event, Notice
from rain_deploy.core.spec import ClusterSpec
from rain_deploy.errors import InstallFailed, RainDeployError
from rain_deploy.fleet.fanout import SshExecutor
from rain_deploy.providers.hosts.provider import HostsProvider
from rain_deploy.state.store import Store
from rain_deploy.transport.local import LocalTransport

NAMES = ("node-1", "node-2", "node-3")


def left_over(tmp_path: Path, failed: str, min_nodes: int | None) -> tuple[tuple[str, ...], list[Event]]:
    seen: list[Event] = []
    ctx = Context(
        home=tmp_path,
        store=Store(tmp_path),
        transport=LocalTransport(),
        local=LocalTransport(),
        provider_for=lambda _: HostsProvider(),
        emit=seen.append,
        confirm=lambda _: True,
        cwd=tmp_path,
        executor=SshExecutor(LocalTransport()),
    )
    spec = ClusterSpec("default", "hosts", "named", min_nodes=min_nodes)
    errors: dict[str, RainDeployError] = {failed: InstallFailed("no disk")} if failed else {}
    return survivors(ctx, spec, NAMES, errors), seen


def test_without_the_flag_every_node_is_needed(tmp_path: Path) -> None:
    assert left_over(tmp_path, "", None) == (NAMES, [])
    with pytest.raises(InstallFailed, match="no disk"):
        left_over(tmp_path, "node-3", None)


def test_with_it_the_cluster_goes_on_and_says_without_whom(tmp_path: Path) -> None:
    left, seen = left_over(tmp_path, "node-3", 2)
    assert left == ("node-1", "node-2")
    assert seen == [Notice("node-3 is left out: no disk")]


@pytest.mark.parametrize(
    ("failed", "min_nodes"), [("node-3", 3), ("node-1", 1)], ids=["too few", "no server"]
)
def test_too_few_or_no_server_is_the_error(tmp_path: Path, failed: str, min_nodes: int) -> None:
    with pytest.raises(InstallFailed, match="no disk"):
        left_over(tmp_path, failed, min_nodes)
