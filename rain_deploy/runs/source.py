"""Finds a Python source's imports and the files that it names.  Nothing is executed.

A path may be a literal, or be made of literals, names bound to them and ``__file__``, by ``os.path.join``,
``Path(…) / …``, ``.parent`` and the like.
"""

from __future__ import annotations

import ast
import importlib.util
import posixpath
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from rain_deploy.core.spec import NODE_PYTHON, NODE_PYTHON_TEXT
from rain_deploy.errors import InputError

LONGEST_PATH = 1024
"""Characters; a longer literal is text, not a path."""
_KEEP_BASE = frozenset({"resolve", "absolute", "joinpath", "expanduser"})
_KEEP_ARGUMENT = frozenset({"Path", "PurePath", "join", "abspath", "realpath", "normpath", "fspath", "str"})
_READ_FILES = {"open", "load", "loadtxt", "genfromtxt", "fromfile", "imread", "load_model", "load_weights"}
_READ_DIRECTORIES = {"listdir", "scandir", "walk", "ImageFolder", "flow_from_directory"}
_READERS = frozenset(_READ_FILES | _READ_DIRECTORIES)
_PATH_READERS = frozenset({"open", "read_text", "read_bytes", "iterdir", "glob", "rglob"})


class Import(NamedTuple):
    """A dotted name that may be a module; ``level`` counts the dots of a relative import."""

    level: int
    name: str


class Read(NamedTuple):
    """A path that the source opens to read."""

    path: str
    line: int


@dataclass(frozen=True, slots=True)
class Source:
    """What one module imports and names."""

    imports: tuple[Import, ...]
    paths: tuple[str, ...]
    """Relative to the working directory, or as the author means them."""
    reads: tuple[Read, ...]
    """Paths also passed to another call are left out, because that call may write them."""
    search: tuple[str, ...]
    """Added to ``sys.path``."""


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
    paths = _Paths(tree, file)
    reads, others = _calls(tree, paths)
    return Source(
        imports=tuple(dict.fromkeys(_imports(tree))),
        paths=tuple(dict.fromkeys(paths.found(tree))),
        reads=tuple(read for read in reads if read.path not in others),
        search=tuple(_search(tree, paths)),
    )


def _imports(tree: ast.Module) -> Iterator[Import]:
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (Import(0, alias.name) for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                parts = (module,) if module else ()
                yield Import(level, module or "")
                yield from (Import(level, ".".join((*parts, alias.name))) for alias in names)
            case ast.Call(args=[ast.Constant(value=str() as name), *_]) if _called(node) in {
                "import_module",
                "__import__",
            }:
                bare = name.lstrip(".")
                yield Import(len(name) - len(bare), bare)
            case _:
                pass


def _called(call: ast.Call) -> str:
    match call.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case _:
            return ""


class _Paths:
    """Evaluates expressions whose value is always the same text."""

    def __init__(self, tree: ast.Module, file: str) -> None:
        self._names = {"__file__": file}
        for node in tree.body:
            match node:
                case ast.Assign(targets=[ast.Name(id=name)], value=value) if text := self.text(value):
                    self._names[name] = text
                case _:
                    pass

    def found(self, tree: ast.Module) -> Iterator[str]:
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant | ast.BinOp | ast.Call | ast.Attribute):
                text = self.text(node) or "/"
                if len(text) <= LONGEST_PATH and text[0] != "/" and not {"\0", "\n"} & set(text):
                    yield text

    def text(self, node: ast.expr) -> str | None:
        match node:
            case ast.Constant(value=str() as value):
                return value
            case ast.Name(id=name):
                return self._names.get(name)
            case ast.BinOp(left=left, op=ast.Div(), right=right):
                return self._join(left, right)
            case ast.Attribute(value=inner, attr="parent"):
                return self._parent(inner)
            case ast.Call():
                return self._call(node)
            case _:
                return None

    def _call(self, call: ast.Call) -> str | None:
        name = _called(call)
        if isinstance(call.func, ast.Attribute) and name in _KEEP_BASE:
            return self._join(call.func.value, *call.args)
        if name == "dirname" and len(call.args) == 1:
            return self._parent(call.args[0])
        return self._join(*call.args) if name in _KEEP_ARGUMENT and call.args else None

    def _parent(self, node: ast.expr) -> str | None:
        text = self.text(node)
        return None if text is None else posixpath.normpath(posixpath.join(text, ".."))

    def _join(self, *nodes: ast.expr) -> str | None:
        texts = [text for text in map(self.text, nodes) if text is not None]
        return posixpath.join(*texts) if len(texts) == len(nodes) else None


def _calls(tree: ast.Module, paths: _Paths) -> tuple[list[Read], set[str]]:
    """Return the reads, and every text that is an argument of any other call."""
    reads: list[Read] = []
    others: set[str] = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or paths.text(node) is not None:
            continue
        if read := _read(node, paths):
            reads.append(Read(read, node.lineno))
        else:
            arguments = (*node.args, *(keyword.value for keyword in node.keywords))
            others.update(text for text in map(paths.text, arguments) if text)
            if isinstance(node.func, ast.Attribute) and (text := paths.text(node.func.value)):
                others.add(text)
    return reads, others


def _read(call: ast.Call, paths: _Paths) -> str | None:
    """Return the path that this call reads."""
    name = _called(call)
    base = paths.text(call.func.value) if isinstance(call.func, ast.Attribute) else None
    if base is not None and name in _PATH_READERS:
        return base if _mode(call, 0) else None
    if call.args and (name in _READERS or name.startswith("read_")):
        return paths.text(call.args[0]) if name != "open" or _mode(call, 1) else None
    return None


def _mode(call: ast.Call, position: int) -> bool:
    """Return True unless the call's mode makes the file."""
    given = [keyword.value for keyword in call.keywords if keyword.arg == "mode"]
    match (given or call.args[position : position + 1])[:1]:
        case [ast.Constant(value=str() as mode)] if _called(call) == "open":
            return not set(mode) & set("wax")
        case _:
            return True


def _search(tree: ast.Module, paths: _Paths) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Call(
                func=ast.Attribute(attr="append" | "insert", value=ast.Attribute(attr="path")),
                args=[*_, last],
            ) if text := paths.text(last):
                yield text
            case _:
                pass
