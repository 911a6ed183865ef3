"""The Rain engine on a node: sent from the laptop's cache, downloaded, or built there."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from rain_deploy.core.cluster import Node
from rain_deploy.core.layout import Layout
from rain_deploy.core.spec import EngineSpec
from rain_deploy.core.step import PayloadFile, Stage, Step
from rain_deploy.errors import InputError
from rain_deploy.parts.environment import no_python
from rain_deploy.parts.part import Part, facts_of, having
from rain_deploy.parts.shell import PACKAGE, packages_step, program_step, render

ENGINE = "engine"
"""Name under which the server node reports the digest of the engine that it made."""
DEADLINE_S = 3600.0
"""A first build on a slow machine, with its downloads."""
BUILD_PACKAGES = {
    "cargo": ("cargo-web", "rustc-web"),
    "rustc": ("cargo-web", "rustc-web"),
    "capnp": ("capnproto",),
    "cc": ("gcc", "libc6-dev"),
    "libsqlite3.so": ("libsqlite3-dev", "pkg-config"),
}
"""Debian packages that bring a tool of the build."""


@functools.cache
def engine_lock() -> str:
    """Return lines ``name version sha256`` of every crate that the engine is built from."""
    return (PACKAGE / "parts/locks/engine.lock").read_text("ascii")


def engine_key(spec: EngineSpec) -> str:
    """Return what an engine comes from: the digest of the user's download, else of our lock."""
    return spec.sha256 or hashlib.sha256(engine_lock().encode()).hexdigest()


def build_packages(missing: tuple[str, ...]) -> tuple[str, ...]:
    """Return the Debian packages that bring the missing tools, each once."""
    return tuple(dict.fromkeys(package for tool in missing for package in BUILD_PACKAGES[tool]))


@dataclass(frozen=True, slots=True)
class Engine(Part):
    """The engine.  Where none is known yet, the node ``maker`` makes it, and it is handed on from there."""

    layout: Layout
    spec: EngineSpec
    sha256: str
    """Digest of the engine; empty: it is still to be made."""
    maker: str
    """Name of the server node."""
    binary: bytes | None = None
    """The engine itself, where it is kept on this machine."""
    installs_packages: bool = False
    """What the build lacks may be installed where there is root."""
    shared_machine: bool = False
    """All nodes have what one of them has."""
    stage_name = "install"

    def refusals(self, nodes: tuple[Node, ...]) -> Iterator[InputError]:
        for node in nodes:
            if self.sha256 or node.name != self.maker:
                continue
            facts = facts_of(node)
            if not facts.python:
                yield no_python(node)
            if self.spec.url or not facts.missing_tools or (self.installs_packages and facts.root):
                continue
            yield InputError(
                "no Rain engine is cached on this machine, and "
                f"{node.name} cannot build one: {', '.join(facts.missing_tools)} missing",
                node=node.name,
                next_step="sudo apt-get install --no-install-recommends "
                + " ".join(build_packages(facts.missing_tools)),
            )

    def lacks(self, node: Node) -> str | None:
        facts = facts_of(node)
        if self.sha256:
            there = self.layout.engine(self.sha256) in facts.have
            return None if there else "the Rain engine will be sent"
        if node.name != self.maker:
            return f"the Rain engine will be sent from {self.maker}"
        if self.spec.url:
            return f"the Rain engine will be downloaded from {self.spec.url}"
        packages = ", ".join(build_packages(facts.missing_tools))
        first = f"{packages} will be installed, and " if packages else ""
        return f"{first}the Rain engine will be built (3 to 5 minutes)"

    def stage(self, node: Node) -> Stage:
        """Place the engine, or make it and report its digest as data ENGINE."""
        if self.sha256:
            target = self.layout.engine(self.sha256)
            step = program_step("engine", "engine/rain", target, self.sha256, parallel=True)
            sent = self.binary is not None and target not in facts_of(node).have
            payload = (PayloadFile("engine/rain", self.binary or b"", 0o755),) if sent else ()
            return Stage(self.stage_name, (step,), payload, deadline_s=DEADLINE_S, installs=True)
        if node.name != self.maker:
            return Stage(self.stage_name, ())
        steps, files = self._made(node)
        return Stage(self.stage_name, steps, files, deadline_s=DEADLINE_S, installs=True)

    def _made(self, node: Node) -> tuple[tuple[Step, ...], tuple[PayloadFile, ...]]:
        facts, url = facts_of(node), self.spec.url
        script = PayloadFile(
            "engine/build_engine.py", (PACKAGE / "parts/scripts/build_engine.py").read_bytes()
        )
        act = render(
            "engine.sh.j2", python=facts.python, cache=self.layout.engines, url=url, sha256=self.spec.sha256
        )
        # The script itself finds what an earlier call of it made.
        made = Step(name="engine", act=act, parallel=True)
        if url:
            return (made,), (script,)
        packages = build_packages(facts.missing_tools)
        tools = (packages_step("build tools", packages),) if packages else ()
        return (*tools, made), (script, PayloadFile("engine/engine.lock", engine_lock().encode()))

    def done(self, node: Node) -> Node:
        return having(node, self.layout.engine(self.sha256)) if self.sha256 else node
