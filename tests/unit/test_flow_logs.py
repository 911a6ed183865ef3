"""``logs --node`` and ``--boot``: what services and tasks printed, and how a machine first booted."""

from __future__ import annotations

import os
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


def test_a_node_shows_what_its_services_and_tasks_printed_the_newest_last(ctx: Context) -> None:
    cluster = replace(RENTED, name="own", bill=None, base=str(ctx.home / "with space"))
    ctx.store.save_cluster(cluster)
    epochs = "nodes/2/governor/epochs"
    printed = {
        "nodes/2/governor/keeper.log": "kept",
        f"{epochs}/9/governor.log": "ninth",
        f"{epochs}/9/log/executors/executor-1.out": "printed by a task",
        f"{epochs}/10/log/executors/executor-1.err": "warned by a task",
        f"{epochs}/10/governor.log": "tenth",
        f"{epochs}/10/log/executors/executor-2.out": "",
        f"{epochs}/10/work/data.log.txt": "no log",
        "server/supervisor.log": "supervised",
        "nodes/1/governor/keeper.log": "another node",
        "runs/r1/stdout.log": "the script's",
    }
    for number, (name, words) in enumerate(printed.items()):
        path = Path(cluster.layout.cluster, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{words}\n" if words else "")
        os.utime(path, (number, number))
    shown = node_log(ctx, "own", 2, NodeLog.SERVICES).stdout.decode()
    assert [line for line in shown.splitlines() if not line.startswith("==>")] == [
        *("kept", "ninth", "printed by a task", "warned by a task", "tenth"),
    ]
    assert "==> governor/epochs/9/log/executors/executor-1.out <==\nprinted by a task\n" in shown
    server = node_log(ctx, "own", 1, NodeLog.SERVICES).stdout.decode()
    assert [line for line in server.splitlines() if not line.startswith("==>")] == [
        "supervised",
        "another node",
    ]
