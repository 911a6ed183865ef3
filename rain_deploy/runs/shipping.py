"""Collects what is shipped with a run: the script, the modules and files it names, and ``--files``.

The script is read, not run (``source``).  Every file keeps its place relative to the script's working
directory, so that the same relative paths and imports work on the nodes.
"""

import contextlib
import hashlib
import os
import stat
from pathlib import Path

from rain_deploy.core.run import Shipment, ShippedFile
from rain_deploy.core.spec import FunctionScript, RunSpec
from rain_deploy.core.step import PayloadFile
from rain_deploy.errors import InputError
from rain_deploy.runs.source import Source, read_script, scan

ASK_ABOVE_BYTES = 100_000_000  # shipping more than this needs the user's agreement
_NEVER = frozenset({".git", "__pycache__", ".venv"})
_SYSTEM = ("/dev/", "/etc/", "/proc/", "/sys/", "/usr/")  # A node has its own
_RESULTS = "results"  # below the working directory; pulled results are not shipped again


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
    root = Path(os.path.commonpath([cwd, path.parent, *found.files, *found.directories]))
    return Shipment(
        root=root,
        cwd=cwd.relative_to(root).as_posix(),
        script=path.relative_to(root).as_posix(),
        files=tuple(found.shipped(file, root) for file in sorted(found.files)),
        directories=tuple(place.relative_to(root).as_posix() for place in sorted(found.directories)),
        missing=tuple(dict.fromkeys(found.missing)),
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

    def add_script(self) -> None:
        """Add the script, or a function's module, and breadth first all modules that are found from it."""
        first = self._function.module if self._function else self._script
        if first is None:
            return
        self.files.add(first)
        todo = [(first, read_script(first, self._name(first)))]
        while todo:
            module, source = todo.pop(0)
            for text in source.search:
                place = Path(os.path.normpath(self._cwd / text))
                if not text.startswith("/") or any(map(place.is_relative_to, self._bases)):
                    self._search.append(place)
            self._add_named(module, source)
            for found in [path for wanted in source.imports for path in self._modules(module, wanted)]:
                if found not in self.files:
                    self.files.add(found)
                    # What does not parse names nothing: the script may never import it.
                    with contextlib.suppress(SyntaxError, ValueError):
                        if found.suffix == ".py":
                            todo.append((found, scan(_content(found), self._name(found))))

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
                self._add_path(Path(os.path.normpath(base / text)), read=text in read)
        for text, line in source.reads:
            where = f"{self._name(module)}, line {line}"
            if "://" in text or "\n" in text or not Path(text).suffix:
                continue
            if text.startswith("/"):
                if _kind(Path(text)) and not text.startswith(_SYSTEM):
                    self.missing.append(
                        f"{where} reads {text}, which stays here: name it relative to the script, and --files"
                    )
            elif not any(_kind(base / text) for base in self._bases):
                self.missing.append(f"{where} reads {text}, which is not here; --files PATH ships more")

    def _add_path(self, path: Path, *, read: bool) -> None:
        """Ship a file; ship a directory, or that of a file not written yet, as an empty directory."""
        kind = _kind(path)
        if stat.S_ISREG(kind):
            places = (self._home, self._cwd / _RESULTS)
            if not _NEVER & set(Path(self._name(path)).parts) and not any(map(path.is_relative_to, places)):
                self.files.add(path)
            return
        place = path if stat.S_ISDIR(kind) else path.parent
        if stat.S_ISDIR(_kind(place)) and not self._cwd.is_relative_to(place):
            self.directories.add(place)
            if read and place == path:
                name = self._name(place)
                self.missing.append(
                    f"of directory {name} only files that are named go; --files {name} ships it all"
                )

    def _name(self, path: Path) -> str:
        return os.path.relpath(path, self._cwd)

    def add_extra(self, given: Path) -> None:
        """Add what ``--files`` names."""
        path = Path(os.path.normpath(self._cwd / given))
        if given.is_absolute() and not any(map(path.is_relative_to, self._bases)):
            message = f"--files {given} lies outside {self._cwd}, so it would have another name on the nodes"
            raise InputError(message, next_step=f"copy it into {self._cwd} and name it relative to that")
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
            self.missing.append(f"link {self._name(path)} leads nowhere; --files can name what it should be")
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


def _kind(path: Path) -> int:
    """Return the mode of a path; 0 if nothing is there, or if the text is not a path."""
    try:
        return path.stat().st_mode
    except (OSError, ValueError):
        return 0


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
