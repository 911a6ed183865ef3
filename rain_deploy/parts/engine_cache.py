"""Programs for the nodes that are kept on the operator's machine: engines, and uv.

``HOME/cache/engine/ARCH-glibcVERSION/<sha256>/rain`` with ``…/from/<key>`` naming what an engine came from;
``HOME/cache/uv/<sha256>/uv``.  Entries appear by rename; a damaged one counts as absent and is removed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rain_deploy.core.environment import UvPin, uv_environment
from rain_deploy.errors import InputError, StateError, disk_full, full

DEADLINE_S = 900.0


class EngineCache:
    """Engines by what they came from and where they run.  Safe for many processes at once."""

    def __init__(self, home: Path) -> None:
        self._root = home / "cache/engine"

    def find(self, key: str, arch: str, glibc: str) -> tuple[str, bytes] | None:
        """(sha256, binary) of an engine from ``key`` that runs on a host of this kind."""
        newest = _version(glibc)
        kinds = [
            (_version(path.name.partition("-glibc")[2]), path) for path in self._root.glob(f"{arch}-glibc*")
        ]
        for built, kind in sorted(kinds, reverse=True):
            if built > newest:
                continue
            with contextlib.suppress(OSError):
                sha256 = (kind / "from" / key).read_text("ascii").strip()
                if (binary := _whole(kind / sha256 / "rain", sha256)) is not None:
                    return sha256, binary
        return None

    def store(self, key: str, arch: str, glibc: str, binary: bytes) -> str:
        """Keep an engine that was made from ``key`` on a host of this kind; returns its SHA-256."""
        sha256 = hashlib.sha256(binary).hexdigest()
        kind = self._root / f"{arch}-glibc{glibc}"
        _write(kind / sha256 / "rain", binary)
        _write(kind / "from" / key, f"{sha256}\n".encode())
        return sha256


def uv_program(home: Path, pin: UvPin) -> bytes:
    """The pinned uv for x86-64 Linux: of this installation, cached, or fetched.

    Raises InputError when it cannot be had, StateError when it cannot be kept.
    """
    from uv import find_uv_bin  # noqa: PLC0415  only where a node needs it

    kept = home / "cache/uv" / pin.binary_sha256 / "uv"
    for path in (Path(find_uv_bin()), kept):
        with contextlib.suppress(OSError):
            if (program := _whole(path, pin.binary_sha256, remove=path == kept)) is not None:
                return program
    program = _fetched_uv(find_uv_bin(), pin)
    _write(kept, program)
    return program


def _fetched_uv(uv: str, pin: UvPin) -> bytes:
    """The wheel for the nodes' platform comes by uv itself, checked against our hash."""
    with tempfile.TemporaryDirectory(prefix="rain-deploy-") as directory:
        work = Path(directory)
        (work / "uv.txt").write_text(f"uv=={pin.version} --hash=sha256:{pin.wheel_sha256}\n")
        argv = [uv, "pip", "install", "--quiet", "--color", "never", "--python", sys.executable]
        argv += ["--target", str(work / "out"), "--python-platform", "x86_64-manylinux_2_17"]
        argv += ["--no-deps", "--only-binary", ":all:", "--require-hashes", "-r", str(work / "uv.txt")]
        try:
            done = subprocess.run(
                argv,
                capture_output=True,
                text=True,
                timeout=DEADLINE_S,
                env=uv_environment(os.environ),
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise InputError(f"uv {pin.version} was not fetched within {DEADLINE_S:.0f} s") from error
        if done.returncode:
            raise InputError(
                f"uv {pin.version} for the nodes cannot be fetched from the package index",
                details=done.stderr.strip()[-2000:],
            )
        program = (work / "out/bin/uv").read_bytes()
    if hashlib.sha256(program).hexdigest() != pin.binary_sha256:
        raise InputError(f"uv {pin.version} from the package index is not the program that is pinned")
    return program


def _version(text: str) -> tuple[int, ...]:
    """Of glibc; an unknown one is older than all."""
    return tuple(int(part) for part in text.split(".") if part.isdigit())


def _whole(path: Path, sha256: str, *, remove: bool = True) -> bytes | None:
    """Content with this digest; a file with another one is removed."""
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() == sha256:
        return content
    if remove:
        path.unlink()
    return None


@contextlib.contextmanager
def _kept(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if full(error):
            raise disk_full(path) from error
        raise StateError(f"{path} cannot be written: {error.strerror}") from error


def _write(path: Path, content: bytes) -> None:
    with _kept(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".new-", delete=False) as file:
            new = Path(file.name)
            try:
                file.write(content)
                file.flush()
                new.replace(path)
            except OSError:
                new.unlink(missing_ok=True)
                raise
