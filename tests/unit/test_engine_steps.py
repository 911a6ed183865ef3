"""The engine as a part: the lock, the cases, and the shell text run by a real shell."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from rain_deploy.core.cluster import Cluster, Node, Traits
from rain_deploy.core.layout import Layout
from rain_deploy.core.machine import Facts, Host
from rain_deploy.core.spec import EngineSpec, ResolvedEnvironment
from rain_deploy.core.step import PayloadFile, Stage, Step
from rain_deploy.parts.facts import DEBIAN_12
from rain_deploy.parts.part import Shared
from rain_deploy.parts.scripts.build_engine import Pin, locked, read_pins, render_lock
from rain_deploy.parts.shell import render, stage_command, step
from rain_deploy.parts.software import Engine, build_packages, engine_key, engine_lock

HOST = Host("node-1", "127.0.0.1", 22, "me", ())
RAIN = b'#!/bin/sh\necho "Rain 0.4.0"\n'
SHA256 = hashlib.sha256(RAIN).hexdigest()
OWN_LOCK = """\
version = 4

[[package]]
name = "engine-source"
version = "0.0.0"
dependencies = ["libc"]

[[package]]
name = "libc"
version = "0.2.191"
source = "registry+https://index.example/mirror"
checksum = "aa"

[[package]]
name = "winapi"
version = "0.3.9"
source = "registry+https://index.example/mirror"
checksum = "bb"
"""


def run(layout: Layout, steps: tuple[Step, ...], payload: tuple[PayloadFile, ...]) -> tuple[int, str, str]:
    """The stage as a node runs it: exit status, reports, and what the steps printed."""
    command = stage_command(Stage("engine", steps, payload), layout.base)
    done = subprocess.run(command.argv, input=command.stdin, capture_output=True, check=False, timeout=60)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def shared(
    layout: Layout, node: Node, spec: EngineSpec, *, sha256: str = "", binary: bytes | None = None
) -> Shared:
    """A cluster of one node, on which nothing is installed unasked."""
    traits = Traits(owned=False, installs_packages=False, needs_wall=False, shared_machine=False)
    cluster = Cluster("c1", "one", "hosts", 0.0, (node,), base=layout.base, engine_sha256=sha256)
    return Shared(cluster, traits, ResolvedEnvironment(""), spec, binary=binary)


def engine_steps(
    layout: Layout, facts: Facts, spec: EngineSpec, *, sha256: str = "", binary: bytes | None = None
) -> tuple[tuple[Step, ...], tuple[PayloadFile, ...]]:
    """What the server node gets."""
    node = Node("node-1", HOST, facts)
    stage = Engine(shared(layout, node, spec, sha256=sha256, binary=binary)).stage(node)
    return stage.steps, stage.payload


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(str(tmp_path / "base with space"), "c1")


def test_the_lock_pins_every_crate_by_hash_and_names_no_index() -> None:
    optimised, *lines = engine_lock().splitlines()
    assert {line.split()[0] for line in lines} > set(optimised.removeprefix("# optimised: ").split())
    assert all(re.fullmatch(r"[A-Za-z0-9_-]+ [0-9][^ /]* [0-9a-f]{64}", line) for line in lines)
    assert lines == sorted(lines)
    assert any(line.startswith("rain_server 0.4.0 ") for line in lines)


def test_our_versions_and_hashes_replace_cargos_and_its_source_stays() -> None:
    pins = frozenset({Pin("libc", "0.2.170", "cc"), Pin("cc", "1.2.0", "dd")})
    rendered = tomllib.loads(render_lock(OWN_LOCK, pins))
    source = "registry+https://index.example/mirror"
    assert rendered == {
        "version": 4,
        "package": [
            {"name": "engine-source", "version": "0.0.0"},
            {"name": "cc", "version": "1.2.0", "source": source, "checksum": "dd"},
            {"name": "libc", "version": "0.2.170", "source": source, "checksum": "cc"},
        ],
    }
    assert locked(render_lock(OWN_LOCK, pins)) == pins


def test_pins_are_read_as_they_are_written() -> None:
    assert read_pins("# optimised: cc\nlibc 0.2.1 aa\n\ncc 1.0.0 bb\n") == {
        Pin("libc", "0.2.1", "aa"),
        Pin("cc", "1.0.0", "bb"),
    }


def test_a_known_engine_is_sent_where_it_is_not_there(layout: Layout) -> None:
    steps, payload = engine_steps(layout, DEBIAN_12, EngineSpec(), sha256=SHA256, binary=RAIN)
    assert payload == (PayloadFile("engine/rain", RAIN, 0o755),)
    there = replace(DEBIAN_12, have=(layout.engine(SHA256),))
    assert engine_steps(layout, there, EngineSpec(), sha256=SHA256, binary=RAIN) == (steps, ())


def test_the_users_own_engine_needs_no_tools_and_no_lock(layout: Layout) -> None:
    spec = EngineSpec(url="https://example.org/rain's.tar.xz", sha256=SHA256)
    steps, payload = engine_steps(layout, replace(DEBIAN_12, missing_tools=("cargo",)), spec)
    assert [file.path for file in payload] == ["engine/build_engine.py"]
    assert [step.name for step in steps] == ["engine download"]
    assert "--url 'https://example.org/rain'\"'\"'s.tar.xz'" in steps[0].act
    assert engine_key(spec) == SHA256 != engine_key(EngineSpec())


def test_a_build_installs_what_it_lacks_first(layout: Layout) -> None:
    facts = replace(DEBIAN_12, missing_tools=("capnp", "cargo", "rustc"))
    steps, payload = engine_steps(layout, facts, EngineSpec())
    assert [step.name for step in steps] == ["build tools", "engine build"]
    assert "-- capnproto cargo-web rustc-web;" in steps[0].act
    assert [file.path for file in payload] == ["engine/build_engine.py", "engine/engine.lock"]


def test_missing_tools_are_refused_with_the_one_command_that_brings_them(layout: Layout) -> None:
    missing = ("capnp", "cargo", "rustc", "cc", "libsqlite3.so")
    node = Node("node-1", HOST, replace(DEBIAN_12, missing_tools=missing))
    unasked = shared(layout, node, EngineSpec())
    (error,) = Engine(unasked).refusals(node)
    assert error.node == "node-1"
    assert error.next_step == (
        "sudo apt-get install --no-install-recommends capnproto cargo-web rustc-web gcc libc6-dev "
        "libsqlite3-dev pkg-config"
    )
    allowed = Engine(replace(unasked, traits=replace(unasked.traits, installs_packages=True)))
    assert list(allowed.refusals(node)) == []
    assert allowed.lacks(node) == (
        f"{', '.join(build_packages(missing))} will be installed, and the Rain engine will be built "
        "(3 to 5 minutes)"
    )


def test_a_placed_engine_stays_and_a_damaged_one_is_replaced(layout: Layout) -> None:
    engine = Path(layout.engine(SHA256))
    placed = engine_steps(layout, DEBIAN_12, EngineSpec(), sha256=SHA256, binary=RAIN)
    assert "done" in run(layout, *placed)[1]
    assert engine.read_bytes() == RAIN
    assert run(layout, *placed)[1] == "\x1e0\tunchanged\n"
    engine.write_bytes(RAIN[:7])
    assert "done" in run(layout, *placed)[1]
    assert engine.read_bytes() == RAIN
    assert [path.name for path in engine.parent.iterdir()] == ["rain"]


def test_a_damaged_engine_that_was_not_sent_is_removed(layout: Layout) -> None:
    engine = Path(layout.engine(SHA256))
    engine.parent.mkdir(parents=True)
    Path(layout.base).chmod(0o700)
    engine.write_bytes(RAIN[:7])
    there = replace(DEBIAN_12, have=(str(engine),))
    status, _out, err = run(layout, *engine_steps(layout, there, EngineSpec(), sha256=SHA256))
    assert status == 1
    assert "type the command again" in err
    assert not engine.exists()


def test_the_digest_of_an_engine_that_the_host_brought_comes_home(layout: Layout, tmp_path: Path) -> None:
    (tmp_path / "rain").write_bytes(RAIN)
    spec = EngineSpec(url=(tmp_path / "rain").as_uri(), sha256=SHA256)
    facts = replace(DEBIAN_12, python=shutil.which("python3") or "")
    status, out, err = run(layout, *engine_steps(layout, facts, spec))
    assert status == 0, err
    assert f"\x1dengine\t{SHA256}\n" in out


def tools(directory: Path, **programs: str) -> dict[str, str]:
    """A PATH that holds what every host has, and these programs."""
    directory.mkdir()
    for name in ("sed", "ls", "sh"):
        (directory / name).symlink_to(shutil.which(name) or "")
    for name, text in programs.items():
        (directory / name).write_text(f"#!/bin/sh\n{text}\n")
        (directory / name).chmod(0o755)
    return {"PATH": str(directory), "HOME": str(directory)}


@pytest.mark.parametrize(
    ("programs", "missing"),
    [
        ({}, {"capnp", "cc", "cargo", "rustc"}),
        (
            {"capnp": "", "cc": "", "cargo": "echo cargo 1.96.0", "rustc": "echo 'rustc 1.88.0 (x)'"},
            set(),
        ),
        (
            {"capnp": "", "cc": "", "cargo": "echo cargo 1.96.0", "rustc": "echo rustc 1.63.0"},
            {"rustc"},
        ),
    ],
    ids=["bare", "all", "old rustc"],
)
def test_the_probe_names_what_is_missing(tmp_path: Path, programs: dict[str, str], missing: set[str]) -> None:
    environment = tools(tmp_path / "bin", **programs)
    done = subprocess.run(
        ["/bin/sh", "-c", render("tools.sh.j2")], env=environment, capture_output=True, text=True, check=True
    )
    assert {*done.stdout.split()} - {"libsqlite3.so"} == missing


def test_a_rustup_without_a_toolchain_does_not_hide_another_rust(tmp_path: Path) -> None:
    broken, good = (
        "echo no toolchain >&2; exit 1",
        {"cargo": "echo cargo 1.96.0", "rustc": "echo rustc 1.96.0"},
    )
    shims = tools(tmp_path / "shims", cargo=broken, rustc=broken, capnp="", cc="")
    environment = shims | {"PATH": f"{shims['PATH']}:{tools(tmp_path / 'bin', **good)['PATH']}"}
    for search, missing in ((shims, {"cargo", "rustc"}), (environment, set())):
        probe = ["/bin/sh", "-c", render("tools.sh.j2")]
        done = subprocess.run(probe, env=search, capture_output=True, text=True, check=True)
        assert {*done.stdout.split()} - {"libsqlite3.so"} == missing


APT_GET = """\
echo "$@" >>"$STATE/calls"
case "$*" in
*update) touch "$STATE/lists" ;;
*install*) [ -e "$STATE/lists" ] ;;
esac
"""


def test_package_lists_that_know_nothing_are_renewed_and_the_install_repeated(tmp_path: Path) -> None:
    environment = tools(tmp_path / "bin", **{"apt-get": APT_GET})
    environment |= {"PATH": f"{environment['PATH']}:{os.defpath}", "STATE": str(tmp_path)}
    act = step("tools", "apt.sh.j2", packages=("capnproto", "gcc")).act
    subprocess.run(["sh", "-ec", f"SUDO=\n{act}"], env=environment, check=True, timeout=60)
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls[-1].endswith("install -y --no-install-recommends -- capnproto gcc")
    assert any(call.endswith("update") for call in calls)
