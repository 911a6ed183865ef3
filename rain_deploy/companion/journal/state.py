"""What is known of the tasks of a script: where their results are, and which of them have failed."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import dropwhile, islice
from typing import Any

from .decide import LARGEST_SENT_BYTES, Hits, Stored
from .keyed import Keyed

MOST_COPIED = 1000  # tasks, at once


@dataclass(slots=True)
class State:
    """Tasks and objects by their ids."""

    hits: Hits = field(default_factory=dict)  # what is kept of a task that does not run
    stored: dict[Any, Stored] = field(default_factory=dict)  # outputs of hits
    copies: dict[Any, Stored] = field(default_factory=dict)  # outputs of watched tasks that are kept, too
    unsent: dict[Any, Any] = field(default_factory=dict)  # objects that no task needed so far
    watched: dict[Any, Any] = field(default_factory=dict)  # tasks by the ids of their outputs
    soft: set[Any] = field(default_factory=set)  # tasks that may have failed softly
    failed: dict[Any, tuple[Any, str]] = field(default_factory=dict)
    """Task and text, by the ids of the task and its outputs."""
    known: Keyed = field(default_factory=Keyed)

    def take(self, tasks: Iterable[Any], hits: Hits, withheld: dict[Any, str]) -> None:
        """Take the tasks that do not run, because their results are kept or they are withheld."""
        for task in tasks:
            if found := hits.get(task.id):
                self.hits[task.id] = found
                for output, place in zip(task.outputs, found["outputs"], strict=True):
                    self.stored[output.id] = Stored(task, place)
                    self.unsent[output.id] = output
            elif text := withheld.get(task.id):
                self.fail(task, text)

    def fail(self, task: Any, text: str) -> None:
        """Take a task that has failed."""
        self.failed |= dict.fromkeys((task.id, *(output.id for output in task.outputs)), (task, text))

    def is_here(self, each: Any) -> bool:
        """Return whether the content of an object can be had without Rain."""
        return each.id in self.stored or each._data is not None

    def sent(self, tasks: Iterable[Any]) -> list[Any]:
        """Return those of these tasks that Rain has, and that are not known to have failed."""
        return [task for task in tasks if task.id not in self.hits and task.id not in self.failed]

    def uncopied(self, first: Any) -> dict[str, Any]:
        """Return watched tasks by their keys: some, from the one that makes this output on."""
        rest = dropwhile(lambda name: name != first.id, self.watched)
        tasks = (self.watched[name] for name in rest if name not in self.copies)
        return {
            self.known.keys[task.id]: task
            for task in islice(tasks, MOST_COPIED)
            if task.id in self.known.keys
        }

    def copy(self, kept: Iterable[tuple[Any, dict[str, Any]]]) -> None:
        """Take what is kept of watched tasks."""
        for task, found in kept:
            if len(found["outputs"]) == len(task.outputs):
                for output, place in zip(task.outputs, found["outputs"], strict=True):
                    self.copies[output.id] = Stored(task, place)

    def needed(self, tasks: Iterable[Any]) -> tuple[list[Any], dict[Any, Any]]:
        """Return the tasks to run, in order, and the objects to send, with their contents.

        A task whose kept result cannot be had, or is too large to be sent, runs again.
        """
        run, objects = {task.id: task for task in tasks}, dict[Any, Any]()
        todo = list(run.values())
        while todo:
            for each in todo.pop().inputs:
                if each.id not in self.unsent or each.id in objects:
                    continue
                stored = self.stored.get(each.id)
                if stored is None or _loaded(each, stored):
                    objects[each.id] = each
                elif self.revive(stored.task):
                    run[stored.task.id] = stored.task
                    todo.append(stored.task)
        made = {output.id for task in run.values() for output in task.outputs}
        for name in made & objects.keys():
            objects.pop(name)._data = None
        return sorted(run.values(), key=lambda task: tuple(task.id)), objects

    def revive(self, task: Any) -> bool:
        """Let a task run whose result was to be served; False if Rain has a part of the result already."""
        if any(output.id not in self.unsent for output in task.outputs):
            return False
        for output in task.outputs:
            del self.stored[output.id], self.unsent[output.id]
        return self.hits.pop(task.id, None) is not None

    def were_sent(self, objects: dict[Any, Any]) -> None:
        """Note that Rain has these objects now.  Those of the journal take no memory here any more."""
        for name, each in objects.items():
            self.unsent.pop(name, None)
            if name in self.stored:
                each._data = None

    def forget(self, session: int) -> None:
        """Forget a session that is closed."""
        by_id: tuple[dict[Any, Any], ...]
        by_id = (self.hits, self.stored, self.copies, self.unsent, self.watched, self.failed)
        for parts in (*by_id, self.known.keys, self.known.parts):
            for name in [name for name in parts if name.session_id == session]:
                del parts[name]
        self.soft = {name for name in self.soft if name.session_id != session}


def _loaded(each: Any, stored: Stored) -> bool:
    """Load the content of an output, to be sent; False if it is too large for that or cannot be read."""
    if stored.size_bytes > LARGEST_SENT_BYTES:
        return False
    try:
        each._data = stored.read()
    except OSError:
        return False
    return True
