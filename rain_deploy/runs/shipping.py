"""Collects what is shipped with a run: the script, the modules and files it names, and ``--files``.

The script is read, not run (``source``).  Every file keeps its place relative to the script's working
directory, so that the same relative paths and imports work on the nodes.
"""

import contextlib
import glob
import hashlib
import itertools
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from rain_deploy.core.run import Shipment, ShippedFile, Unsent
from rain_deploy.core.spec import FunctionScript, RunSpec
from rain_deploy.core.step import PayloadFile
from rain_deploy.errors import InputError
from rain_deploy.node.wire import NeededModule
from rain_deploy.runs.source import LONGEST_PATH, UNKNOWN, Source, When, read_script, scan

ASK_ABOVE_BYTES = 100_000_000  # shipping more than this needs the user's agreement
_NEVER = frozenset({".git", "__pycache__", ".venv"})
_SYSTEM = ("/dev/", "/etc/", "/proc/", "/sys/", "/usr/")  # A node has its own
_RESULTS = "results"  # below the working directory: pulled results
_MOST_SEEN = 10_000  # files that are counted below one directory


def collect(spec: RunSpec, cwd: Path, home: Path) -> Shipment:
    """Return what must be shipped with a run that is typed in ``cwd``; never what lies in ``home``.

    Raises InputError for a script that is not Python 3.11, for what cannot be read, and for what has no place
    relative to ``cwd``.
    """
    cwd = cwd.resolve()
    path = (cwd / spec.script).resolve()  # as Python does: the directory of what a linked script really is
    found = _Gathering(cwd, path, home.resolve(), spec.function)
    found.add_script()
    for given in spec.files:
        found.add_extra(given)
    for text in spec.args:
        found.add_argument(text)
    root = Path(os.path.commonpath([cwd, path.parent, *found.files, *found.directories]))
    return Shipment(
        root=root,
        cwd=cwd.relative_to(root).as_posix(),
        script=path.relative_to(root).as_posix(),
        files=tuple(found.shipped(file, root) for file in sorted(found.files)),
        directories=tuple(place.relative_to(root).as_posix() for place in sorted(found.directories)),
        missing=tuple(dict.fromkeys(found.missing)),
        unsent=found.unsent(),
        imports=found.needed(sure="PYTHONPATH" not in dict(spec.env)),
    )


def payload(shipment: Shipment) -> tuple[PayloadFile, ...]:
    """Read the files now and return them.  Raises InputError for one that changed since ``collect``."""
    files = []
    for file in shipment.files:
        if isinstance(file.source, bytes):
            data = file.source
        elif hashlib.sha256(data := _content(file.source)).hexdigest() != file.sha256:
            raise InputError(f"{file.source} changed while it was being shipped", next_step="run it again")
        files.append(PayloadFile(file.path, data, file.mode))
    return tuple(files)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError(f"cannot read {path}: {error.strerror or error}")


class _Gathering:
    """A collection in progress: absolute paths, as the script will name them."""

    def __init__(self, cwd: Path, script: Path, home: Path, function: FunctionScript | None) -> None:
        self._cwd = cwd
        self._script = script
        self._function = function
        self._home = home
        self._bases = (cwd, script.parent)
        self._search = [script.parent]
        """The user's own part of ``sys.path``."""
        self.files: set[Path] = {script}
        self.directories: set[Path] = {cwd}
        self.missing: list[str] = []
        self._seen: dict[str, Path] = {}
        """Directories and patterns of files that are named, as the user would write them."""
        self._sources: dict[Path, Source] = {}
        self._always: dict[Path, set[Path]] = {}
        """The modules that each module imports in any case."""

    def add_script(self) -> None:
        """Add the script, or a function's module, and breadth first all modules that are found from it."""
        first = self._function.module if self._function else self._script
        if first is None:
            return
        self.files.add(first)
        todo = [(first, read_script(first, self._name(first)))]
        while todo:
            module, source = todo.pop(0)
            self._sources[module] = source
            for text in source.search:
                place = Path(os.path.normpath(self._cwd / text))
                if not text.startswith("/") or any(map(place.is_relative_to, self._bases)):
                    self._search.append(place)
            self._add_named(module, source)
            for wanted in source.imports:
                modules = self._modules(module, wanted.name)
                if wanted.when == When.ALWAYS:
                    self._always.setdefault(module, set()).update(modules)
                for found in modules:
                    if found in self.files:
                        continue
                    self.files.add(found)
                    # What does not parse names nothing: the script may never import it.
                    with contextlib.suppress(SyntaxError, ValueError, RecursionError, MemoryError):
                        if found.suffix == ".py":
                            todo.append((found, scan(_content(found), self._name(found))))

    def needed(self, *, sure: bool) -> tuple[NeededModule, ...]:
        """Return the modules that must come from the nodes' environment; ``sure``: from nowhere else.

        A function goes by value, so the imports at the top of its module are not executed on the nodes.
        """
        sure = (
            sure and not self._function and not any(source.searches_more for source in self._sources.values())
        )
        certain, todo = set[Path](), list(self._sources)[:1]
        while todo:
            module = todo.pop()
            certain.add(module)
            todo += self._always.get(module, set()) - certain
        found: dict[str, NeededModule] = {}
        for module, source in self._sources.items():
            for wanted in source.imports:
                name = wanted.name.partition(".")[0]
                always = sure and module in certain and wanted.when == When.ALWAYS
                known = found.get(name)
                if (
                    not name
                    or wanted.when == When.GUARDED
                    or (self._function and module == self._function.module and wanted.when == When.ALWAYS)
                    or name in sys.stdlib_module_names
                    or any(_has(place, name) for place in self._search)
                    or (known and (known.sure or not always))
                ):
                    continue
                where = f"{self._name(module)}, line {wanted.line}"
                found[name] = NeededModule(name=name, where=where, sure=always)
        return tuple(found.values())

    def _modules(self, module: Path, wanted: str) -> list[Path]:
        name = wanted.lstrip(".")
        places = self._search
        if level := len(wanted) - len(name):
            package = module.parents[min(level, len(module.parents)) - 1]
            places = [package] if any(map(package.is_relative_to, self._search)) else []
        return next(filter(None, (_resolve(place, name) for place in places)), [])

    def _add_named(self, module: Path, source: Source) -> None:
        """Add the files that a module names, and note what it reads and is not shipped."""
        read = {text for text, _ in source.reads}
        for text in source.paths:
            for base in self._bases:
                self._add_path(Path(os.path.normpath(base / text)), wanted=text in read)
        for text, line in source.reads:
            where = f"{self._name(module)}, line {line}"
            if "://" in text or "\n" in text or not Path(text).suffix:
                continue
            if text.startswith("/"):
                if _kind(Path(text)) and not text.startswith(_SYSTEM):
                    self.missing.append(
                        f"{where} reads {text}, which is not sent: "
                        "use a path relative to the script, and add --files"
                    )
            elif UNKNOWN in text:
                self._see_pattern(text)
            elif not any(_kind(base / text) for base in self._bases):
                self.missing.append(f"{where} reads {text}, which does not exist here; --files sends more")

    def _see_pattern(self, text: str) -> None:
        pattern = "*".join(glob.escape(part) for part in text.split(UNKNOWN))
        if pattern.strip("*./"):
            for base in self._bases:
                self._seen[self._name(base / pattern)] = base / pattern

    def add_argument(self, text: str) -> None:
        """Add the file that an argument of the script names, by itself or after ``=``."""
        for value in dict.fromkeys((text, text.partition("=")[2])):
            kind = _kind(self._cwd / value) if value and len(value) <= LONGEST_PATH else 0
            path = Path(os.path.normpath(self._cwd / value))
            if kind and value.startswith("/"):
                if not value.startswith(_SYSTEM):
                    near = any(map(path.is_relative_to, self._bases))
                    instead = f"write {self._name(path)}" if near else "copy it here and use a relative path"
                    self.missing.append(f"argument {value} has another path on the nodes: {instead}")
            elif kind:
                self._add_path(path, wanted=True)

    def _add_path(self, path: Path, *, wanted: bool) -> None:
        """Ship a file; ship a directory, or that of a file not written yet, as an empty directory.

        A file of pulled results is shipped only if it is ``wanted``: the script reads it.
        """
        kind = _kind(path)
        if stat.S_ISREG(kind):
            results = not wanted and path.is_relative_to(self._cwd / _RESULTS)
            if not results and not path.is_relative_to(self._home) and not _NEVER & set(self._parts(path)):
                self.files.add(path)
            return
        place = path if stat.S_ISDIR(kind) else path.parent
        if stat.S_ISDIR(_kind(place)) and not self._cwd.is_relative_to(place):
            self.directories.add(place)
            if place == path:
                self._seen[self._name(path)] = path

    def unsent(self) -> tuple[Unsent, ...]:
        """Return what is named and here, but is not sent; of a directory and one in it, only the first."""
        found: list[Unsent] = []
        sent, home = set(map(str, self.files)), str(self._home)
        for name, path in sorted(self._seen.items()):
            if path in self._search or any(Path(name).is_relative_to(other.name) for other in found):
                continue
            pattern = "*" in name and not path.exists()
            here = glob.iglob(str(path)) if pattern else _below(str(path), home)  # noqa: PTH207 - it is whole
            looked = list(itertools.islice(here, _MOST_SEEN))
            statuses = [_status(file) for file in looked if file not in sent]
            sizes = [status.st_size for status in statuses if status and stat.S_ISREG(status.st_mode)]
            if sizes:
                flag = os.path.dirname(name) if pattern else name  # noqa: PTH120 - a text, not a path
                shown, more = name if pattern else f"{name}/", len(looked) == _MOST_SEEN
                found.append(Unsent(shown, len(sizes), sum(sizes), flag or name, more))
        return tuple(found)

    def _parts(self, path: Path) -> tuple[str, ...]:
        return Path(self._name(path)).parts

    def _name(self, path: Path) -> str:
        return os.path.relpath(path, self._cwd)

    def add_extra(self, given: Path) -> None:
        """Add what ``--files`` names."""
        path = Path(os.path.normpath(self._cwd / given))
        if given.is_absolute() and not any(map(path.is_relative_to, self._bases)):
            message = f"--files {given} lies outside {self._cwd}, so it would have another name on the nodes"
            raise InputError(message, next_step=f"copy it into {self._cwd} and use a path relative to that")
        if path.resolve().is_relative_to(self._home):
            raise InputError(f"--files {given} is never shipped: it belongs to rain-deploy itself")
        self._walk(path, frozenset(), named=True)

    def _walk(self, path: Path, above: frozenset[Path], *, named: bool = False) -> None:
        """Add a file, or everything below a directory; ``above`` stops at a link to a parent."""
        try:
            mode = path.stat().st_mode
            entries = sorted(path.iterdir()) if stat.S_ISDIR(mode) else []
        except OSError as error:
            if named or not path.is_symlink():
                raise _unreadable(path, error) from error
            self.missing.append(f"link {self._name(path)} leads nowhere; send its file with --files")
            return
        if stat.S_ISREG(mode):
            self.files.add(path)
        elif stat.S_ISDIR(mode) and (real := path.resolve()) not in above:
            self.directories.add(path)
            for entry in entries:  # these are left out unless they are named themselves
                never = entry.name in _NEVER or entry == self._cwd / _RESULTS
                if not never and entry.resolve() != self._home:
                    self._walk(entry, above | {real})
        elif named:
            raise InputError(f"--files {path}: neither a file nor a directory")

    def shipped(self, path: Path, root: Path) -> ShippedFile:
        name = path.relative_to(root).as_posix()
        if self._function and path == self._script:
            data = self._function.content
            return ShippedFile(name, data, len(data), hashlib.sha256(data).hexdigest(), 0o644)
        try:
            with path.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
                status = os.fstat(stream.fileno())
        except OSError as error:
            raise _unreadable(path, error) from error
        mode = 0o755 if status.st_mode & stat.S_IXUSR else 0o644
        return ShippedFile(name, path, status.st_size, digest, mode)


def _status(path: str | Path) -> os.stat_result | None:
    """Return the status of a path; None if nothing is there, or if the text is not a path."""
    try:
        return os.stat(path)  # noqa: PTH116 - quicker than pathlib, for many files
    except (OSError, ValueError):
        return None


def _kind(path: Path) -> int:
    """Return the mode of a path; 0 if there is nothing."""
    status = _status(path)
    return status.st_mode if status else 0


def _below(directory: str, home: str) -> Iterator[str]:
    """Yield the files in and below a directory that ``--files`` would send."""
    for place, directories, files in os.walk(directory):
        directories[:] = [name for name in directories if name not in _NEVER and f"{place}/{name}" != home]
        yield from (f"{place}/{file}" for file in files)


def _has(place: Path, name: str) -> bool:
    """Return whether ``import name`` finds a module in this directory."""
    return bool(_resolve(place, name)) or (place / name).is_dir()


def _resolve(place: Path, dotted: str) -> list[Path]:
    found: list[Path] = []
    for part in filter(str.isidentifier, dotted.split(".")):
        package = place / part / "__init__.py"
        module = next(filter(Path.is_file, (package, place / f"{part}.py", *place.glob(f"{part}.*so"))), None)
        if module is not None:
            found.append(module)
        if module != package and (module is not None or not (place / part).is_dir()):
            break
        place /= part
    return found
