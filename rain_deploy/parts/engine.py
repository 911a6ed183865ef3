"""The Rain engine on a node: sent from the laptop's cache, downloaded, or built there."""

from __future__ import annotations

import functools
import hashlib

from rain_deploy.core.layout import Layout
from rain_deploy.core.machine import Facts
from rain_deploy.core.spec import EngineSpec
from rain_deploy.core.step import PayloadFile, Step
from rain_deploy.parts.shell import PACKAGE, render
from rain_deploy.parts.steps import packages_step, program_step

BUILD_PACKAGES = {
    "cargo": ("cargo-web", "rustc-web"),
    "rustc": ("cargo-web", "rustc-web"),
    "capnp": ("capnproto",),
    "cc": ("gcc", "libc6-dev"),
    "libsqlite3.so": ("libsqlite3-dev", "pkg-config"),
}
"""Debian packages that bring a tool of the build."""

Installation = tuple[tuple[Step, ...], tuple[PayloadFile, ...]]
"""Steps and the files that they find under ``$S``."""


@functools.cache
def engine_lock() -> str:
    """Lines ``name version sha256`` of every crate that the engine is built from."""
    return (PACKAGE / "parts/locks/engine.lock").read_text("ascii")


def engine_key(spec: EngineSpec) -> str:
    """What an engine comes from: the digest of the user's download, else of our lock."""
    return spec.sha256 or hashlib.sha256(engine_lock().encode()).hexdigest()


def tools_probe() -> str:
    """Shell text for the facts of a host that may have to build the engine."""
    return render("tools.sh.j2")


def missing_tools(probe: str) -> tuple[str, ...]:
    """Tools that the build lacks, from what ``tools_probe`` printed."""
    return tuple(line.removeprefix("tool=") for line in probe.splitlines() if line.startswith("tool="))


def build_packages(missing: tuple[str, ...]) -> tuple[str, ...]:
    """Debian packages that bring the missing tools, each once."""
    return tuple(dict.fromkeys(package for tool in missing for package in BUILD_PACKAGES[tool]))


def install_command(missing: tuple[str, ...]) -> str:
    """The one command that a person types to have the missing tools on Debian."""
    return f"apt-get install --no-install-recommends {' '.join(build_packages(missing))}"


def engine_steps(
    layout: Layout, facts: Facts, spec: EngineSpec, *, sha256: str | None = None, binary: bytes | None = None
) -> Installation:
    """Have the engine on a host.

    ``sha256``: the engine is known, and on the host or given as ``binary``.  None: the host brings it, by
    download or build, and reports its digest as data ``engine``.  What the build lacks is installed first
    when facts name it: callers have refused where that is not allowed.
    """
    if sha256:
        return _placed(layout, facts, sha256, binary)
    script = PayloadFile("engine/build_engine.py", (PACKAGE / "parts/build_engine.py").read_bytes())
    lock = PayloadFile("engine/engine.lock", engine_lock().encode())
    act = render("engine.sh.j2", python=facts.python, cache=layout.engines, url=spec.url, sha256=spec.sha256)
    # The script itself finds what an earlier call of it made.
    brought = Step(name="engine", act=act, parallel=True)
    if spec.url:
        return (brought,), (script,)
    missing = facts.missing_tools
    tools = (packages_step("build tools", build_packages(missing)),) if missing else ()
    return (*tools, brought), (script, lock)


def _placed(layout: Layout, facts: Facts, sha256: str, binary: bytes | None) -> Installation:
    target = layout.engine(sha256)
    sent = binary is not None and target not in facts.have
    payload = (PayloadFile("engine/rain", binary or b"", 0o755),) if sent else ()
    return (program_step("engine", "engine/rain", target, sha256, parallel=True),), payload
