"""uv: how it is called on this machine, and the pinned program of it that nodes get."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rain_deploy.errors import InputError
from rain_deploy.parts.shell import PACKAGE
from rain_deploy.parts.supply.cache import keep, whole

DEADLINE_S = 900.0


@dataclass(frozen=True, slots=True)
class UvPin:
    """The uv that builds environments: a line ``uv version wheel-sha256 binary-sha256``."""

    version: str
    wheel_sha256: str
    """Digest of uv's wheel for x86-64 Linux."""
    binary_sha256: str
    """Digest of the program in that wheel."""


@functools.cache
def uv_pin() -> UvPin:
    """Return the uv that nodes get."""
    _name, *fields = (PACKAGE / "parts/locks/uv.lock").read_text("ascii").split()
    return UvPin(*fields)


def uv_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return uv's environment: it trusts the system's certificates unless ``environ`` says otherwise."""
    return {**environ} if "UV_NATIVE_TLS" in environ else {"UV_SYSTEM_CERTS": "1", **environ}


def run_uv(*arguments: str, late: str) -> subprocess.CompletedProcess[str]:
    """Run uv for this Python and return how it ended.  Raises InputError ``late`` after DEADLINE_S."""
    from uv import find_uv_bin  # noqa: PLC0415  only where uv is needed

    argv = [find_uv_bin(), *arguments, "--quiet", "--color", "never", "--python", sys.executable]
    environ = uv_environment(os.environ)
    try:
        return subprocess.run(
            argv, capture_output=True, text=True, timeout=DEADLINE_S, env=environ, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise InputError(
            f"{late} within {DEADLINE_S:.0f} s",
            next_step="check that the package index answers, then type the same command again",
        ) from error


def uv_program(home: Path, pin: UvPin) -> bytes:
    """Return the pinned uv for x86-64 Linux: from this installation, the cache, or the package index.

    ``HOME/cache/uv/<sha256>/uv`` keeps it.  Raises InputError if it cannot be fetched, StateError if it
    cannot be kept.
    """
    from uv import find_uv_bin  # noqa: PLC0415  only where a node needs it

    kept = home / "cache/uv" / pin.binary_sha256 / "uv"
    for path in (Path(find_uv_bin()), kept):
        with contextlib.suppress(OSError):
            if (program := whole(path, pin.binary_sha256, remove=path == kept)) is not None:
                return program
    program = _fetched(pin)
    keep(kept, program)
    return program


def _fetched(pin: UvPin) -> bytes:
    """Fetch the wheel for the nodes' platform with uv itself, checked against our hash."""
    with tempfile.TemporaryDirectory(prefix="rain-deploy-") as directory:
        work = Path(directory)
        (work / "uv.txt").write_text(f"uv=={pin.version} --hash=sha256:{pin.wheel_sha256}\n")
        done = run_uv(
            *("pip", "install", "--target", str(work / "out"), "--python-platform", "x86_64-manylinux_2_17"),
            *("--no-deps", "--only-binary", ":all:", "--require-hashes", "-r", str(work / "uv.txt")),
            late=f"uv {pin.version} was not fetched",
        )
        if done.returncode:
            raise InputError(
                f"uv {pin.version} for the nodes cannot be fetched from the package index",
                details=done.stderr.strip()[-2000:],
            )
        program = (work / "out/bin/uv").read_bytes()
    if hashlib.sha256(program).hexdigest() != pin.binary_sha256:
        raise InputError(f"uv {pin.version} from the package index is not the program that is pinned")
    return program
