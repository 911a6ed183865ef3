"""Finds a Python source's imports and the files that it names.  Nothing is executed.

A path may be a literal, or be made of literals, names bound to them and ``__file__``, by ``os.path.join``,
``Path(…) / …``, ``.parent``, f-strings and the like.  The parts of a text that only a run of the script would
tell are ``UNKNOWN``.
"""

import ast
import enum
import importlib.util
import posixpath
import re
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rain_deploy.core.spec import NODE_PYTHON, NODE_PYTHON_TEXT
from rain_deploy.errors import InputError

LONGEST_PATH = 1024  # characters; a longer literal is text, not a path
UNKNOWN = "\0"  # stands for a part of a text that is not the same in each run; no path contains it
_KEEP_BASE = frozenset({"resolve", "absolute", "joinpath", "expanduser"})
_KEEP_ARGUMENT = frozenset({"Path", "PurePath", "join", "abspath", "realpath", "normpath", "fspath", "str"})
_READ_FILES = {"open", "load", "loadtxt", "genfromtxt", "fromfile", "imread", "load_model", "load_weights"}
_READ_DIRECTORIES = {"listdir", "scandir", "walk", "ImageFolder", "flow_from_directory"}
_READERS = frozenset(_READ_FILES | _READ_DIRECTORIES)
_PATH_READERS = frozenset({"open", "read_text", "read_bytes", "iterdir", "glob", "rglob"})
_FIELD = re.compile(r"%(?:\([^)]*\))?[-#0 +]*[\d.*]*[a-zA-Z]|\{[^{}]*\}")
"""A place in a text that ``%`` or ``format`` fills."""


class When(enum.IntEnum):
    """The certainty that an import statement is executed."""

    GUARDED = 0  # in a ``try`` or for type checkers only: the module may be missing
    MAYBE = 1  # in a function or a condition
    ALWAYS = 2


@dataclass(frozen=True, slots=True)
class Import:
    """An import of a dotted name that may be a module; each leading dot is a level of a relative import."""

    name: str
    line: int
    when: When


@dataclass(frozen=True, slots=True)
class Source:
    """The imports and names of one module."""

    imports: tuple[Import, ...] = ()
    paths: tuple[str, ...] = ()  # relative to the working directory, or as the author means them
    reads: tuple[tuple[str, int], ...] = ()
    """(path, line) of what it opens to read, unless another call has the path too and may write it.

    A path may have parts that are UNKNOWN.
    """
    search: tuple[str, ...] = ()  # added to ``sys.path``
    searches_more: bool = False  # what else is added to ``sys.path`` is not known


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
        imports=tuple(dict.fromkeys((*_imports(tree.body, When.ALWAYS), *found.imports))),
        paths=tuple(dict.fromkeys(found.paths)),
        reads=tuple(read for read in found.reads if read[0] not in found.others),
        search=tuple(text for text in found.search if text and UNKNOWN not in text),
        searches_more=any(not text or UNKNOWN in text for text in found.search),
    )


def _imports(nodes: Iterable[ast.AST], when: When) -> Iterator[Import]:
    """Yield the imports of statements that are executed with this certainty."""
    for node in nodes:
        match node:
            case ast.Import(names=names):
                yield from (Import(alias.name, node.lineno, when) for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                base = "." * level + (f"{module}." if module else "")
                yield from (Import(name, node.lineno, when) for name in (base, *_below(base, names)))
            case ast.Try(body=body, handlers=handlers, orelse=orelse, finalbody=final):
                yield from _imports((*body, *handlers), When.GUARDED)
                yield from _imports(orelse, min(when, When.MAYBE))
                yield from _imports(final, when)
            case ast.If(test=ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING")):
                yield from _imports(node.body, When.GUARDED)
                yield from _imports(node.orelse, min(when, When.MAYBE))
            case ast.stmt() | ast.ExceptHandler() | ast.match_case():
                yield from _imports(ast.iter_child_nodes(node), min(when, When.MAYBE))


def _below(base: str, names: list[ast.alias]) -> list[str]:
    return [base + alias.name for alias in names]


class _Scan:
    """Finds what a module names.  Evaluates expressions whose value is always the same text."""

    def __init__(self, tree: ast.Module, file: str) -> None:
        self.imports: list[Import] = []
        """Those by ``import_module``."""
        self.paths: list[str] = []
        self.reads: list[tuple[str, int]] = []
        self.others: set[str] = set()
        """Texts that are arguments of calls that do not read."""
        self.search: list[str | None] = []
        self._names = {"__file__": file}
        for node in tree.body:
            match node:
                case ast.Assign(targets=[ast.Name(id=name)], value=value) if text := self._text(value):
                    self._names[name] = text
        for inner in ast.walk(tree):
            self._take(inner)

    def _take(self, node: ast.AST) -> None:
        match node:
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__")
                | ast.Attribute(attr="import_module" | "__import__"),
                args=[ast.Constant(value=str() as name), *_],
            ):
                self.imports.append(Import(name, node.lineno, When.MAYBE))
            case (
                ast.Call(
                    func=ast.Attribute(
                        attr="append" | "insert" | "extend",
                        value=ast.Attribute(value=ast.Name(id="sys"), attr="path") | ast.Name(id="path"),
                    ),
                    args=[*_, last],
                )
                | ast.Call(func=ast.Attribute(attr="addsitedir"), args=[last, *_])
                | ast.AugAssign(target=ast.Attribute(value=ast.Name(id="sys"), attr="path"), value=last)
                | ast.Assign(targets=[ast.Attribute(value=ast.Name(id="sys"), attr="path")], value=last)
            ):
                several = last.elts if isinstance(last, ast.List | ast.Tuple) else [last]
                self.search += map(self._text, several)
        if isinstance(node, ast.expr) and not isinstance(node, ast.Name):
            text = self._text(node)
            if text is None and isinstance(node, ast.Call):
                self._take_call(node)
            elif text and len(text) <= LONGEST_PATH and text[0] != "/" and not {UNKNOWN, "\n"} & set(text):
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
        """Return the value of an expression that is a text or a path; None for any other."""
        match node:
            case ast.Constant(value=str() as value):
                return None if UNKNOWN in value else value
            case ast.Name(id=name):
                return self._names.get(name)
            case ast.BinOp(op=ast.Add() | ast.Mod()) | ast.JoinedStr() | ast.FormattedValue():
                return self._filled(node)
            case ast.Call(func=ast.Attribute(value=ast.Constant(value=str() as form), attr="format")):
                return _FIELD.sub(UNKNOWN, form)
        return self._path(node)

    def _filled(self, node: ast.expr) -> str | None:
        """Return a text that is put together; what is not known of it is UNKNOWN."""
        match node:
            case ast.JoinedStr(values=values):
                return "".join(self._text(value) or UNKNOWN for value in values)
            case ast.FormattedValue(value=inner, conversion=-1, format_spec=None):
                return self._text(inner)
            case ast.BinOp(left=ast.Constant(value=str() as form), op=ast.Mod()):
                return _FIELD.sub(UNKNOWN, form)
        parts: list[ast.expr] = []
        while isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):  # may be too long to recurse
            parts.append(node.right)
            node = node.left
        texts = [self._text(part) for part in (node, *reversed(parts))] if parts else []
        return "".join(text or UNKNOWN for text in texts) if any(texts) else None

    def _path(self, node: ast.expr) -> str | None:
        match node:
            case ast.BinOp(left=left, op=ast.Div(), right=right):
                return self._join(left, right)
            case ast.Subscript(
                value=ast.Attribute(value=inner, attr="parents"), slice=ast.Constant(value=int(up))
            ):
                return self._above(inner, up + 1)
            case (
                ast.Attribute(value=inner, attr="parent")
                | ast.Call(func=ast.Name(id="dirname") | ast.Attribute(attr="dirname"), args=[inner])
            ):
                return self._above(inner, 1)
            case ast.Call(func=ast.Attribute(value=base, attr=name), args=args) if name in _KEEP_BASE:
                return self._join(base, *args)
            case ast.Call(args=[_, *_] as args) if _called(node) in _KEEP_ARGUMENT:
                return self._join(*args)
        return None

    def _above(self, node: ast.expr, levels: int) -> str | None:
        below = self._text(node)
        return None if below is None else posixpath.normpath(posixpath.join(below, *[".."] * levels))

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
