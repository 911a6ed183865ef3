"""Our node code: shipped as a bundle, placed by digest."""

from __future__ import annotations

import functools
import hashlib
import shlex
from dataclasses import dataclass

from rain_deploy.core.cluster import Node
from rain_deploy.core.layout import Layout
from rain_deploy.core.step import PayloadFile, Stage, Step
from rain_deploy.parts.part import Part, facts_of, having
from rain_deploy.parts.shell import PACKAGE


@dataclass(frozen=True, slots=True)
class CodeBundle:
    """Files relative to ``layout.code(digest)``."""

    digest: str
    files: tuple[PayloadFile, ...]


@functools.cache
def code_bundle() -> CodeBundle:
    """Return the bundle of this installation: node/, the companion, and the launcher."""
    node, companion = PACKAGE / "node", PACKAGE / "companion"
    places = [("__main__.py", node / "launch.py")]
    places += [(f"node/{path.relative_to(node)}", path) for path in sorted(node.rglob("*.py"))]
    places += [(f"site/rain_deploy_companion/{path.name}", path) for path in sorted(companion.glob("*.py"))]
    files = tuple(PayloadFile(place, path.read_bytes()) for place, path in places)
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.path} {len(file.data)}\n".encode() + file.data)
    return CodeBundle(digest.hexdigest()[:16], files)


@dataclass(frozen=True, slots=True)
class Code(Part):
    """The node code of this installation."""

    layout: Layout
    stage_name = "install"

    @property
    def _main(self) -> str:
        return f"{self.layout.code(code_bundle().digest)}/__main__.py"

    def lacks(self, node: Node) -> str | None:
        return None if self._main in facts_of(node).have else "the node code will be sent"

    def stage(self, node: Node) -> Stage:
        """Place the bundle by rename: nodes that share a machine may do it at once."""
        del node
        bundle = code_bundle()
        target, there = shlex.quote(self.layout.code(bundle.digest)), f"[ -e {shlex.quote(self._main)} ]"
        step = Step(
            name="node code",
            check=there,
            act=f'mkdir -p {shlex.quote(self.layout.codes)}\nmv -T "$S/code" {target} 2>/dev/null || {there}',
            verify=there,
            makes=self._main,
        )
        payload = tuple(PayloadFile(f"code/{file.path}", file.data, file.mode) for file in bundle.files)
        return Stage(self.stage_name, (step,), payload)

    def done(self, node: Node) -> Node:
        return having(node, self._main)
