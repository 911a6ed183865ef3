"""Finds a Python source's imports and the files that it names.  Nothing is executed.

A path may be a literal, or be made of literals, names bound to them and ``__file__``, by ``os.path.join``,
``Path(…) / …``, ``.parent`` and the like.
"""

import ast
import importlib.util
import posixpath
import warnings
from dataclasses import dataclass
from pathlib import Path

from rain_deploy.core.spec import NODE_PYTHON, NODE_PYTHON_TEXT
from rain_deploy.errors import InputError

LONGEST_PATH = 1024  # characters; a longer literal is text, not a path
_KEEP_BASE = frozenset({"resolve", "absolute", "joinpath", "expanduser"})
_KEEP_ARGUMENT = frozenset({"Path", "PurePath", "join", "abspath", "realpath", "normpath", "fspath", "str"})
_READ_FILES = {"open", "load", "loadtxt", "genfromtxt", "fromfile", "imread", "load_model", "load_weights"}
_READ_DIRECTORIES = {"listdir", "scandir", "walk", "ImageFolder", "flow_from_directory"}
_READERS = frozenset(_READ_FILES | _READ_DIRECTORIES)
_PATH_READERS = frozenset({"open", "read_text", "read_bytes", "iterdir", "glob", "rglob"})


@dataclass(frozen=True, slots=True)
class Source:
    """What one module imports and names."""

    imports: tuple[str, ...] = ()
    """Dotted names that may be modules; each leading dot is a level of a relative import."""
    paths: tuple[str, ...] = ()  # relative to the working directory, or as the author means them
    reads: tuple[tuple[str, int], ...] = ()
    """(path, line) of what it opens to read, unless another call has the path too and may write it."""
    search: tuple[str, ...] = ()  # added to ``sys.path``


def read_script(path: Path, file: str = "") -> Source:
    """Return what the user's script imports and names; ``file`` as for ``scan``, by default the path.

    Raises InputError unless the path is a file that parses as Python of the nodes.
    """
    try:
        return scan(path.read_bytes(), file or str(path))
    except OSError as error:
        message = f"script {path} cannot be read: {error.strerror}"
        raise InputError(message, next_step="name a Python script that exists") from error
    except SyntaxError as error:
        where = f"line {error.lineno}: " if error.lineno else ""
        raise InputError(
            f"script {path} is not Python {NODE_PYTHON_TEXT}: {where}{error.msg}",
            details=error.text and error.text[:200],
            next_step=f"correct it; the nodes run Python {NODE_PYTHON_TEXT}",
        ) from error
    except (ValueError, RecursionError, MemoryError) as error:
        message = f"script {path} is not Python: {error}"
        raise InputError(message, next_step="name a Python script that parses") from error


def scan(data: bytes, file: str) -> Source:
    """Return what a module imports and names; ``file`` is its path, relative to the working directory.

    Raises SyntaxError for what Python 3.11 does not parse, ValueError for bytes that are not text.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        tree = ast.parse(data, file, feature_version=NODE_PYTHON)
    importlib.util.decode_source(data)  # raises also for bytes in comments, which the parser does not read
    found = _Scan(tree, file)
    return Source(
        imports=tuple(dict.fromkeys(found.imports)),
        paths=tuple(dict.fromkeys(found.paths)),
        reads=tuple(read for read in found.reads if read[0] not in found.others),
        search=tuple(found.search),
    )


class _Scan:
    """What a module names.  Evaluates expressions whose value is always the same text."""

    def __init__(self, tree: ast.Module, file: str) -> None:
        self.imports: list[str] = []
        self.paths: list[str] = []
        self.reads: list[tuple[str, int]] = []
        self.others: set[str] = set()
        """Texts that are arguments of calls that do not read."""
        self.search: list[str] = []
        self._names = {"__file__": file}
        for node in tree.body:
            match node:
                case ast.Assign(targets=[ast.Name(id=name)], value=value) if text := self._text(value):
                    self._names[name] = text
        for inner in ast.walk(tree):
            self._take(inner)

    def _take(self, node: ast.AST) -> None:
        match node:
            case ast.Import(names=names):
                self.imports += [alias.name for alias in names]
            case ast.ImportFrom(module=module, names=names, level=level):
                base = "." * level + (f"{module}." if module else "")
                self.imports += [base, *(base + alias.name for alias in names)]
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__")
                | ast.Attribute(attr="import_module" | "__import__"),
                args=[ast.Constant(value=str() as name), *_],
            ):
                self.imports.append(name)
            case ast.Call(
                func=ast.Attribute(attr="append" | "insert", value=ast.Attribute(attr="path")),
                args=[*_, last],
            ) if text := self._text(last):
                self.search.append(text)
        if isinstance(node, ast.Constant | ast.BinOp | ast.Call | ast.Attribute):
            text = self._text(node)
            if text is None and isinstance(node, ast.Call):
                self._take_call(node)
            elif text and len(text) <= LONGEST_PATH and text[0] != "/" and not {"\0", "\n"} & set(text):
                self.paths.append(text)

    def _take_call(self, call: ast.Call) -> None:
        name, read = _called(call), None
        base = self._text(call.func.value) if isinstance(call.func, ast.Attribute) else None
        if base is not None and name in _PATH_READERS:
            read = base if _opens_to_read(call, 0) else None
        elif call.args and (name in _READERS or name.startswith("read_")):
            read = self._text(call.args[0]) if _opens_to_read(call, 1) else None
        if read:
            self.reads.append((read, call.lineno))
        else:
            arguments = map(self._text, (*call.args, *(keyword.value for keyword in call.keywords)))
            self.others.update(filter(None, (base, *arguments)))

    def _text(self, node: ast.expr) -> str | None:
        text: str | None = None
        match node:
            case ast.Constant(value=str() as value):
                text = value
            case ast.Name(id=name):
                text = self._names.get(name)
            case ast.BinOp(left=left, op=ast.Div(), right=right):
                text = self._join(left, right)
            case (
                ast.Attribute(value=inner, attr="parent")
                | ast.Call(func=ast.Name(id="dirname") | ast.Attribute(attr="dirname"), args=[inner])
            ):
                below = self._text(inner)
                text = None if below is None else posixpath.normpath(posixpath.join(below, ".."))
            case ast.Call(func=ast.Attribute(value=base, attr=name), args=args) if name in _KEEP_BASE:
                text = self._join(base, *args)
            case ast.Call(args=[_, *_] as args) if _called(node) in _KEEP_ARGUMENT:
                text = self._join(*args)
        return text

    def _join(self, *nodes: ast.expr) -> str | None:
        texts = [text for text in map(self._text, nodes) if text is not None]
        return posixpath.join(*texts) if len(texts) == len(nodes) else None


def _called(call: ast.Call) -> str:
    match call.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""


def _opens_to_read(call: ast.Call, position: int) -> bool:
    """Return True unless this is an ``open`` whose mode, its argument at ``position``, makes the file."""
    given = [keyword.value for keyword in call.keywords if keyword.arg == "mode"]
    match (given or call.args[position : position + 1])[:1]:
        case [ast.Constant(value=str() as mode)] if _called(call) == "open":
            return not set(mode) & set("wax")
    return True
