"""A node's Python environment: named by what it holds, built by uv where it is not there."""

from __future__ import annotations

import functools
import hashlib
import re
import shlex

from rain_deploy.core.environment import NODE_PYTHON_TEXT, ResolvedEnvironment
from rain_deploy.core.layout import Layout
from rain_deploy.core.machine import Facts
from rain_deploy.core.step import PayloadFile, Step
from rain_deploy.errors import InputError
from rain_deploy.parts.shell import PACKAGE, render
from rain_deploy.parts.steps import packages_step, program_step
from rain_deploy.parts.uv import uv_pin

_APT_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]*[a-z0-9+.](:[a-z0-9]+)?(=\S+)?")


@functools.cache
def node_lock() -> str:
    """The locked set of our own (extra ``node``), with hashes."""
    return (PACKAGE / "parts/locks/node.lock").read_text("ascii")


@functools.cache
def compat_files() -> tuple[tuple[str, bytes], ...]:
    """(name, content) of what makes Rain's client work on today's Python; part of every environment."""
    files = sorted((PACKAGE / "companion/compat").iterdir())
    return tuple((file.name, file.read_bytes()) for file in files if file.suffix in {".py", ".pth"})


def environment_digest(environment: ResolvedEnvironment) -> str:
    """Name of the environment: any change of what it is made from changes it."""
    digest = hashlib.sha256(f"{NODE_PYTHON_TEXT}\n".encode())
    parts = [environment.lock_text.encode(), environment.setup.encode()]
    parts += [package.encode() for package in environment.apt]
    parts += [part for file in (*environment.wheels, *compat_files()) for part in (file[0].encode(), file[1])]
    for part in parts:
        digest.update(b"%d\n%b" % (len(part), part))
    return digest.hexdigest()[:32]


def check_packages(apt: tuple[str, ...]) -> None:
    """Raises InputError for what apt-get would not take as a package to install."""
    for package in apt:
        if not _APT_NAME.fullmatch(package):
            raise InputError(
                f"apt: {package!r} is no name of a Debian package",
                next_step="correct `apt` in the config file",
            )


def environment_steps(
    layout: Layout, facts: Facts, environment: ResolvedEnvironment, *, uv: bytes | None = None
) -> tuple[tuple[Step, ...], tuple[PayloadFile, ...]]:
    """Have the environment on a host; the payload leaves out what facts name as there.

    ``uv``: the program of ``uv_pin``; may be None where the host has it.  ``apt`` and ``setup`` need root;
    callers have refused hosts without it.  The last step is ``parallel`` and may run with the engine's.
    """
    digest = environment_digest(environment)
    path = layout.environment(digest)
    root = (*_apt(environment), *_setup(layout, digest, environment))
    setup = (PayloadFile("env/setup", environment.setup.encode()),) if environment.setup else ()
    if f"{path}/.ok" in facts.have:
        return (*root, _built(layout, facts, digest)), setup
    program = layout.uv(uv_pin().binary_sha256)
    payload = [PayloadFile("env/requirements.txt", environment.lock_text.encode())]
    payload += [PayloadFile(f"env/wheels/{name}", content) for name, content in environment.wheels]
    payload += [PayloadFile(f"env/compat/{name}", content) for name, content in compat_files()]
    if uv is not None and program not in facts.have:
        payload.append(PayloadFile("env/uv", uv, 0o755))
    placed = program_step("uv", "env/uv", program, uv_pin().binary_sha256)
    return (*root, placed, _built(layout, facts, digest)), (*setup, *payload)


def _apt(environment: ResolvedEnvironment) -> tuple[Step, ...]:
    return (packages_step("apt packages", environment.apt),) if environment.apt else ()


def _setup(layout: Layout, digest: str, environment: ResolvedEnvironment) -> tuple[Step, ...]:
    """Once per machine and environment, so also where several nodes share a machine."""
    if not environment.setup:
        return ()
    marker = f"{layout.environment(digest)}.setup"
    first_line = environment.setup.partition("\n")[0]
    interpreter = first_line.removeprefix("#!").split() if first_line.startswith("#!") else ["sh"]
    act = render(
        "setup.sh.j2", directory=layout.environments, marker=marker, interpreter=shlex.join(interpreter)
    )
    return (Step("set-up script", act, check=f"[ -e {shlex.quote(marker)} ]"),)


def _built(layout: Layout, facts: Facts, digest: str) -> Step:
    path = layout.environment(digest)
    ready = f"[ -e {shlex.quote(path)}/.ok ]"
    act = render(
        "environment.sh.j2",
        directory=layout.environments,
        path=path,
        python=facts.python,
        uv=layout.uv(uv_pin().binary_sha256),
        version=NODE_PYTHON_TEXT,
    )
    runs = f"{shlex.quote(path)}/bin/python -I -c 'import rain.client'"
    return Step("environment", act, check=ready, verify=f"{ready} && {runs}", parallel=True)
