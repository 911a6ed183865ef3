"""Resolves the user's requirements once, on the operator's machine, into versions with hashes.

uv does the work.  Without requirements of the user nothing is asked of the network.
"""

import hashlib
import re
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.tags import compatible_tags, cpython_tags
from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from rain_deploy.core.spec import (
    NODE_PYTHON,
    NODE_PYTHON_TEXT,
    NODE_REQUIREMENTS,
    EnvironmentSpec,
    ResolvedEnvironment,
)
from rain_deploy.errors import InputError
from rain_deploy.parts.supply.cache import run_uv

_REFUSED = re.compile(
    r"\s*(-e|--editable|-i|--(?:extra-)?index-url|-f|--find-links|--no-index)\b"
    r"|(?:.*@\s*)?((?:\.{0,2}/|file:|(?:git|hg|svn|bzr)\+)\S*|(?!https?://)[^\s@]+\.whl$)"
)
_NESTED = re.compile(r"\s*(?:-r|--requirement)[\s=]+(.+?)\s*(?:#.*)?$")


def resolve(spec: EnvironmentSpec, base_lock: str) -> ResolvedEnvironment:
    """Return what the nodes get: ``base_lock`` together with the user's requirements.

    Versions of ``base_lock`` stay where possible.  Raises InputError for files that cannot be read, lines
    and wheels that nodes cannot install, and requirements that conflict.
    """
    wheels = tuple((path.name, _wheel(path)) for path in spec.wheels)
    environment = unresolved(spec, base_lock)
    if not (spec.requirements or spec.packages or wheels):
        return environment
    lock = _compiled(spec, base_lock, wheels)
    for file_name, content in wheels:  # the user's own wheels are pinned to those very files
        name, version = parse_wheel_filename(file_name)[:2]
        own = f"{name}=={version} \\\n    --hash=sha256:{hashlib.sha256(content).hexdigest()}\n"
        head = re.escape(f"{name}=={version}")
        lock = own.join(re.split(rf"(?m)^{head} \\\n(?:    --hash=\S+(?: \\)?\n)+", lock))
    return replace(environment, lock_text=lock, wheels=wheels)


def unresolved(spec: EnvironmentSpec, base_lock: str) -> ResolvedEnvironment:
    """Return what the nodes get, without the user's requirements: nothing is asked of the network."""
    setup = _text(spec.setup, "setup") if spec.setup else ""
    return ResolvedEnvironment(lock_text=base_lock, apt=spec.apt, setup=setup)


def asked(spec: EnvironmentSpec, base_lock: str) -> str:
    """Return the digest of all that ``resolve`` reads: if it is the same, a kept resolution still holds."""
    texts = list(_requirement_files(spec.requirements)) if spec.requirements else []
    setup = unresolved(spec, base_lock).setup
    wheels = [(path.name, hashlib.sha256(_wheel(path)).hexdigest()) for path in spec.wheels]
    read = ((base_lock, spec.packages, spec.apt), (texts, setup), *wheels)
    return hashlib.sha256("".join(map(repr, read)).encode()).hexdigest()


def _text(path: Path, flag: str) -> str:
    """Return the text of a file that ``flag`` names.  Raises InputError if it cannot be read."""
    try:
        return path.read_bytes().decode("utf-8")
    except OSError as error:
        is_directory = isinstance(error, IsADirectoryError)
        problem = "is a directory, not a file" if is_directory else f"cannot be read: {error.strerror}"
        raise InputError(f"{flag}: {path} {problem}", next_step=f"name a file for {flag}") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        message = f"{flag}: {path}, line {line}, is not UTF-8"
        raise InputError(message, next_step=f"save {path} as UTF-8") from error


def _requirement_files(path: Path, seen: frozenset[Path] = frozenset()) -> Iterator[str]:
    """Yield the texts of a requirements file and those it names.  Raises InputError for unusable lines."""
    text = _text(path, "requirements")
    yield text
    for number, line in enumerate(text.splitlines(), 1):
        if refused := _REFUSED.match(line):
            raise InputError(
                f"requirements: {path}, line {number}: {refused[1] or refused[2]} cannot be used here: "
                "nodes install released packages by hash",
                next_step="give a wheel with --with FILE, or name another index in uv's own configuration",
            )
        if (nested := _NESTED.match(line)) and (other := path.parent / nested[1]) not in seen:
            yield from _requirement_files(other, seen | {path, other})


def _wheel(path: Path) -> bytes:
    """Return the content of a wheel.  Raises InputError unless a node can install it."""
    try:
        tags = parse_wheel_filename(path.name)[3]
        content = path.read_bytes()
        with zipfile.ZipFile(path) as archive:
            complete = any(name.endswith(".dist-info/METADATA") for name in archive.namelist())
    except InvalidWheelFilename as error:
        problem = f"{path} is not named like a wheel: {error}"
    except OSError as error:
        problem = f"the wheel {path} cannot be read: {error.strerror}"
    except zipfile.BadZipFile as error:
        problem = f"{path} is not a wheel: {error}"
    else:
        platforms = [f"manylinux_2_{minor}_x86_64" for minor in range(40, 4, -1)]
        platforms += ["manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64", "linux_x86_64"]
        interpreter = "cp{}{}".format(*NODE_PYTHON)
        binary = cpython_tags(NODE_PYTHON, [interpreter], platforms)
        fitting = (*binary, *compatible_tags(NODE_PYTHON, interpreter, platforms))
        if not complete:
            problem = f"{path} is not a wheel: it has no package metadata"
        elif tags.isdisjoint(fitting):
            problem = f"{path} does not fit the nodes: x86-64 Linux with Python {NODE_PYTHON_TEXT}"
        else:
            return content
    next_step = f"name a wheel for x86-64 Linux and Python {NODE_PYTHON_TEXT}"
    raise InputError(f"--with: {problem}", next_step=next_step)


def _compiled(spec: EnvironmentSpec, base_lock: str, wheels: tuple[tuple[str, bytes], ...]) -> str:
    for package in spec.packages:
        try:
            Requirement(package)
        except InvalidRequirement as error:
            reason = str(error).partition("\n")[0]
            raise InputError(
                f"--with: {package!r} is neither a package nor a wheel: {reason}",
                next_step="name it as --with NAME, --with NAME==VERSION or --with FILE.whl",
            ) from error
    pins = ["{}=={}".format(*parse_wheel_filename(name)[:2]) for name, _content in wheels]
    with tempfile.TemporaryDirectory(prefix="rain-deploy-") as directory:
        work = Path(directory)
        (work / "wheels").mkdir()
        for name, content in wheels:
            (work / "wheels" / name).write_bytes(content)
        (work / "own.in").write_text("\n".join([*NODE_REQUIREMENTS, *spec.packages, *pins, ""]))
        lock = work / "lock.txt"
        lock.write_text(base_lock)  # uv keeps the versions that it finds in its output
        sources = [str(work / "own.in")]
        if spec.requirements:
            list(_requirement_files(spec.requirements))
            sources.append(str(spec.requirements.absolute()))
        done = run_uv(
            *("pip", "compile", "--python-version", NODE_PYTHON_TEXT),
            *("--python-platform", "x86_64-unknown-linux-gnu", "--generate-hashes", "--no-emit-index-url"),
            *("--no-header", "--no-annotate", "--find-links", str(work / "wheels")),
            *("--output-file", str(lock), *sources),
            late="the requirements were not resolved",
        )
        if done.returncode:
            printed = done.stderr.strip()
            raise InputError(
                f"{_where(spec, printed)} cannot be resolved",
                details=printed[-2000:],
                next_step="correct the names and versions shown above",
            )
        return lock.read_text("utf-8")


def _where(spec: EnvironmentSpec, printed: str) -> str:
    """Return the file and line that uv's message is about, as far as can be determined."""
    if not spec.requirements:
        return "what --with asks for"
    path, text = spec.requirements, _text(spec.requirements, "requirements")
    if found := re.search(rf"{re.escape(path.name)}:(\d+)", printed):
        return f"requirements: {path}, line {found[1]},"
    if found := re.search(rf"{re.escape(path.name)}` at position (\d+)", printed):
        breaks = text.encode()[: int(found[1])].count(b"\n")
        return f"requirements: {path}, line {breaks + 1},"
    for number, line in enumerate(text.splitlines(), 1):
        name = re.match(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)", line)
        if name and re.search(rf"(?<![\w-]){re.escape(name[1])}(?![\w-])", printed, re.IGNORECASE):
            return f"requirements: {path}, line {number}: {line.strip()}"
    return f"requirements: {path}"
