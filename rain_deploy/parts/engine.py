"""The Rain engine on a node: sent from the laptop's cache, downloaded, or built there."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from rain_deploy.core.cluster import Node
from rain_deploy.core.spec import EngineSpec
from rain_deploy.core.step import PayloadFile, Stage, Step
from rain_deploy.errors import InputError
from rain_deploy.parts.environment import no_python
from rain_deploy.parts.part import Part, Shared, facts_of, having
from rain_deploy.parts.shell import PACKAGE, step

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
    """The engine.  Where none is known yet, the server node makes it, and it is handed on from there."""

    shared: Shared
    stage_name = "install"

    @property
    def _path(self) -> str:
        return self.shared.layout.engine(self.shared.cluster.engine_sha256)

    def _makes(self, node: Node) -> bool:
        """Return True for the node that makes the engine."""
        cluster = self.shared.cluster
        return not cluster.engine_sha256 and node.name == cluster.server.name

    def refusals(self, node: Node) -> Iterator[InputError]:
        facts, shared = facts_of(node), self.shared
        if not self._makes(node):
            return
        if not facts.python:
            yield no_python(node)
        installs = shared.traits.installs_packages and facts.root
        if facts.missing_tools and not shared.engine.url and not installs:
            packages = " ".join(build_packages(facts.missing_tools))
            yield InputError(
                "no Rain engine is cached on this machine, and "
                f"{node.name} cannot build one: {', '.join(facts.missing_tools)} missing",
                node=node.name,
                next_step=f"sudo apt-get install --no-install-recommends {packages}",
            )

    def lacks(self, node: Node) -> str | None:
        facts, cluster, url = facts_of(node), self.shared.cluster, self.shared.engine.url
        if cluster.engine_sha256:
            return None if self._path in facts.have else "the Rain engine will be sent"
        if not self._makes(node):
            return f"the Rain engine will be sent from {cluster.server.name}"
        if url:
            return f"the Rain engine will be downloaded from {url}"
        packages = ", ".join(build_packages(facts.missing_tools))
        first = f"{packages} will be installed, and " if packages else ""
        return f"{first}the Rain engine will be built (3 to 5 minutes)"

    def stage(self, node: Node) -> Stage:
        """Place the engine, or make it and report its digest as data ENGINE."""
        facts, shared, spec = facts_of(node), self.shared, self.shared.engine
        steps: list[Step] = []
        payload: list[PayloadFile] = []
        if sha256 := shared.cluster.engine_sha256:
            place, source = self._path, "engine/rain"
            steps.append(
                step("engine", "place.sh.j2", parallel=True, makes=place, sha256=sha256, source=source)
            )
            if shared.binary is not None and self._path not in facts.have:
                payload.append(PayloadFile("engine/rain", shared.binary, 0o755))
        elif self._makes(node):
            script = (PACKAGE / "parts/scripts/build_engine.py").read_bytes()
            payload.append(PayloadFile("engine/build_engine.py", script))
            if not spec.url:
                payload.append(PayloadFile("engine/engine.lock", engine_lock().encode()))
                if packages := build_packages(facts.missing_tools):
                    steps.append(step("build tools", "apt.sh.j2", packages=packages))
            # The script itself finds what an earlier call of it made.
            python, cache = facts.python, shared.layout.engines
            steps.append(step("engine", "engine.sh.j2", parallel=True, python=python, cache=cache, spec=spec))
        return Stage(self.stage_name, tuple(steps), tuple(payload), deadline_s=DEADLINE_S, installs=True)

    def done(self, node: Node) -> Node:
        return having(node, self._path) if self.shared.cluster.engine_sha256 else node
