"""check, the dry run and up give the same answer about machines, from the same list of parts."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from rain_deploy.cluster.context import Context
from rain_deploy.core.cluster import Cluster, Node
from rain_deploy.core.events import EventSink
from rain_deploy.core.layout import ROOT_BASE
from rain_deploy.core.machine import Disk, Facts, Host, Machines
from rain_deploy.core.spec import ClusterSpec, EnvironmentSpec
from rain_deploy.core.step import Command, CommandResult, Stage
from rain_deploy.errors import InputError, InstallFailed
from rain_deploy.fleet.fanout import Outcomes, StageReport
from rain_deploy.parts.facts import DEBIAN_12
from rain_deploy.parts.software import refuse_template
from rain_deploy.providers.hosts.provider import HostsProvider
from rain_deploy.state.store import Store
from rain_deploy.transport.base import Chunk
from rain_deploy.transport.local import LocalTransport
from rain_deploy.verbs.check import check
from rain_deploy.verbs.up import plan, up
from tests.unit.fake_cloud import ME, PROVIDER, World

pytestmark = pytest.mark.skipif(shutil.which("ssh") is None, reason="no OpenSSH client here")

ADDRESS = "203.0.113.1"
KNOWN = replace(DEBIAN_12, route_address=ADDRESS)
DEBIAN_13 = replace(KNOWN, glibc="2.41", python="")
UBUNTU_24_04 = replace(KNOWN, uid=1000, user="ubuntu", sudo=True, glibc="2.39", python="")
SPEC = ClusterSpec("one", "hosts", "test", nodes=1, machines=Machines(hosts=(f"me@{ADDRESS}",)))
NO_PYTHON = "there is no Python 3.11, which Rain's client needs"


class Answers(LocalTransport):
    """A machine that is asked for its facts and nothing else."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts

    def run(
        self, host: Host, command: Command, *, on_stdout: Chunk | None = None, on_stderr: Chunk | None = None
    ) -> CommandResult:
        del host, on_stdout, on_stderr
        assert command.argv[3] == "facts"
        return CommandResult(0, json.dumps(dataclasses.asdict(self.facts)).encode(), b"")


@dataclass
class Refuses:
    """Implements Executor: notes which stages reach a machine, and lets them fail."""

    asked: list[str] = field(default_factory=list)

    def run(self, stages: Mapping[Host, Stage], base: str, emit: EventSink) -> Outcomes[StageReport]:
        del base, emit
        self.asked += [stage.name for stage in stages.values()]
        return Outcomes({}, {host.name: InstallFailed("no") for host in stages})


@dataclass
class User:
    """Somebody with one machine."""

    ctx: Context
    executor: Refuses

    def refusals(self, spec: ClusterSpec) -> tuple[list[str], str, str]:
        """What check, the dry run and up say against it."""
        lines = [line.text for line in check(self.ctx, spec).findings if line.state == "refused"]
        return lines, self._refused(spec, plan), self._refused(spec, up)

    def _refused(self, spec: ClusterSpec, verb: Callable[[Context, ClusterSpec], object]) -> str:
        with pytest.raises(InputError) as caught:
            verb(self.ctx, spec)
        assert caught.value.node == "node-1"
        return caught.value.message


def user(place: Path, facts: Facts) -> User:
    (place / ".ssh").mkdir()
    (place / ".ssh/config").touch()
    (place / ".ssh/known_hosts").write_text(f"{ADDRESS} ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{'A' * 43}\n")
    home, provider, executor = place / "home", HostsProvider(user_home=place), Refuses()
    home.mkdir(mode=0o700)
    store, transport = Store(home), Answers(facts)
    (host,) = provider.preview(provider.intents(SPEC, Cluster("ab12", "one", "hosts", 0.0), 1))
    store.save_facts(Node(host.name, host, facts))
    ctx = Context(
        home=home,
        store=store,
        transport=transport,
        local=transport,
        provider_for=lambda _: provider,
        emit=lambda _: None,
        confirm=lambda _: True,
        cwd=place,
        executor=executor,
    )
    return User(ctx, executor)


@pytest.mark.parametrize(
    ("facts", "refusal"),
    [
        (DEBIAN_13, NO_PYTHON),
        (UBUNTU_24_04, NO_PYTHON),
        (replace(KNOWN, arch="aarch64"), "it is aarch64; nodes are x86-64 Linux"),
        (
            replace(KNOWN, disk_free_bytes=1 << 30),
            "1024 MiB of disk are free at /var/lib/rain-deploy; 6144 MiB are needed",
        ),
        (
            replace(KNOWN, disks=(Disk(ROOT_BASE, "/var", 90 << 30, "mounted noexec"),)),
            f"/var is mounted noexec; rain-deploy needs {ROOT_BASE} on it",
        ),
    ],
    ids=["Debian 13", "Ubuntu 24.04", "architecture", "disk", "noexec"],
)
def test_what_up_refuses_check_and_the_dry_run_refuse_and_nothing_reaches_the_machine(
    tmp_path: Path, facts: Facts, refusal: str
) -> None:
    me = user(tmp_path, facts)
    assert me.refusals(SPEC) == ([refusal], refusal, refusal)
    assert me.executor.asked == []
    assert me.ctx.store.cluster("one") is None, "what up created is undone"


def test_packages_that_need_root_are_refused_by_all_three(tmp_path: Path) -> None:
    machines = replace(SPEC.machines, trust_networks=("203.0.113.0/24",))
    spec = replace(SPEC, machines=machines, environment=EnvironmentSpec(apt=("libgomp1",)))
    lines, planned, done = user(tmp_path, replace(KNOWN, uid=1000, user="ubuntu")).refusals(spec)
    assert lines == [planned] == [done]
    assert "`apt` and `setup` need root" in done


def test_what_check_says_would_be_done_is_what_the_dry_run_prints(tmp_path: Path) -> None:
    me = user(tmp_path, KNOWN)
    lines = [line.text for line in check(me.ctx, SPEC).findings if line.state == "change"]
    assert lines == [
        "the node code will be sent",
        "the Python environment will be installed (2 GB of disk)",
        "the Rain engine will be built (3 to 5 minutes)",
        "a packet filter table of ours will close the Rain ports",
        "governor and runner will be configured and started",
    ]
    (host,) = plan(me.ctx, SPEC).hosts
    assert [stage.stage for stage in host.stages] == ["facts", "install", "wall", "start"]


@pytest.mark.parametrize(
    "template",
    [
        "Linux Debian 13 (Trixie) 64-bit",
        "Linux Debian 11 (Bullseye) 64-bit",
        "Linux Ubuntu 22.04 LTS 64-bit",
        "Linux Ubuntu 24.04 LTS 64-bit",
    ],
)
def test_a_template_that_is_known_for_another_python_is_refused_before_it_is_paid_for(
    tmp_path: Path, template: str
) -> None:
    world = World.at(tmp_path)
    world.cloud.template = template
    spec = ClusterSpec("one", PROVIDER, "test", nodes=2, owner=ME)
    (finding,) = check(world.ctx, spec).findings
    assert (finding.state, finding.text) == (
        "refused",
        f"template {template} has no Python 3.11, which Rain's client needs",
    )
    for verb in (plan, up):
        with pytest.raises(InputError, match=r"has no Python 3\.11") as caught:
            verb(world.ctx, spec)
        assert "Debian 12" in (caught.value.next_step or "")
    assert world.names() == []


@pytest.mark.parametrize(
    "template", ["Linux Debian 12 (Bookworm) 64-bit", "mine, of Linux Ubuntu 24.04 LTS 64-bit"]
)
def test_any_other_template_is_tried(template: str) -> None:
    refuse_template(template)
