"""Resolves the user's requirements once, on the operator's machine, into versions with hashes.

uv does the work.  Without requirements of the user nothing is asked of the network.
"""

import hashlib
import re
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.tags import compatible_tags, cpython_tags
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from rain_deploy.core.layout import TEMPORARY
from rain_deploy.core.spec import (
    NODE_PYTHON,
    NODE_PYTHON_TEXT,
    NODE_REQUIREMENTS,
    EnvironmentSpec,
    ResolvedEnvironment,
)
from rain_deploy.errors import InputError
from rain_deploy.parts.supply.cache import run_uv, uv_settings

_REFUSED = re.compile(
    r"\s*(-e|--editable|-i|--(?:extra-)?index-url|-f|--find-links|--no-index)\b"
    r"|(?:.*@\s*)?((?:\.{0,2}/|file:|(?:git|hg|svn|bzr)\+)\S*"
    r"|\.{1,2}(?:\[[^\]]*\])?(?=\s|$)|(?!https?://)[^\s@]+(?:\.whl|\.tar\.gz|\.zip|/)(?=\s|$))"
)
_NESTED = re.compile(r"\s*(?:-r|--requirement|-c|--constraint)[\s=]+(.+?)\s*(?:#.*)?$")
_HASH = re.compile(r"--hash[\s=](\w+:[0-9a-fA-F]+)")
_LOCKED = re.compile(
    r"(?m)^([a-z0-9-]+)(?:\[[^\]]*\])?(?:==| @ (?=https?://))(\S+)[^\n]*\\\n((?:    --hash=\S+(?: \\)?\n)+)"
)
"""A package of the lock: name, version or address, and lines with its hashes."""
_NAMELESS = re.compile(r"(?m)^(?![a-z0-9-]+(?:\[[^\]]*\])?(?:==| @ https?://))[^\s#].*$")
"""A line of the lock that nodes cannot install: uv takes it for a project of this machine."""


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of a requirements file, with those that continue it."""

    path: Path
    number: int
    text: str

    @property
    def place(self) -> str:
        return f"requirements: {self.path}, line {self.number}"


OTHER_STEP = "give a wheel with --with FILE, or name another index in uv's own configuration"
PROJECT_STEP = (
    "build a wheel of it (pip wheel --no-deps -w dist PROJECT), and give --with dist/NAME.whl instead"
)


def resolve(spec: EnvironmentSpec, base_lock: str) -> ResolvedEnvironment:
    """Return what the nodes get: ``base_lock`` together with the user's requirements.

    Versions of ``base_lock`` stay where possible.  Raises InputError for files that cannot be read, lines
    and wheels that nodes cannot install, and requirements that conflict.
    """
    wheels = tuple((path.name, _wheel(path)) for path in spec.wheels)
    environment = unresolved(spec, base_lock)
    if not (spec.requirements or spec.packages or wheels):
        return environment
    lock = _with_hashes(_compiled(spec, base_lock, wheels), spec)
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


def locked_names(lock: str) -> frozenset[str]:
    """Return the names of the packages in a lock."""
    return frozenset(found[1] for found in _LOCKED.finditer(lock))


def asked(spec: EnvironmentSpec, base_lock: str) -> str:
    """Return the digest of all that ``resolve`` reads: if it is the same, a kept resolution still holds."""
    texts = [text for _path, text in _requirement_files(spec.requirements)] if spec.requirements else []
    setup = unresolved(spec, base_lock).setup
    wheels = [(path.name, hashlib.sha256(_wheel(path)).hexdigest()) for path in spec.wheels]
    if spec.requirements or spec.packages:
        texts += uv_settings(Path.cwd())
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


def _requirement_files(path: Path, seen: frozenset[Path] = frozenset()) -> Iterator[tuple[Path, str]]:
    """Yield path and text of a requirements file and of all that it names, constraints too.

    Raises InputError for lines that nodes cannot use.
    """
    text = _text(path, "requirements")
    yield path, text
    for line in _lines(path, text):
        if refused := _REFUSED.match(line.text):
            what = refused[1] or refused[2]
            is_project = what.startswith(("-e", "--editable", ".")) or what.endswith("/")
            raise InputError(
                f"{line.place}: {what} cannot be used here: nodes install released packages by hash",
                next_step=PROJECT_STEP if is_project else OTHER_STEP,
            )
        if nested := _NESTED.match(line.text):
            if "://" in nested[1]:
                message = (
                    f"{line.place}: {nested[1]} may change: nodes are installed from files that are here"
                )
                raise InputError(message, next_step="download it, and name the file instead")
            if (other := path.parent / nested[1]) not in seen:
                yield from _requirement_files(other, seen | {path, other})


def _lines(path: Path, text: str) -> Iterator[_Line]:
    """Yield the logical lines of a requirements file; a backslash at the end continues a line."""
    begun, number = "", 0
    for count, line in enumerate(text.splitlines(), 1):
        number = number if begun else count
        begun += line.removesuffix("\\")
        if not line.endswith("\\"):
            yield _Line(path, number, begun)
            begun = ""
    if begun:
        yield _Line(path, number, begun)


def _with_hashes(lock: str, spec: EnvironmentSpec) -> str:
    """Return the lock with only those hashes that the requirements give, for each package that has some.

    Raises InputError if the index has no file with one of them.
    """
    given: dict[str, tuple[_Line, set[str]]] = {}
    files = _requirement_files(spec.requirements) if spec.requirements else ()
    for path, text in files:
        for line in _lines(path, text):
            if hashes := {found.lower() for found in _HASH.findall(line.text)}:
                name = line.text.split()[0]  # a bare address, or what begins with a name
                if not name.startswith(("https://", "http://")):
                    name = canonicalize_name(re.split(r"[\[=<>~!;@]", name, maxsplit=1)[0])
                given.setdefault(name, (line, set()))[1].update(hashes)

    def kept(found: re.Match[str]) -> str:
        name, version, lines = found.groups()
        if not (asked_for := given.get(name) or given.get(version)):
            return found[0]
        line, hashes = asked_for
        if both := sorted(hashes & set(_HASH.findall(lines))):
            return found[0].removesuffix(lines) + " \\\n".join(f"    --hash={one}" for one in both) + "\n"
        file = f"no file of {name} {version} in the package index has"
        if "://" in version:
            file = f"{version} does not have"
        raise InputError(
            f"{line.place}: {file} the hash given there",
            next_step=f"correct the hash (sha256), or remove it, in {line.path}",
        )

    return _LOCKED.sub(kept, lock)


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
            step = "name it as --with NAME, --with NAME==VERSION or --with FILE.whl"
            raise InputError(
                f"--with: {package!r} is neither a package nor a wheel: {reason}",
                next_step=PROJECT_STEP if Path(package).is_dir() else step,
            ) from error
    pins = ["{}=={}".format(*parse_wheel_filename(name)[:2]) for name, _content in wheels]
    with tempfile.TemporaryDirectory(prefix=TEMPORARY) as directory:
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
        text = lock.read_text("utf-8")
        if local := _NAMELESS.search(text):
            message = f"{local[0]} cannot be used here: nodes install released packages by hash"
            raise InputError(f"requirements: {message}", next_step=PROJECT_STEP)
        return text


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
