"""``logs --boot``: a rented machine's own account of its first boot."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rain_deploy.cluster.context import Context
from rain_deploy.core.cluster import Bill, Cluster, Node
from rain_deploy.core.machine import Host
from rain_deploy.errors import InputError
from rain_deploy.fleet.fanout import SshExecutor
from rain_deploy.state.store import Store
from rain_deploy.transport.local import LocalTransport
from rain_deploy.verbs.logs import NodeLog, node_log
from tests.unit.fake_application import QUOTE, no_provider

NODES = tuple(Node(f"node-{n}", Host(f"node-{n}", f"127.5.0.{n}", 22, "me", ())) for n in (1, 2))
RENTED = Cluster("ab12", "rented", "exoscale", 1.8e9, NODES, bill=Bill(QUOTE))


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    store = Store(tmp_path / "home")
    for cluster in (RENTED, replace(RENTED, id="cd34", name="mine", provider="hosts", bill=None)):
        store.save_cluster(cluster)
    return Context(
        tmp_path,
        store,
        LocalTransport(),
        LocalTransport(),
        no_provider,
        print,
        lambda _: True,
        tmp_path,
        SshExecutor(LocalTransport()),
    )


def test_a_light_machine_says_that_it_has_none(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAIN_DEPLOY_MACHINE", "/nowhere")
    said = node_log(ctx, "rented", 2, NodeLog.BOOT)
    assert (said.source, said.node, said.stdout) == ("boot", "node-2", b"")
    assert said.stderr == b"light machines do not boot: there is no log of a first boot\n"


def test_machines_that_we_did_not_boot_have_none(ctx: Context) -> None:
    with pytest.raises(InputError, match="the machines of mine were not booted by rain-deploy"):
        node_log(ctx, "mine", None, NodeLog.BOOT)
