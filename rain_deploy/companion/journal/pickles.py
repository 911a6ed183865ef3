"""Digests of pickles that do not change when lines move, or when the run's directory has another path.

A pickle is read op by op, never loaded, so none of the user's code runs.  The digest leaves out what differs
from process to process although it means the same: file names, lines and line tables of code, cloudpickle's
numbers of classes, the path of the run's directory, addresses in the names of Rain's inputs.  Texts count by
value: it does not matter whether two equal ones are one object.
"""

import hashlib
import pickletools
import re
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any

MARKS = (b"CodeType", b"_make_skeleton_", b"_make_typevar", b"pathlib", b"rain.client.input")
"""A pickle that has none of these, and no path of the run, is the same in each process."""
LARGEST_BYTES = 1 << 20
"""Larger pickles are taken byte by byte.  Rain itself takes functions and arguments up to 256 KB."""

CLOUDPICKLE = "cloudpickle.cloudpickle"
TRACKERS = {"_make_skeleton_class": (1, 4), "_make_skeleton_enum": (1, 5), "_make_typevar": (0, 5)}
"""Where the arguments of cloudpickle's functions have the name of a class, and its number."""
CODE_ARGUMENTS = 18
LINES_OF_CODE = (10, 13, 14)  # file name, first line, line table
ADDRESS = re.compile(r"input_\d+")
IN_PLACE = {"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD", "POP"}
SKIPPED = {"PROTO", "FRAME", "STOP"}
NUMBERS = {"BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"}
TEXTS = {"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8"}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
CONTAINERS = {"EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"}
MADE = CONTAINERS | {"FROZENSET", "BYTEARRAY8", "STACK_GLOBAL", "REDUCE", "NEWOBJ", "NEWOBJ_EX"}


class _Node:
    """A value on the pickle machine's stack.  ``parts`` are the ops that changed it in place."""

    __slots__ = ("children", "kind", "number", "parts", "value")

    def __init__(self, kind: str, value: Any, children: "list[_Node]") -> None:
        self.kind = kind
        self.value = value
        self.children = children
        self.parts: list[tuple[str, list[_Node]]] = []
        self.number: int | None = None

    def target(self) -> "_Node":
        """Return the node that this one stands for."""
        node = self
        while node.kind == "REF":
            node = node.value
        return node

    def text(self) -> str | None:
        """Return the text that this is, if it is one."""
        node = self.target()
        return node.value if node.kind == "VALUE" and isinstance(node.value, str) else None


class Pickles:
    """Computes digests of pickles.  It numbers classes of equal names in the order in which it meets them."""

    def __init__(self, relative: Callable[[Any], Any], paths: tuple[bytes, ...]) -> None:
        self._relative = relative
        self._marks = re.compile(b"|".join(map(re.escape, MARKS + paths)))
        self._classes: dict[str, dict[str, int]] = {}
        self.read = 0  # how many pickles were read op by op

    def digest(self, data: bytes) -> bytes:
        """Return 32 bytes.  A pickle that this class cannot read counts byte by byte: at worst a miss."""
        if len(data) <= LARGEST_BYTES and self._marks.search(data):
            self.read += 1
            try:
                return _digest(self._tree(data))
            except (ValueError, LookupError, AttributeError, TypeError, RecursionError):
                pass
        return hashlib.sha256(b"bytes" + data).digest()

    def _tree(self, data: bytes) -> _Node:
        stack: list[_Node] = []
        below: list[list[_Node]] = []
        memo: list[_Node] = []
        for op, value, _position in pickletools.genops(data):
            if op.name in SKIPPED:
                continue
            if op.name == "MARK":
                below.append(stack)
                stack = []
            elif op.name == "MEMOIZE":
                memo.append(stack[-1])
            elif op.name in {"BINGET", "LONG_BINGET"}:
                stack.append(_Node("REF", memo[int(value or 0)], []))
            else:
                items, stack = _taken(op, stack, below)
                if op.name in IN_PLACE:
                    self._change(stack[-1], op.name, items)
                else:
                    stack.append(self._made(op, value, items))
        (node,) = stack
        return node

    def _made(self, op: Any, value: Any, items: list[_Node]) -> _Node:
        if op.name in TEXTS or op.name in NUMBERS:
            return _Node("VALUE", self._relative(value) if op.name in TEXTS else value, [])
        if op.name in CONSTANTS:
            return _Node("VALUE", CONSTANTS[op.name], [])
        if op.name not in MADE:
            raise ValueError(f"a pickle with {op.name}")
        node = _Node(op.name, value, items)
        if op.name == "REDUCE":
            self._plain_call(_name(items[0]), items[1].target())
        return node

    def _plain_call(self, function: str, call: _Node) -> None:
        """Clear those arguments of a call that may differ while the meaning is the same."""
        module, _, name = function.rpartition(".")
        arguments = call.children
        if function == "types.CodeType":
            if len(arguments) != CODE_ARGUMENTS:
                raise ValueError("another Python's code")
            for place in LINES_OF_CODE:
                arguments[place] = _value("")
        elif module == CLOUDPICKLE and name in TRACKERS:
            named, numbered = TRACKERS[name]
            arguments[numbered] = _value(self._number(arguments[named].text(), arguments[numbered].text()))
        elif module == "pathlib":
            parts = [part.text() for part in arguments]
            path = str(PurePosixPath(*[part for part in parts if part is not None]))
            if None not in parts:
                call.children = [_value(self._relative(path))]

    def _number(self, name: str | None, tracker: str | None) -> str:
        """Return a name for a class that is the same in the next process, if classes come in equal order."""
        numbers = self._classes.setdefault(str(name), {})
        return f"{name} {numbers.setdefault(str(tracker), len(numbers))}"

    def _change(self, node: _Node, op: str, items: list[_Node]) -> None:
        target = node.target()
        made_of = _name(target.children[0]) if target.kind == "NEWOBJ" else ""
        if op == "BUILD" and made_of.startswith("rain.client.input."):
            for key, value in _pairs(items[0].target()):
                if key.text() == "path" and ADDRESS.fullmatch(value.text() or ""):
                    value.kind, value.value, value.children = "VALUE", "", []
        for place, item in enumerate(items[:-1]):
            if op.startswith("SETITEM") and item.text() == "_cloudpickle_submodules":
                _sort(items[place + 1].target())
        node.parts.append((op.rstrip("S"), items))


def _taken(op: Any, stack: list[_Node], below: list[list[_Node]]) -> tuple[list[_Node], list[_Node]]:
    """Return what an op takes from the stack, and the stack without it."""
    if pickletools.markobject in op.stack_before:
        return stack, below.pop()
    count = len(op.stack_before) - (op.name in IN_PLACE and op.name != "POP")
    if len(stack) < count:
        raise ValueError("stack underflow")
    return stack[len(stack) - count :], stack[: len(stack) - count]


def _value(value: str) -> _Node:
    return _Node("VALUE", value, [])


def _name(node: _Node) -> str:
    """Return the dotted name of a function or class of a module; empty if ``node`` is something else."""
    node = node.target()
    if node.kind == "STACK_GLOBAL":
        return ".".join(str(child.text()) for child in node.children)
    if node.kind == "REDUCE" and _name(node.children[0]) == f"{CLOUDPICKLE}._builtin_type":
        return f"types.{node.children[1].target().children[0].text()}"
    return ""


def _pairs(node: _Node) -> Iterator[tuple[_Node, _Node]]:
    """Yield the items of a dict."""
    for op, items in node.parts:
        if op == "SETITEM":
            yield from zip(items[::2], items[1::2], strict=True)


def _sort(modules: _Node) -> None:
    """Sort a list of modules, which has the order in which the script imported them."""
    items = [item for _op, part in modules.parts for item in part]
    names = [str(item.target().children[1].target().children[0].text()) for item in items]
    modules.parts = [("APPEND", [items[i] for i in sorted(range(len(items)), key=names.__getitem__)])]


def _digest(root: _Node) -> bytes:
    hashed = hashlib.sha256(b"tree")
    numbers = 0

    def write(kind: str, content: bytes, count: int = 0) -> None:
        hashed.update(f"{kind} {len(content)} {count}:".encode() + content)

    def walk(node: _Node) -> None:
        nonlocal numbers
        if node.kind == "REF" and not node.parts:
            walk(node.target())
        elif node.kind == "VALUE":
            content = node.value if isinstance(node.value, bytes) else repr(node.value).encode()
            write(type(node.value).__name__, content)
        elif node.number is not None:
            write("same", str(node.number).encode())
        else:
            node.number, numbers = numbers, numbers + 1
            children = [node.target()] if node.kind == "REF" else node.children
            write(node.kind, repr(node.value).encode() if node.kind != "REF" else b"", len(children))
            for child in children:
                walk(child)
            for op, items in node.parts:
                write(op, b"", len(items))
                for item in items:
                    walk(item)
            write("end", b"")

    walk(root)
    return hashed.digest()
