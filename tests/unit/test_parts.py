"""The list of parts: what a node lacks, in which order it comes, and what is refused before any change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.install import bring_up
from rain_deploy.core.cluster import Cluster, Node, Traits
from rain_deploy.core.events import EventSink
from rain_deploy.core.machine import Disk, Facts, Host
from rain_deploy.core.spec import ClusterSpec, EngineSpec, ResolvedEnvironment
from rain_deploy.core.step import Stage
from rain_deploy.errors import InputError, RainDeployError
from rain_deploy.fleet.fanout import Outcomes, StageReport
from rain_deploy.parts.facts import DEBIAN_12, NEW_MACHINE
from rain_deploy.parts.listed import parts
from rain_deploy.parts.part import Shared, lacking, planned, refusals
from rain_deploy.providers.base import Provider
from rain_deploy.state.store import Record, Store
from rain_deploy.transport.local import LocalTransport

DEBIAN_13 = replace(DEBIAN_12, glibc="2.41", python="")
"""It has Python 3.13."""
UBUNTU_24_04 = replace(DEBIAN_12, uid=1000, user="ubuntu", sudo=True, glibc="2.39", python="")
"""It has Python 3.12."""
CLOUD = Traits(owned=True, installs_packages=True, needs_wall=False, shared_machine=False)
HOSTS = replace(CLOUD, owned=False, needs_wall=True)
LOCAL = replace(CLOUD, installs_packages=False, shared_machine=True)
ENVIRONMENT = ResolvedEnvironment("x==0 --hash=sha256:00\n")
OPEN = (
    "the Rain ports would be open to every machine that reaches node-1: there is no root for a packet filter "
    "there, and no trusted network is named"
)
ENGINE = "e" * 64


def shared(*facts: Facts, traits: Traits = HOSTS, engine: str = ENGINE, up: bool = False) -> Shared:
    """A cluster whose nodes have these facts, and nothing of ours."""
    nodes = tuple(
        Node(
            f"node-{n}",
            Host(f"node-{n}", f"10.0.0.{n}", 22, "me", ("k",)),
            each,
            f"10.0.0.{n}",
            7300 + n,
            2,
        )
        for n, each in enumerate(facts, 1)
    )
    cluster = Cluster(
        "ab12",
        "one",
        "hosts",
        0.0,
        nodes,
        base="/var/lib/rain-deploy",
        env_digest="d",
        engine_sha256=engine,
        code_digest="c",
        up=up,
    )
    new = frozenset() if up else frozenset(node.name for node in nodes)
    return Shared(cluster, traits, ENVIRONMENT, EngineSpec(), new=new)


def names(made: Shared) -> list[tuple[str, list[str]]]:
    """Stages in order, each with the nodes that get it."""
    every = planned(parts(made), made.cluster.nodes)
    return [(next(iter(stages.values())).name, list(stages)) for stages in every]


def refused(made: Shared) -> list[tuple[str | None, str]]:
    return [(error.node, error.message) for error in refusals(parts(made), made.cluster.nodes)]


def test_machines_of_the_user_get_the_wall_before_anything_listens() -> None:
    both = ["node-1", "node-2"]
    made = shared(DEBIAN_12, DEBIAN_12)
    assert names(made) == [("install", both), ("wall", both), ("start", both)]


def test_new_machines_boot_and_get_a_host_key_of_their_own_first() -> None:
    made = shared(NEW_MACHINE, traits=CLOUD)
    assert [name for name, _ in names(made)] == ["boot", "new host key", "install", "start"]


def test_a_node_that_has_everything_gets_nothing_and_only_a_new_one_the_rest() -> None:
    made = shared(DEBIAN_12, DEBIAN_12, traits=LOCAL)
    complete = tuple(
        node if name == "node-2" else _complete(made, node)
        for name, node in ((node.name, node) for node in made.cluster.nodes)
    )
    grown = replace(made, cluster=replace(made.cluster, nodes=complete))
    assert names(grown) == [("install", ["node-2"]), ("start", ["node-1", "node-2"])]
    whole = replace(grown, cluster=replace(made.cluster, nodes=tuple(_complete(made, n) for n in complete)))
    assert names(whole) == []
    assert [lacking(parts(whole), node) for node in whole.cluster.nodes] == [(), ()]


def _complete(made: Shared, node: Node) -> Node:
    for part in parts(made):
        node = part.done(node)
    return node


def test_environment_and_engine_are_made_at_the_same_time() -> None:
    made = shared(replace(DEBIAN_12, missing_tools=("capnp",)), DEBIAN_12, engine="")
    first = next(planned(parts(made), made.cluster.nodes))
    rows = {name: [(step.name, step.parallel) for step in stage.steps] for name, stage in first.items()}
    assert rows == {
        "node-1": [
            ("node code", False),
            ("uv", False),
            ("build tools", False),
            ("environment", True),
            ("engine build", True),
        ],
        "node-2": [("node code", False), ("uv", False), ("environment", True)],
    }
    assert all(stage.installs for stage in first.values())


@pytest.mark.parametrize("facts", [DEBIAN_13, UBUNTU_24_04], ids=["Debian 13", "Ubuntu 24.04"])
@pytest.mark.parametrize("traits", [CLOUD, HOSTS], ids=["cloud", "hosts"])
def test_a_machine_without_python_3_11_is_refused_and_nothing_runs_there(
    tmp_path: Path, facts: Facts, traits: Traits
) -> None:
    made = shared(DEBIAN_12, facts, traits=traits)
    assert refused(made) == [("node-2", "there is no Python 3.11, which Rain's client needs")]
    ctx = context(tmp_path)
    with pytest.raises(InputError, match=r"no Python 3\.11") as caught:
        bring_up(ctx, Record(ctx.store, "one"), ClusterSpec("one", "hosts", "test"), made)
    assert caught.value.node == "node-2"
    assert "Debian 12" in (caught.value.next_step or "")


def test_a_node_that_has_its_environment_needs_no_python_of_the_system() -> None:
    made = shared(DEBIAN_13)
    node = _complete(made, made.cluster.server)
    assert refused(replace(made, cluster=replace(made.cluster, nodes=(node,)))) == []


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        (replace(DEBIAN_12, arch="aarch64"), "it is aarch64; nodes are x86-64 Linux"),
        (
            replace(DEBIAN_12, disk_free_bytes=2 << 30),
            "2048 MiB of disk are free at /var/lib/rain-deploy; 6144 MiB are needed",
        ),
        (
            replace(DEBIAN_12, disks=(Disk("/var/lib/rain-deploy", "/var/lib", 2 << 30),)),
            "2048 MiB of disk are free at /var/lib; 6144 MiB are needed",
        ),
        (
            replace(DEBIAN_12, disks=(Disk("/var/lib/rain-deploy", "/", 9 << 30, "mounted read-only"),)),
            "/ is mounted read-only; rain-deploy needs /var/lib/rain-deploy on it",
        ),
        (
            replace(DEBIAN_12, uid=1000, user="ubuntu", route_address="10.0.0.1"),
            OPEN,
        ),
    ],
    ids=["architecture", "disk", "measured disk", "read-only", "wall"],
)
def test_what_a_machine_cannot_be_given_is_refused(facts: Facts, message: str) -> None:
    assert refused(shared(facts)) == [("node-1", message)]


def test_the_disk_of_the_chosen_base_counts_and_no_other() -> None:
    disks = (
        Disk("/var/lib/rain-deploy", "/var/lib", 90 << 30),
        Disk("/var/tmp/rain-deploy-7", "/var/tmp", 1, "mounted noexec"),
    )
    assert refused(shared(replace(DEBIAN_12, disks=disks))) == []
    assert refused(shared(replace(DEBIAN_12, disk_free_bytes=1, disks=disks))) == []


def test_packages_and_set_up_need_root_also_where_they_were_installed() -> None:
    made = replace(
        shared(replace(DEBIAN_12, uid=1000, user="ubuntu"), traits=LOCAL),
        environment=replace(ENVIRONMENT, apt=("libgomp1",)),
    )
    for each in (
        made,
        replace(made, cluster=replace(made.cluster, nodes=(_complete(made, made.cluster.server),))),
    ):
        ((node, message),) = refused(each)
        assert (node, "`apt` and `setup` need root" in message) == ("node-1", True)


class NoExecutor:
    """Implements Executor for a test in which nothing may reach a machine."""

    def run(self, stages: Mapping[Host, Stage], base: str, emit: EventSink) -> Outcomes[StageReport]:
        raise AssertionError((stages, base, emit))


def context(place: Path) -> Context:
    def no_provider(name: str) -> Provider:
        raise RainDeployError(name)

    return Context(
        place,
        Store(place),
        LocalTransport(),
        LocalTransport(),
        no_provider,
        print,
        lambda _: True,
        place,
        NoExecutor(),
    )
