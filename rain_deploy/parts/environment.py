"""A node's Python environment: named by what it holds, built there by uv."""

from __future__ import annotations

import functools
import hashlib
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from rain_deploy.core.cluster import Node
from rain_deploy.core.spec import NODE_PYTHON_TEXT, ResolvedEnvironment
from rain_deploy.core.step import PayloadFile, Stage
from rain_deploy.errors import InputError
from rain_deploy.parts.part import Part, Shared, facts_of, having
from rain_deploy.parts.shell import PACKAGE, step
from rain_deploy.parts.supply.cache import uv_pin

DEADLINE_S = 3600.0
"""An installation on a slow machine, with its downloads."""
DISK_BYTES = 6 << 30
"""An environment with TensorFlow, the engine's build, and room for work."""
_OTHER_PYTHON = re.compile(r"Linux (Debian (?!12 )[0-9]+ \(\w+\)|Ubuntu [0-9]{2}\.[0-9]{2}( LTS)?) 64-bit")
"""Exoscale's names of its own templates with another Python than 3.11."""
_APT_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]*[a-z0-9+.](:[a-z0-9]+)?(=\S+)?")


@functools.cache
def node_lock() -> str:
    """Return our own locked set (extra ``node``), with hashes."""
    return (PACKAGE / "parts/locks/node.lock").read_text("ascii")


@functools.cache
def compat_files() -> tuple[tuple[str, bytes], ...]:
    """Return (name, content) of what makes Rain's client work on Python 3.11; part of every environment."""
    files = sorted((PACKAGE / "companion/compat").iterdir())
    return tuple((file.name, file.read_bytes()) for file in files if file.suffix in {".py", ".pth"})


def environment_digest(environment: ResolvedEnvironment) -> str:
    """Return the environment's name: any change of what it is made from changes it."""
    digest = hashlib.sha256(f"{NODE_PYTHON_TEXT}\n".encode())
    parts = [environment.lock_text.encode(), environment.setup.encode()]
    parts += [package.encode() for package in environment.apt]
    parts += [part for file in (*environment.wheels, *compat_files()) for part in (file[0].encode(), file[1])]
    for part in parts:
        digest.update(b"%d\n%b" % (len(part), part))
    return digest.hexdigest()[:32]


def check_packages(apt: tuple[str, ...]) -> None:
    """Refuse names that apt-get would not take as a package to install.  Raises InputError."""
    for package in apt:
        if not _APT_NAME.fullmatch(package):
            message = f"apt: {package!r} is not a Debian package name"
            raise InputError(message, next_step="correct `apt` in the config file")


@dataclass(frozen=True, slots=True)
class Environment(Part):
    """The Python environment."""

    shared: Shared
    stage_name = "install"

    @property
    def _path(self) -> str:
        """Usable only when ``.ok`` exists in it."""
        return self.shared.layout.environment(self.shared.cluster.env_digest)

    def refusals(self, node: Node) -> Iterator[InputError]:
        facts, needed, name = facts_of(node), self.lacks(node), node.name
        if facts.arch != "x86_64":
            yield InputError(f"it is {facts.arch}; nodes are x86-64 Linux", node=name)
        if (self.shared.environment.apt or self.shared.environment.setup) and not facts.root:
            yield InputError(
                f"`apt` and `setup` need root, and {facts.user} has neither root nor passwordless sudo there",
                node=name,
                next_step="leave apt and setup out, or use an account with root",
            )
        if needed and not facts.python:
            yield no_python(node)
        if needed and facts.disk_free_bytes < DISK_BYTES:
            yield InputError(
                f"{facts.disk_free_bytes >> 20} MiB of disk are free; {DISK_BYTES >> 20} MiB are needed",
                node=name,
                next_step="free disk space there, or use machines with a larger disk",
            )

    def lacks(self, node: Node) -> str | None:
        there = f"{self._path}/.ok" in facts_of(node).have
        return None if there else "the Python environment will be installed (2 GB of disk)"

    def stage(self, node: Node) -> Stage:
        """Install ``apt`` packages, run ``setup``, then let uv build the environment.

        The payload leaves out what the node has.
        """
        facts, layout, environment = facts_of(node), self.shared.layout, self.shared.environment
        uv = layout.uv(uv_pin().binary_sha256)
        steps = [step("apt packages", "apt.sh.j2", packages=environment.apt)] if environment.apt else []
        payload = []
        if setup := environment.setup:
            line, marker = setup.partition("\n")[0], f"{self._path}.setup"
            interpreter = shlex.join(line[2:].split() if line.startswith("#!") else ["sh"])
            steps.append(step("set-up script", "setup.sh.j2", interpreter=interpreter, makes=marker))
            payload.append(PayloadFile("env/setup", setup.encode()))
        if self.lacks(node):
            sha256 = uv_pin().binary_sha256
            steps.append(step("uv", "place.sh.j2", makes=uv, sha256=sha256, source="env/uv"))
            payload.append(PayloadFile("env/requirements.txt", environment.lock_text.encode()))
            payload += [PayloadFile(f"env/wheels/{name}", data) for name, data in environment.wheels]
            payload += [PayloadFile(f"env/compat/{name}", data) for name, data in compat_files()]
            if self.shared.uv is not None and uv not in facts.have:
                payload.append(PayloadFile("env/uv", self.shared.uv, 0o755))
        built = step(
            "environment",
            "environment.sh.j2",
            parallel=True,
            makes=f"{self._path}/.ok",
            path=self._path,
            python=facts.python,
            uv=uv,
            version=NODE_PYTHON_TEXT,
        )
        steps.append(built)
        return Stage(self.stage_name, tuple(steps), tuple(payload), deadline_s=DEADLINE_S, installs=True)

    def done(self, node: Node) -> Node:
        return having(node, f"{self._path}/.ok")


def refuse_template(name: str) -> None:
    """Raise InputError for a machine template that is known to bring another Python, before it is paid for.

    Others are found out when their machine answers; ``up`` then takes it away again.
    """
    if _OTHER_PYTHON.fullmatch(name):
        raise InputError(
            f"template {name} has no Python {NODE_PYTHON_TEXT}, which Rain's client needs",
            next_step='--template "Linux Debian 12 (Bookworm) 64-bit"',
        )


def no_python(node: Node) -> InputError:
    """Return the refusal of a node without the Python that Rain's client needs.

    uv does not bring one: it would come from a release page, which many nodes cannot reach.
    """
    return InputError(
        f"there is no Python {NODE_PYTHON_TEXT}, which Rain's client needs",
        node=node.name,
        next_step=f"use Debian 12, or install Python {NODE_PYTHON_TEXT} there as python{NODE_PYTHON_TEXT}",
    )
