"""What a node is about to use is checked: damage is seen before anything is done, and repaired."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from rain_deploy.core.cluster import Cluster, Node, Traits
from rain_deploy.core.layout import Layout
from rain_deploy.core.machine import Facts, Host
from rain_deploy.core.spec import EngineSpec, ResolvedEnvironment
from rain_deploy.parts.facts import DEBIAN_12, facts_command, parse_facts
from rain_deploy.parts.part import Shared
from rain_deploy.parts.services import node_argv
from rain_deploy.parts.shell import stage_command
from rain_deploy.parts.software import Code, Engine, Environment, Software, code_bundle, environment_digest
from tests.unit.test_environment import OFFLINE, home_of, layout, small

__all__ = ["layout", "small"]
HOST = Host("node-1", "127.0.0.1", 22, "me", ())
PACKAGES = "lib/python3.11/site-packages"
LIBRARY = f"{PACKAGES}/rain/deep/er/still/lib.so"
COMPAT = f"{PACKAGES}/rain_deploy_compat.py"
pytestmark = pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="nodes have Python 3.11")


@dataclasses.dataclass
class Machine:
    """A host whose cache is real; ``engine`` is a program that only has the right digest."""

    layout: Layout
    environment: ResolvedEnvironment
    engine: bytes = b"#!/bin/sh\n"

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.engine).hexdigest()

    def look(self) -> Node:
        digest = environment_digest(self.environment)
        done = subprocess.run(
            ["/bin/sh", *facts_command(HOST, "c1", environment=digest).argv[1:]],
            env={"PATH": os.environ["PATH"], "RAIN_DEPLOY_BASE": self.layout.base},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return Node("node-1", HOST, replace(parse_facts(HOST, done.stdout), python=sys.executable))

    def parts(self, node: Node) -> dict[str, Software]:
        cluster = Cluster("c1", "one", "hosts", 0.0, (node,), base=self.layout.base)
        cluster = replace(cluster, env_digest=environment_digest(self.environment), engine_sha256=self.sha256)
        traits = Traits(owned=False, installs_packages=True, needs_wall=False, shared_machine=False)
        shared = Shared(cluster, traits, self.environment, EngineSpec(), binary=self.engine)
        return {"code": Code(shared), "environment": Environment(shared), "engine": Engine(shared)}

    def bring(self, node: Node) -> str:
        """Run the stage of every part; what they print."""
        said = ""
        for part in self.parts(node).values():
            command = stage_command(part.stage(node), self.layout.base, OFFLINE)
            done = subprocess.run(
                command.argv, input=command.stdin, capture_output=True, timeout=60, check=False
            )
            assert done.returncode == 0, done.stderr.decode()
            said += done.stdout.decode()
        return said

    def places(self) -> dict[str, Path]:
        return {
            "code": Path(self.layout.code(code_bundle()[0])),
            "environment": home_of(self.layout, self.environment),
            "engine": Path(self.layout.engine(self.sha256)),
        }


@pytest.fixture
def machine(layout: Layout, small: ResolvedEnvironment) -> Machine:
    machine = Machine(layout, small)
    machine.bring(machine.look())
    library = machine.places()["environment"] / LIBRARY
    library.parent.mkdir(parents=True)
    library.write_bytes(b"library")
    with (machine.places()["environment"] / ".ok").open("a") as listed:
        listed.write(f"7 {LIBRARY}\n")
    return machine


def _cut(path: Path) -> None:
    os.truncate(path, 3)


def _dangle(path: Path) -> None:
    path.unlink()
    path.symlink_to("/nowhere/python3.11")


def broken(part: str, words: str, damage: Callable[[Path], object]) -> object:
    return pytest.param(part, damage, id=f"{part}-{words}")


@pytest.mark.parametrize(
    ("part", "damage"),
    [
        broken("environment", "python deleted", lambda home: (home / "bin/python").unlink()),
        broken("environment", "python leads nowhere", lambda home: _dangle(home / "bin/python")),
        broken("environment", "bin deleted", lambda home: shutil.rmtree(home / "bin")),
        broken("environment", "package deleted", lambda home: shutil.rmtree(home / PACKAGES / "rain")),
        broken("environment", "module cut", lambda home: _cut(home / PACKAGES / "rain/client/__init__.py")),
        broken("environment", "library cut", lambda home: _cut(home / LIBRARY)),
        broken("environment", "compat deleted", lambda home: (home / COMPAT).unlink()),
        broken("engine", "cut", _cut),
        broken("engine", "not executable", lambda binary: binary.chmod(0o644)),
        broken("engine", "other content", lambda binary: binary.write_bytes(b"#!/bin/zz\n")),
        broken("code", "file deleted", lambda code: (code / "node/pack.py").unlink()),
        broken("code", "file changed", lambda code: (code / "node/run.py").write_text("x")),
        broken("code", "file added", lambda code: (code / "node/json.py").write_text("x")),
    ],
)  # fmt: skip
def test_damage_is_seen_and_repaired_and_nothing_else_is_touched(
    machine: Machine, part: str, damage: Callable[[Path], object]
) -> None:
    before = machine.look()
    assert {name: each.lacks(before) for name, each in machine.parts(before).items()} == dict.fromkeys(
        machine.parts(before)
    )
    damage(machine.places()[part])
    seen = machine.look()
    reasons = {name: reason for name, each in machine.parts(seen).items() if (reason := each.lacks(seen))}
    assert list(reasons) == [part]
    assert "damaged" in reasons[part]
    said = machine.bring(seen)
    assert sum("done" in line for line in said.splitlines()) == 1, said
    assert any("which was damaged" in step.name for step in machine.parts(seen)[part].stage(seen).steps)
    again = machine.look()
    facts = again.facts
    assert facts
    assert (facts.damaged, all(each.lacks(again) is None for each in machine.parts(again).values())) == (
        (),
        True,
    )
    assert "done" not in machine.bring(again)


def test_what_python_or_a_user_adds_is_no_damage(machine: Machine) -> None:
    home, code = machine.places()["environment"], machine.places()["code"]
    (home / PACKAGES / "rain/__pycache__").mkdir()
    (home / PACKAGES / "rain/__pycache__/x.pyc").write_bytes(b"x")
    (home / PACKAGES / "mine.py").write_text("x")
    (code / "node/__pycache__").mkdir()
    (code / "node/__pycache__/x.pyc").write_bytes(b"x")
    node = machine.look()
    assert all(each.lacks(node) is None for each in machine.parts(node).values())


def test_an_environment_of_an_older_version_is_sound_while_its_python_starts(machine: Machine) -> None:
    home = machine.places()["environment"]
    (home / ".ok").write_bytes(b"")
    node = machine.look()
    assert machine.parts(node)["environment"].lacks(node) is None
    (home / "bin/python").unlink()
    node = machine.look()
    assert machine.parts(node)["environment"].lacks(node)


def test_what_others_use_is_not_looked_at(machine: Machine) -> None:
    other = Path(machine.layout.environment("0" * 32))
    other.mkdir()
    (other / ".ok").touch()  # it has no Python
    facts = machine.look().facts
    assert facts
    assert str(other / ".ok") in facts.have


def test_a_node_that_was_repaired_has_it_on_record() -> None:
    facts: Facts = replace(DEBIAN_12, damaged=("/b/cache/code/x/__main__.py", "/b/y"))
    node = Node("node-1", HOST, facts)
    code = Code(
        Shared(
            Cluster("c1", "one", "hosts", 0.0, (node,), base="/b"),
            Traits(owned=False, installs_packages=True, needs_wall=False, shared_machine=False),
            ResolvedEnvironment(""),
            EngineSpec(),
        )
    )
    node = replace(node, facts=replace(facts, damaged=(code.makes, "/b/y")))
    done = code.done(node).facts
    assert done
    assert (code.makes in done.have, done.damaged) == (True, ("/b/y",))


def test_verbs_of_the_node_code_need_nothing_of_the_environment() -> None:
    node = Node("node-1", HOST, replace(DEBIAN_12, python="/usr/bin/python3.11"))
    cluster = Cluster("c1", "one", "hosts", 0.0, (node,), base="/b", env_digest="e", code_digest="c")
    for verb in ("pack", "status", "runs", "follow", "queue", "cancel", "ensure"):
        assert node_argv(cluster, verb)[:4] == ("/usr/bin/python3.11", "-I", "-S", "/b/cache/code/c")


@pytest.mark.parametrize("damage", ["deleted", "cut", "emptied", "cut between two lines"])
@pytest.mark.parametrize("name", ["pack.py", "cli.py", "files.py", "wire/__init__.py", "wire/points.py"])
def test_damaged_node_code_says_what_brings_it_again(machine: Machine, name: str, damage: str) -> None:
    code = machine.places()["code"]
    if damage == "deleted":
        (code / "node" / name).unlink()
    else:
        left = {"cut": '"""Half a fi', "emptied": ""}.get(damage, "import os\n")
        (code / "node" / name).write_text(left)
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(code), "pack", str(code)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith("rain-deploy's code on this node is damaged")
    assert '"rain-deploy up" reinstalls it' in done.stderr
