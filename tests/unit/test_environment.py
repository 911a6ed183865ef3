"""The environment as a part: digest, locks, and its steps run by a real shell with the real uv, offline."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from uv import find_uv_bin

from rain_deploy.core.cluster import Cluster, Node, Traits
from rain_deploy.core.layout import Layout
from rain_deploy.core.machine import Host
from rain_deploy.core.spec import NODE_REQUIREMENTS, EngineSpec, ResolvedEnvironment
from rain_deploy.errors import InputError
from rain_deploy.parts.facts import DEBIAN_12
from rain_deploy.parts.part import Shared
from rain_deploy.parts.shell import stage_command, templates_directory
from rain_deploy.parts.software import (
    Environment,
    check_packages,
    compat_files,
    environment_digest,
    node_lock,
)
from rain_deploy.parts.supply.cache import uv_environment, uv_pin

ROOT = Path(__file__).resolve().parents[2]
NODE = Node("node-1", Host("node-1", "127.0.0.1", 22, "me", ()), replace(DEBIAN_12, python=sys.executable))
OFFLINE = (("UV_OFFLINE", "1"),)
pytestmark = pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="nodes have Python 3.11")


def rain_wheel(directory: Path) -> tuple[str, bytes]:
    """A wheel that looks like Rain's client and needs nothing; its import lasts while ``slow`` is there."""
    path = directory / "rain_python-0.4.0-py3-none-any.whl"
    client = (
        f"import pathlib, time\nwhile pathlib.Path({str(directory / 'slow')!r}).exists(): time.sleep(0.02)\n"
    )
    about = "rain_python-0.4.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("rain/client/__init__.py", f"import rain_deploy_compat\n{client}")
        archive.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: rain-python\nVersion: 0.4.0\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")
    return path.name, path.read_bytes()


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """Of a host that has uv."""
    layout = Layout(str(tmp_path / "base with space"), "c1")
    uv = Path(layout.uv(uv_pin().binary_sha256))
    uv.parent.mkdir(parents=True)
    Path(layout.base).chmod(0o700)
    uv.symlink_to(find_uv_bin())
    return layout


@pytest.fixture
def small(tmp_path: Path) -> ResolvedEnvironment:
    """An environment that uv builds in no time."""
    wheel = rain_wheel(tmp_path)
    lock = f"rain-python==0.4.0 \\\n    --hash=sha256:{hashlib.sha256(wheel[1]).hexdigest()}\n"
    return ResolvedEnvironment(lock, wheels=(wheel,))


def part(layout: Layout, environment: ResolvedEnvironment, uv: bytes | None = None) -> Environment:
    digest = environment_digest(environment)
    cluster = Cluster("c1", "one", "hosts", 0.0, (NODE,), base=layout.base, env_digest=digest)
    traits = Traits(owned=False, installs_packages=True, needs_wall=False, shared_machine=False)
    return Environment(Shared(cluster, traits, environment, EngineSpec(), uv=uv))


def start(
    layout: Layout, environment: ResolvedEnvironment, uv: bytes | None = None
) -> subprocess.Popen[bytes]:
    stage = part(layout, environment, uv).stage(NODE)
    command = stage_command(stage, layout.base, OFFLINE)
    with tempfile.TemporaryFile() as stdin:
        stdin.write(command.stdin or b"")
        stdin.seek(0)
        return subprocess.Popen(
            command.argv,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def install(layout: Layout, environment: ResolvedEnvironment) -> tuple[int, str]:
    process = start(layout, environment)
    said = process.communicate(timeout=60)[0].decode()
    return process.returncode, said


def home_of(layout: Layout, environment: ResolvedEnvironment) -> Path:
    return Path(layout.environment(environment_digest(environment)))


def test_the_locked_set_is_the_extra_node_with_hashes_and_names_no_index() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert sorted(project["optional-dependencies"]["node"]) == sorted(NODE_REQUIREMENTS)
    assert "://" not in node_lock()
    blocks = re.split(r"(?m)^(?=\S)", node_lock())[1:]
    assert all(
        re.match(r"[a-z0-9-]+==\S+ \\\n(    --hash=sha256:[0-9a-f]{64}( \\)?\n)+$", block) for block in blocks
    )
    names = {block.partition("==")[0] for block in blocks}
    assert {re.split(r"[<=]", requirement)[0] for requirement in NODE_REQUIREMENTS} <= names


def test_the_pinned_uv_is_the_one_that_this_checkout_installs() -> None:
    assert uv_pin().wheel_sha256 in (ROOT / "requirements/uv.txt").read_text()
    assert f"uv=={uv_pin().version} " in (ROOT / "requirements/uv.txt").read_text()


@pytest.mark.parametrize(
    "change",
    [
        {"lock_text": "x==1 --hash=sha256:00\n"},
        {"wheels": (("a.whl", b"1"),)},
        {"wheels": (("a.whl", b"2"),)},
        {"apt": ("libgomp1",)},
        {"setup": "echo\n"},
    ],
)
def test_whatever_is_installed_changes_the_digest(change: dict[str, object]) -> None:
    plain = ResolvedEnvironment("x==0 --hash=sha256:00\n")
    digest = environment_digest(plain)
    assert environment_digest(ResolvedEnvironment(plain.lock_text)) == digest
    assert environment_digest(replace(plain, **change)) != digest  # type: ignore[arg-type]


def test_the_digest_keeps_its_parts_apart() -> None:
    assert environment_digest(ResolvedEnvironment("", apt=("ab",))) != environment_digest(
        ResolvedEnvironment("", apt=("a", "b"))
    )


def test_an_environment_is_built_once(layout: Layout, small: ResolvedEnvironment) -> None:
    status, said = install(layout, small)
    assert status == 0, said
    home = home_of(layout, small)
    assert (home / ".ok").exists()
    packages = home / "lib/python3.11/site-packages"
    assert {name for name, _content in compat_files()} <= {path.name for path in packages.iterdir()}
    status, said = install(layout, small)
    assert (status, said) == (0, "\x1e0\tunchanged\n\x1e1\tunchanged\n")


def test_a_host_that_has_it_is_sent_nothing(layout: Layout, small: ResolvedEnvironment) -> None:
    environment = part(layout, small, b"uv")
    stage = environment.stage(environment.done(NODE))
    assert ([step.name for step in stage.steps], stage.payload) == (["environment"], ())


def test_a_wheel_with_another_hash_is_refused(layout: Layout, small: ResolvedEnvironment) -> None:
    wrong = replace(small, lock_text=re.sub(r"sha256:\w+", "sha256:" + "0" * 64, small.lock_text))
    status, said = install(layout, wrong)
    assert status == 1
    assert "0" * 64 in said
    assert not (home_of(layout, wrong) / ".ok").exists()


def test_a_requirement_without_a_hash_is_refused(layout: Layout, small: ResolvedEnvironment) -> None:
    bare = replace(small, lock_text="rain-python==0.4.0\n")
    assert install(layout, bare)[0] == 1
    assert not (home_of(layout, bare) / ".ok").exists()


def test_the_pinned_uv_is_sent_and_no_other_program_is_taken_for_it(
    layout: Layout, small: ResolvedEnvironment
) -> None:
    uv = Path(layout.uv(uv_pin().binary_sha256))
    uv.unlink()
    said = start(layout, small, b"#!/bin/sh\n").communicate(timeout=60)[0]
    assert said.endswith(b"\x1e0\tfailed\n")
    assert not home_of(layout, small).exists()
    start(layout, small, Path(find_uv_bin()).read_bytes()).communicate(timeout=60)
    assert (home_of(layout, small) / ".ok").exists()
    assert hashlib.sha256(uv.read_bytes()).hexdigest() == uv_pin().binary_sha256


def test_a_killed_build_is_no_environment_and_is_made_again(
    layout: Layout, small: ResolvedEnvironment, tmp_path: Path
) -> None:
    slow, home = tmp_path / "slow", home_of(layout, small)
    slow.touch()
    process = start(layout, small)
    deadline = time.monotonic() + 60
    while not (home / "lib/python3.11/site-packages/rain_deploy_compat.py").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (home / ".ok").exists()
    (home / "bin/python").unlink()
    slow.unlink()
    status, said = install(layout, small)
    assert status == 0, said
    assert (home / ".ok").exists()


def test_two_at_once_build_it_once(layout: Layout, small: ResolvedEnvironment) -> None:
    counted = replace(small, setup=f"#!/bin/sh -eu\necho x >>'{layout.base}/count'; sleep 0.5\n")
    both = [start(layout, counted), start(layout, counted)]
    said = [process.communicate(timeout=60)[0].decode() for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert (Path(layout.base) / "count").read_text() == "x\n"
    assert "".join(said).count("Installed 1 package") == 1


def test_a_setup_script_that_fails_fails_the_node_and_runs_again(
    layout: Layout, small: ResolvedEnvironment, tmp_path: Path
) -> None:
    switch = tmp_path / "switch"
    environment = replace(small, setup=f"[ -e '{switch}' ] || {{ echo no switch here; exit 3; }}\n")
    status, said = install(layout, environment)
    assert status == 1
    assert "no switch here" in said
    switch.touch()
    assert install(layout, environment)[0] == 0


@pytest.mark.parametrize("name", ["-y", "libgomp1-", "Caps", "a b", "x;reboot", ""])
def test_what_is_no_package_name_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="apt: "):
        check_packages((name,))


def test_package_names_pass() -> None:
    check_packages(("libgomp1", "g++", "libc6:amd64", "libssl-dev=3.0.2-0+deb12u1"))


def test_uv_believes_the_system_s_certificates_unless_the_caller_says_otherwise() -> None:
    assert uv_environment({"A": "b"}) == {"A": "b", "UV_SYSTEM_CERTS": "1"}
    for said in ({"UV_SYSTEM_CERTS": "0"}, {"UV_NATIVE_TLS": "1"}):
        assert uv_environment(said) == said
    line = next(
        line
        for line in (templates_directory() / "environment.sh.j2").read_text().splitlines()
        if "CERTS" in line
    )
    for said, told in (({}, "1"), ({"UV_SYSTEM_CERTS": "0"}, "0"), ({"UV_NATIVE_TLS": "1"}, "")):
        script = f"set -eu\n{line}\nprintenv UV_SYSTEM_CERTS || :"
        done = subprocess.run(["/bin/sh", "-c", script], env=said, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == told
