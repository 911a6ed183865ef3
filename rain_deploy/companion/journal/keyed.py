"""The keys of the tasks of one submit, and what is said of tasks without one."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from .. import warn
from .keys import Key, Keys

MOST_NAMED = 3


@dataclass(frozen=True, slots=True)
class Keyed:
    """What is known of keys, by the ids of tasks."""

    keys: dict[Any, str] = field(default_factory=dict)
    parts: dict[Any, dict[str, str]] = field(default_factory=dict)
    doubts: dict[Any, str] = field(default_factory=dict)  # why a task has no key


def keyed(keys: Keys, tasks: Iterable[Any]) -> Keyed:
    """Return the keys of tasks, and warn of those that have none."""
    known = Keyed()
    named: dict[str, list[str]] = {}
    found = keys.of_tasks(tasks)
    for task in tasks:
        key = found[task.id]
        if isinstance(key, Key):
            known.keys[task.id], known.parts[task.id] = key.hex, key.parts
        elif key.reason:
            known.doubts[task.id] = key.reason
            named.setdefault(key.reason, []).append(task.name or task.task_type)
    for why, names in named.items():
        more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
        some = ", ".join(map(repr, names[:MOST_NAMED]))
        warn(f"results of {some}{more} are not kept in the journal: {why}")
    return known
