"""Computes the keys under which the journal keeps the results of tasks.

Two tasks with equal keys give the same result: their functions, arguments, inputs, names, resources and
attributes are equal, and so is the sweep (the shipped files, the environment).  Comments, line numbers and
the run's directory do not matter.  If a key is doubtful, there is a ``Doubt`` instead, and the task runs.

Nothing is hooked and nothing is pickled here: the pickles that Rain is about to send are read.
"""

import base64
import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from .pickles import Pickles

FORMAT = 1
"""Change this whenever equal tasks get other keys than before."""
PICKLED = {"cloudpickle", "pickle"}
INPUT_NAME = re.compile(r"input_\d+")
"""Rain names an Execute's input without a label by its address in memory."""
PART_DIGITS = 12
NEEDS = "It needs the result of a task that has no key."


@dataclass(frozen=True, slots=True)
class Key:
    """The key of a task, the same in each process that makes the same task."""

    hex: str
    parts: dict[str, str]  # digits of digests by plain names, to tell what differs between two keys


@dataclass(frozen=True, slots=True)
class Doubt:
    """Why a task has no key, as a sentence; empty if there is nothing to report."""

    reason: str


class Keys:
    """Computes keys in the script's process, for tasks of all its sessions.

    ``sweep`` names everything that results depend on besides the tasks.  ``files`` is the absolute path of
    the run's files; in texts, it and the run's directory count as the same in all runs.
    """

    def __init__(self, sweep: str, files: str) -> None:
        self._sweep = sweep
        relative, paths = _without_paths(files)
        self._relative = relative
        self._pickles = Pickles(relative, paths)
        self._made: dict[str, int] = {}
        self._objects: WeakKeyDictionary[Any, str | Doubt] = WeakKeyDictionary()

    def of_tasks(self, tasks: Iterable[Any]) -> "dict[Any, Key | Doubt]":
        """Return the key of each task by the task's id.  Tasks come in the order of their creation."""
        return {task.id: self._of_task(task) for task in tasks}

    def _of_task(self, task: Any) -> Key | Doubt:
        key: Key | Doubt
        try:
            key = self._doubt(task) or self._key(task)
        except Exception as fault:  # noqa: BLE001 - objects of the user fail in as many ways as there are classes
            key = Doubt(f"Its key cannot be computed ({type(fault).__name__}: {str(fault)[:200]}).")
        for place, output in enumerate(task.outputs):
            self._objects[output] = f"{key.hex}:{place}" if isinstance(key, Key) else key
        return key

    def _doubt(self, task: Any) -> Doubt | None:
        if not len(task.outputs):
            return Doubt("")
        for output in task.outputs:
            if output in self._objects or output._data is not None or output.state is not None:
                return Doubt("Its output is an object that exists already.")
        for given in task.inputs:
            known = self.of_object(given)
            if isinstance(known, Doubt):
                return known if known.reason.startswith(NEEDS) else Doubt(f"{NEEDS} {known.reason}".strip())
        return None

    def _key(self, task: Any) -> Key:
        spec = task.spec
        arguments = self.config(spec)
        inputs = [[label, self.of_object(given)] for label, given in task.inputs.items()]
        outputs = [[label, *self._types(output)] for label, output in task.outputs.items()]
        name, resources, user = map(self._plain, (spec.name, spec.resources, spec.user))
        everything = [
            *(FORMAT, self._sweep, spec.task_type, arguments, inputs, outputs),
            *(name, resources, user),
        ]
        base = hashlib.sha256(json.dumps(everything).encode()).hexdigest()
        ordinal = self._made.get(base, 0)
        self._made[base] = ordinal + 1
        of_functions = 1 if spec.task_type == "py/" else 0  # Rain sends a function as the first input
        parts = {
            "function": inputs[:of_functions],
            "arguments": arguments,
            "inputs": inputs[of_functions:],
            "options": [spec.task_type, outputs, resources, user],
            "order": ordinal,
        }
        digest = hashlib.sha256(f"{base} {ordinal}".encode()).hexdigest()
        return Key(digest, {part: _short(value) for part, value in parts.items()})

    def config(self, spec: Any) -> Any:
        """Return the settings of a task as they count in its key: digests instead of pickles."""
        config = spec.config
        if spec.task_type == "py/":
            return {
                "args": [self._argument(text) for text in config["args"]],
                "kwargs": [[name, self._argument(text)] for name, text in config["kwargs"].items()],
                "encode_outputs": config["encode_outputs"],
            }
        if spec.task_type == "buildin/run":
            for place, given in enumerate(config["in_paths"]):
                if INPUT_NAME.fullmatch(given["path"]):
                    config = _replaced(config, re.compile(rf"{given['path']}(?!\d)"), f"\0input {place}")
        return self._plain(config)

    def _argument(self, text: str) -> str:
        return self._pickles.digest(base64.b64decode(text)).hex()

    def of_object(self, given: Any) -> str | Doubt:
        """Return what an input counts as: a constant's content, or the key of its task and a number."""
        known = self._objects.get(given)
        if known is None:
            known = self._objects[given] = self._of_constant(given)
        return known

    def _of_constant(self, given: Any) -> str | Doubt:
        data = given._data
        if data is None:
            return Doubt("It uses an object that no earlier task made.")
        if given.spec.data_type.value == "dir":
            digest = _of_directory(data)
        elif given.spec.content_type in PICKLED:
            digest = self._pickles.digest(data)
        else:
            digest = hashlib.sha256(data).digest()
        return json.dumps([given.spec.label, *self._types(given), digest.hex()])

    def _types(self, given: Any) -> list[Any]:
        spec = given.spec
        return [spec.content_type, spec.data_type.value, self._plain(spec.user)]

    def _plain(self, value: Any) -> Any:
        """Return a value of JSON without the run's paths."""
        if isinstance(value, str):
            return self._relative(value)
        if isinstance(value, dict):
            return [[self._plain(name), self._plain(item)] for name, item in value.items()]
        if isinstance(value, list | tuple):
            return {"items": [self._plain(item) for item in value]}
        return value


def _short(value: Any) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()[:PART_DIGITS]


def _replaced(value: Any, pattern: "re.Pattern[str]", text: str) -> Any:
    if isinstance(value, str):
        return pattern.sub(lambda _found: text, value)
    if isinstance(value, dict):
        return {name: _replaced(item, pattern, text) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_replaced(item, pattern, text) for item in value]
    return value


def _without_paths(files: str) -> "tuple[Callable[[Any], Any], tuple[bytes, ...]]":
    """Return a function that takes the run's paths out of a text or bytes, and these paths."""
    places = dict.fromkeys((Path(files), Path(files).resolve()), "files")
    places |= {path.parent: "run" for path in places}
    names = {os.fspath(path): f"\0{name}\0" for path, name in places.items()}
    longest_first = sorted(names, key=len, reverse=True)
    of_text = re.compile(rf"({'|'.join(map(re.escape, longest_first))})(?![\w.-])")
    of_bytes = re.compile(os.fsencode(of_text.pattern))

    def relative(value: Any) -> Any:
        if isinstance(value, str):
            return of_text.sub(lambda found: names[found[1]], value)
        return of_bytes.sub(lambda found: names[os.fsdecode(found[1])].encode(), value)

    return relative, tuple(map(os.fsencode, longest_first))


def _of_directory(data: bytes) -> bytes:
    """Return the digest of what a directory contains.  Owners and times do not count."""
    hashed = hashlib.sha256(b"directory")
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in sorted(archive, key=lambda member: member.name):
            content = archive.extractfile(member) if member.isreg() else None
            inner = hashlib.sha256(content.read()).hexdigest() if content else ""
            about = [member.name, member.type.decode("latin-1"), member.mode, member.linkname, inner]
            hashed.update(json.dumps(about).encode() + b"\n")
    return hashed.digest()
