"""Our node code as a bundle: what is shipped, by digest, beside engine and environment."""

from __future__ import annotations

import functools
import hashlib
import shlex
from dataclasses import dataclass

from rain_deploy.core.layout import Layout
from rain_deploy.core.step import PayloadFile, Step
from rain_deploy.parts.shell import PACKAGE


@dataclass(frozen=True, slots=True)
class CodeBundle:
    """Files relative to ``layout.code(digest)``."""

    digest: str
    files: tuple[PayloadFile, ...]


@functools.cache
def code_bundle() -> CodeBundle:
    """The bundle of this installation: node/, the companion, and the launcher."""
    node, companion = PACKAGE / "node", PACKAGE / "companion"
    places = [("__main__.py", node / "launch.py")]
    places += [(f"node/{path.relative_to(node)}", path) for path in sorted(node.rglob("*.py"))]
    places += [(f"site/rain_deploy_companion/{path.name}", path) for path in sorted(companion.glob("*.py"))]
    files = tuple(PayloadFile(place, path.read_bytes()) for place, path in places)
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.path} {len(file.data)}\n".encode() + file.data)
    return CodeBundle(digest.hexdigest()[:16], files)


def code_step(layout: Layout, bundle: CodeBundle) -> tuple[Step, tuple[PayloadFile, ...]]:
    """Place the bundle, by rename: nodes that share a machine may do it at once."""
    target = shlex.quote(layout.code(bundle.digest))
    there = f"[ -e {target}/__main__.py ]"
    payload = tuple(PayloadFile(f"code/{file.path}", file.data, file.mode) for file in bundle.files)
    step = Step(
        name="node code",
        check=there,
        act=f'mkdir -p {shlex.quote(layout.codes)}\nmv -T "$S/code" {target} 2>/dev/null || {there}',
        verify=there,
    )
    return step, payload
