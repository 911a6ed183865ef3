"""Programs for the nodes that are kept on the operator's machine: engines and uv; and how uv is called here.

``HOME/cache/engine/ARCH-glibcVERSION/<sha256>/rain`` is an engine; ``…/from/<key>`` names the one made from
``key``.  ``HOME/cache/uv/<sha256>/uv`` is a uv.  Entries appear by rename; a damaged one counts as absent and
is removed.
"""

import contextlib
import functools
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from rain_deploy.core.layout import TEMPORARY
from rain_deploy.errors import InputError, StateError, disk_full, full
from rain_deploy.parts.shell import PACKAGE

UV_DEADLINE_S = 900.0
_NAMING_FILES = ("UV_CONFIG_FILE", "UV_CONSTRAINT", "UV_OVERRIDE", "UV_EXCLUDE")
_CREDENTIAL = re.compile("USERNAME|PASSWORD|TOKEN")
_LOGIN = re.compile(r"//[^/@\s]*@")  # in the address of an index


class EngineCache:
    """Engines by what they were made from and where they run.  Safe for many processes at once."""

    def __init__(self, home: Path) -> None:
        self._root = home / "cache/engine"

    def find(self, key: str, arch: str, glibc: str) -> tuple[str, bytes] | None:
        """Return (sha256, binary) of an engine made from ``key`` that runs on a host of this kind."""
        kinds = ((_version(kind.name), kind) for kind in self._root.glob(f"{arch}-glibc*"))
        for built, kind in sorted(kinds, reverse=True):
            if built <= _version(glibc):
                with contextlib.suppress(OSError):
                    sha256 = (kind / "from" / key).read_text("ascii").strip()
                    if (binary := _whole(kind / sha256 / "rain", sha256)) is not None:
                        return sha256, binary
        return None

    def store(self, key: str, arch: str, glibc: str, binary: bytes) -> str:
        """Keep an engine that was made from ``key`` on a host of this kind; return its SHA-256."""
        sha256 = hashlib.sha256(binary).hexdigest()
        kind = self._root / f"{arch}-glibc{glibc}"
        _keep(kind / sha256 / "rain", binary)
        _keep(kind / "from" / key, f"{sha256}\n".encode())
        return sha256


@dataclass(frozen=True, slots=True)
class UvPin:
    """The uv that builds environments; digests of its wheel for x86-64 Linux and of the program in it."""

    version: str
    wheel_sha256: str
    binary_sha256: str


@functools.cache
def uv_pin() -> UvPin:
    """Return the uv that nodes get."""
    _name, *fields = (PACKAGE / "parts/locks/uv.lock").read_text("ascii").split()
    return UvPin(*fields)


def uv_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return uv's environment: it trusts the system's certificates unless ``environ`` says otherwise."""
    return {**environ} if "UV_NATIVE_TLS" in environ else {"UV_SYSTEM_CERTS": "1", **environ}


def uv_settings(directory: Path) -> Iterator[str]:
    """Yield what uv itself reads that may change the versions, when it resolves in a directory."""
    environ = {name: value for name, value in os.environ.items() if name.startswith("UV_") and value}
    for name in sorted(environ):
        if not _CREDENTIAL.search(name):
            yield f"{name} {_LOGIN.sub('//', environ[name])}"
    files = {name: environ.get(name, "").split() for name in _NAMING_FILES}
    personal = os.environ.get("XDG_CONFIG_HOME") or f"{os.environ.get('HOME', '')}/.config"
    everyones = [*os.environ.get("XDG_CONFIG_DIRS", "/etc/xdg").split(":"), "/etc"]
    files["uv.toml"] = [f"{place}/uv/uv.toml" for place in (personal, *everyones)]
    for name, paths in files.items():
        for path in paths:
            with contextlib.suppress(OSError):
                yield f"{name} {Path(path).read_text(errors='replace')}"
    for place in (directory, *directory.parents):
        with contextlib.suppress(OSError):
            yield (place / "uv.toml").read_text(errors="replace")
            return
        with contextlib.suppress(OSError, ValueError):
            tool = tomllib.loads((place / "pyproject.toml").read_text()).get("tool", {})
            if "uv" in tool:
                yield repr(tool["uv"])
                return


def run_uv(*arguments: str, late: str) -> subprocess.CompletedProcess[str]:
    """Run uv for this Python and return how it ended.  Raises InputError ``late`` after UV_DEADLINE_S."""
    from uv import find_uv_bin  # noqa: PLC0415  only where uv is needed

    argv = [find_uv_bin(), *arguments, "--quiet", "--color", "never", "--python", sys.executable]
    environ = uv_environment(os.environ)
    try:
        return subprocess.run(
            argv, capture_output=True, text=True, timeout=UV_DEADLINE_S, env=environ, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise InputError(
            f"{late} within {UV_DEADLINE_S:.0f} s",
            next_step="check that the package index answers, then type the same command again",
        ) from error


def uv_program(home: Path, pin: UvPin) -> bytes:
    """Return the pinned uv: from here, the cache or the package index.  Raises InputError, StateError."""
    from uv import find_uv_bin  # noqa: PLC0415  only where a node needs it

    kept = home / "cache/uv" / pin.binary_sha256 / "uv"
    for path in (Path(find_uv_bin()), kept):
        with contextlib.suppress(OSError):
            if (program := _whole(path, pin.binary_sha256, remove=path == kept)) is not None:
                return program
    with tempfile.TemporaryDirectory(prefix=TEMPORARY) as directory:
        work = Path(directory)
        (work / "uv.txt").write_text(f"uv=={pin.version} --hash=sha256:{pin.wheel_sha256}\n")
        done = run_uv(
            *("pip", "install", "--target", str(work / "out"), "--python-platform", "x86_64-manylinux_2_17"),
            *("--no-deps", "--only-binary", ":all:", "--require-hashes", "-r", str(work / "uv.txt")),
            late=f"uv {pin.version} was not fetched",
        )
        if done.returncode:
            message = f"uv {pin.version} for the nodes cannot be fetched from the package index"
            raise InputError(message, details=done.stderr.strip()[-2000:])
        program = (work / "out/bin/uv").read_bytes()
    if hashlib.sha256(program).hexdigest() != pin.binary_sha256:
        raise InputError(f"uv {pin.version} from the package index is not the program that is pinned")
    _keep(kept, program)
    return program


def _whole(path: Path, sha256: str, *, remove: bool = True) -> bytes | None:
    """Return the file's content if it has this digest; else None, and ``remove`` it."""
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() == sha256:
        return content
    if remove:
        path.unlink()
    return None


def _keep(path: Path, content: bytes) -> None:
    """Write a file of the cache, by rename.  Raises StateError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".new-") as draft:
            (Path(draft) / path.name).write_bytes(content)
            (Path(draft) / path.name).replace(path)
    except OSError as error:
        if full(error):
            raise disk_full(path) from error
        raise StateError(f"{path} cannot be written: {error.strerror}") from error


def _version(text: str) -> tuple[int, ...]:
    """Return the version of glibc at the end of a text as numbers; an unknown one is older than all."""
    return tuple(int(part) for part in text.rpartition("glibc")[2].split(".") if part.isdigit())
