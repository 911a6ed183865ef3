"""A play of Ansible sends a node what ``up`` sends it: the role's own tasks, followed without Ansible."""

from __future__ import annotations

import hashlib
import runpy
import shutil
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from rain_deploy.api import playbook
from rain_deploy.api.call import called
from rain_deploy.core.events import EventSink
from rain_deploy.core.machine import Facts, Host
from rain_deploy.core.spec import EngineSpec
from rain_deploy.core.step import Command, CommandResult, Stage
from rain_deploy.errors import InputError, InstallFailed
from rain_deploy.fleet.fanout import Outcomes, StageReport
from rain_deploy.options.table import OPTIONS
from rain_deploy.parts.facts import DEBIAN_12, facts_text
from rain_deploy.parts.listed import parts
from rain_deploy.parts.software import engine_key
from rain_deploy.parts.supply.cache import EngineCache
from rain_deploy.state.store import Store
from rain_deploy.transport.base import Chunk, Forward
from rain_deploy.verbs.check import check
from rain_deploy.verbs.up import up
from tests.unit.test_parts import shared

pytestmark = pytest.mark.skipif(shutil.which("ssh") is None, reason="no OpenSSH client here")
ROOT = Path(__file__).parents[2]
ROLE = ROOT / "ansible/roles/rain_node"
KEY = f"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{'A' * 43}"
HOSTS = ("root@127.108.2.1", "root@127.108.2.2")
ENGINE = b"an engine"
SHA256 = hashlib.sha256(ENGINE).hexdigest()


@dataclass
class Nodes:
    """Implements Executor and Transport: machines that do what they are sent, and note it."""

    facts: Mapping[str, Facts]
    fails: str = ""  # name of a step that fails
    steps: defaultdict[str, set[tuple[str, str, str, str]]] = field(default_factory=lambda: defaultdict(set))
    files: defaultdict[str, dict[str, bytes]] = field(default_factory=lambda: defaultdict(dict))

    def run(self, *asked: Any, **more: Any) -> Any:
        return self._stages(*asked) if isinstance(asked[0], Mapping) else self._command(*asked, **more)

    def _stages(self, stages: Mapping[Host, Stage], _base: str, _emit: EventSink) -> Outcomes[StageReport]:
        for host, stage in stages.items():
            self.steps[host.name] |= {(step.name, step.check, step.act, step.verify) for step in stage.steps}
            self.files[host.name] |= {file.path: file.data for file in stage.payload}
        changed = {host.name: tuple(step.name for step in stage.steps) for host, stage in stages.items()}
        data = (("engine", SHA256),)
        if failed := [name for name, steps in changed.items() if self.fails in steps]:
            return Outcomes({}, {name: InstallFailed(f"{self.fails} failed", node=name) for name in failed})
        return Outcomes({name: StageReport(steps, data) for name, steps in changed.items()}, {})

    def _command(
        self, host: Host, command: Command, *, on_stdout: Chunk | None = None, on_stderr: Chunk | None = None
    ) -> CommandResult:
        del on_stdout, on_stderr
        if command.argv[0] == "cat":
            return CommandResult(0, ENGINE, b"")
        if command.argv[3:4] == ("facts",):
            return CommandResult(0, facts_text(self.facts[host.name]).encode(), b"")
        return CommandResult(0, b"wall\n", b"")  # what is lacking

    def connect(self, host: Host) -> None:
        """Nothing has to be reached."""

    def forward(self, host: Host, address: str, port: int, *, local_port: int = 0) -> Forward:
        raise AssertionError((host, address, port, local_port))

    def close(self) -> None:
        """Nothing is open."""


def machine(index: int) -> Facts:
    return replace(
        DEBIAN_12, hostname=f"m{index}", machine_id=f"id{index}", route_address=f"10.108.2.{index}"
    )


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That of a user who knows the hosts."""
    (tmp_path / ".ssh").mkdir()
    lines = [f"{entry.partition('@')[2]} {KEY}\n" for entry in HOSTS]
    (tmp_path / ".ssh/known_hosts").write_text("".join(lines))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    made = tmp_path / "rain"
    made.mkdir()
    Store(made)
    shutil.copy(made / "state.sqlite", tmp_path / "first.sqlite")
    return made


def by_up(home: Path, nodes: Nodes, settings: Mapping[str, Any]) -> None:
    with called("up", home=home, **settings) as call:
        ctx = replace(call.ctx, transport=nodes, executor=nodes)
        up(ctx, call.cluster_spec())


def by_play(
    home: Path, nodes: Nodes, settings: Mapping[str, Any], *, check: bool = False, own: Nodes | None = None
) -> int:
    """Follow the role's tasks as Ansible does; how many of them changed something."""
    names, known, changed, notified = ("node-1", "node-2"), dict[str, str](), 0, set[str]()
    tasks = yaml.safe_load((ROLE / "tasks/main.yml").read_text())
    handlers = yaml.safe_load((ROLE / "handlers/main.yml").read_text())
    flush = next(number for number, task in enumerate(tasks) if "ansible.builtin.meta" in task)
    for task in (*tasks[:flush], *handlers, *tasks[flush + 1 :]):
        before = dict(known)
        for name in names:
            arguments = task["rain_part"]
            is_handler = "listen" in task
            if (arguments.get("only") == "server" and name != "node-1") or (
                is_handler and name not in notified
            ):
                continue
            with playbook.task(
                {"home": home, **settings},
                nodes,
                name=name,
                names=names,
                known=before,
                check=check,
                kind=playbook.Task,
            ) as one:
                words = (arguments["part"],) if "part" in arguments else ()
                bound = replace(one, ctx=replace(one.ctx, executor=nodes), own=own or nodes)
                done = getattr(bound, arguments["do"])(*words)
            known |= {name: done.facts} if done.facts else {}
            changed += bool(done.changed)
            notified |= {name} if done.changed and "notify" in task else set()
    return changed


CASES = {
    "all": ({}, {}),
    "without an engine": ({}, {"engine": False}),
    "in a trusted network": ({"trust_network": ["127.0.0.0/8"]}, {}),
    "with Debian packages": ({"apt": ["libgomp1"]}, {}),
    "two tasks at a time": ({"cpus_per_node": 2}, {}),
}


@pytest.mark.parametrize(("settings", "how"), CASES.values(), ids=CASES)
def test_a_play_sends_what_up_sends(home: Path, settings: dict[str, Any], how: dict[str, bool]) -> None:
    if how.get("engine", True):
        EngineCache(home).store(engine_key(EngineSpec()), "x86_64", "2.36", ENGINE)
    settings = {**settings, "provider": "hosts", "hosts": list(HOSTS)}
    facts = {"node-1": machine(1), "node-2": machine(2)}
    of_up, of_play = Nodes(facts), Nodes(facts)
    by_up(home, of_up, settings)
    shutil.copy(home.parent / "first.sqlite", home / "state.sqlite")
    if not how.get("engine", True):
        shutil.rmtree(home / "cache")
    assert by_play(home, of_play, settings) > 0
    assert of_up.steps["node-1"]
    assert of_play.steps == of_up.steps
    assert of_play.files == of_up.files


def test_a_check_sends_nothing_and_records_nothing(home: Path) -> None:
    settings = {"provider": "hosts", "hosts": list(HOSTS)}
    nodes = Nodes({"node-1": machine(1), "node-2": machine(2)})
    assert by_play(home, nodes, settings, check=True) > 0
    assert nodes.steps == {}
    assert Store(home).clusters() == ()


def test_the_role_brings_every_part_in_the_order_of_up() -> None:
    tasks = yaml.safe_load((ROLE / "tasks/main.yml").read_text())
    brought = [task["rain_part"]["part"] for task in tasks if task.get("rain_part", {}).get("do") == "bring"]
    assert brought == list(playbook.PARTS)
    assert list(playbook.PARTS.values()) == [type(part) for part in parts(shared(DEBIAN_12))]


def test_the_role_s_variables_are_settings_of_up_and_the_docs_name_them() -> None:
    options = yaml.safe_load((ROLE / "meta/argument_specs.yml").read_text())["argument_specs"]["main"][
        "options"
    ]
    own = {"cluster", "group", "home", "address", "discard_results"}
    names = {name.removeprefix("rain_node_") for name in options}
    assert names - own <= set(OPTIONS)
    plugin = runpy.run_path(str(ROLE / "action_plugins/rain_part.py"))
    for name, kind in (("LISTS", "list"), ("NUMBERS", "int"), ("SWITCHES", "bool")):
        of_kind = {name.removeprefix("rain_node_") for name, row in options.items() if row["type"] == kind}
        assert plugin[name] == of_kind - own
    assert own | {"name", "facts"} == plugin["OWN"]
    assert names - own == plugin["SETTINGS"]
    helps = {name: text["description"] for name, text in options.items()}
    for name in names - own - {"trust_network", "packages", "cpus_per_node", "engine_sha256", "apt", "setup"}:
        assert helps[f"rain_node_{name}"] == OPTIONS[name].help, name
    text = (ROOT / "docs/ansible.md").read_text()
    assert [name for name in options if f"`{name}`" not in text and f"{name}=" not in text] == []


def test_a_play_for_some_of_the_hosts_says_that_all_are_needed(home: Path) -> None:
    settings = {"home": home, "provider": "hosts", "hosts": list(HOSTS)}
    nodes = Nodes({"node-1": machine(1)})
    with playbook.task(
        settings, nodes, name="node-1", names=("node-1",), known={}, check=False, kind=playbook.Task
    ) as one:
        alone = replace(one, own=nodes)
        alone = replace(alone, known={"node-1": alone.look().facts})
        with pytest.raises(InputError, match="nothing is known yet of node-2") as refused:
            alone.judge()
    assert "all hosts" in (refused.value.next_step or "")


def test_a_check_of_a_cluster_that_would_grow_records_nothing(home: Path) -> None:
    EngineCache(home).store(engine_key(EngineSpec()), "x86_64", "2.36", ENGINE)
    nodes = Nodes({"node-1": machine(1), "node-2": machine(2)})
    by_up(home, nodes, {"provider": "hosts", "hosts": [HOSTS[0]], "trust_network": ["10.108.0.0/16"]})
    before = Store(home).resources(Store(home).clusters()[0].id)
    grown = {"provider": "hosts", "hosts": list(HOSTS), "trust_network": ["10.108.0.0/16"]}
    assert by_play(home, nodes, grown, check=True) > 0
    assert Store(home).resources(Store(home).clusters()[0].id) == before
    assert by_play(home, nodes, grown) > 0
    assert len(Store(home).clusters()[0].nodes) == 2


BOTH = {"provider": "hosts", "hosts": list(HOSTS), "trust_network": ["10.108.0.0/16"]}


@pytest.fixture
def nodes(home: Path) -> Nodes:
    """Two machines; the engine is cached."""
    EngineCache(home).store(engine_key(EngineSpec()), "x86_64", "2.36", ENGINE)
    return Nodes({"node-1": machine(1), "node-2": machine(2)})


def test_a_cluster_is_up_only_once_the_governors_were_seen_whatever_failed_before(
    home: Path, nodes: Nodes
) -> None:
    nodes.fails = "2 governors registered"
    with pytest.raises(InstallFailed):
        by_play(home, nodes, BOTH)
    assert [cluster.up for cluster in Store(home).clusters()] == [False]
    running = {
        name: replace(facts, running=("governor", "supervisor")) for name, facts in nodes.facts.items()
    }
    again = Nodes(running, fails=nodes.fails)
    with pytest.raises(InstallFailed):
        by_play(home, again, BOTH)
    again.fails = ""
    by_play(home, again, BOTH)
    assert [cluster.up for cluster in Store(home).clusters()] == [True]


def test_a_play_that_fails_leaves_a_cluster_that_was_up_as_it_was(home: Path, nodes: Nodes) -> None:
    by_up(home, nodes, {**BOTH, "hosts": [HOSTS[0]]})
    (before,) = Store(home).clusters()
    nodes.fails = "node code"
    with pytest.raises(InstallFailed):
        by_play(home, nodes, {**BOTH, "apt": ["libgomp1"]})
    (after,) = Store(home).clusters()
    assert [node.name for node in after.left_out] == ["node-2"], "down looks there too"
    assert replace(after, left_out=()) == before


def test_a_check_keeps_no_packages_for_later(home: Path, nodes: Nodes) -> None:
    assert by_play(home, nodes, {**BOTH, "apt": ["libgomp1"]}, check=True) > 0
    assert Store(home).environment(Store(home).next_cluster_id("default")) is None
    by_up(home, nodes, BOTH)
    (cluster,) = Store(home).clusters()
    kept = Store(home).environment(cluster.id)
    by_play(home, nodes, {**BOTH, "apt": ["libgomp1"]}, check=True)
    assert Store(home).environment(cluster.id) == kept
    assert Store(home).clusters() == (cluster,)


def test_another_machine_than_ansible_s_is_refused(home: Path, nodes: Nodes) -> None:
    with pytest.raises(InputError, match="Ansible reaches m2 there, and rain-deploy m3"):
        by_play(home, nodes, BOTH, own=Nodes({"node-1": machine(1), "node-2": machine(3)}))
    assert Store(home).clusters() == ()


@pytest.mark.parametrize(
    ("facts", "settings"),
    [
        (replace(machine(2), python=""), {}),
        (replace(machine(2), arch="aarch64"), {}),
        (replace(machine(2), disk_free_bytes=1 << 30), {}),
        (replace(machine(2), uid=1000, user="ann"), {"apt": ["libgomp1"]}),
        (replace(machine(2), uid=1000, user="ann"), {"trust_network": []}),
    ],
    ids=["no Python 3.11", "another architecture", "disk", "no root for packages", "no root for the wall"],
)
def test_what_check_refuses_a_play_refuses_with_the_same_message_before_anything_is_done(
    home: Path, nodes: Nodes, facts: Facts, settings: dict[str, Any]
) -> None:
    nodes.facts = {"node-1": replace(machine(1), uid=facts.uid, user=facts.user), "node-2": facts}
    with called("up", home=home, **{**BOTH, **settings}) as call:
        found = check(replace(call.ctx, transport=nodes, executor=nodes), call.cluster_spec())
    refused = [line.text for line in found.findings if line.state == "refused"]
    with pytest.raises(InputError) as error:
        by_play(home, nodes, {**BOTH, **settings})
    assert error.value.message in refused
    assert (nodes.steps, Store(home).clusters()) == ({}, ())
