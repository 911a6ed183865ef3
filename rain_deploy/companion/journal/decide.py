"""Decides which tasks of a submit are run, served from the journal, or withheld."""

from typing import Any

LARGEST_SENT_BYTES = 60 << 20
"""A kept result that is larger cannot be sent to a task that needs it, so its task runs again."""
Hits = dict[Any, dict[str, Any]]


class Stored:
    """An output of a task whose content is in the journal."""

    def __init__(self, task: Any, place: dict[str, Any]) -> None:
        self.task, self.info, self._place = task, place["info"], place

    @property
    def size_bytes(self) -> int:
        return int(self._place["size_bytes"])

    def read(self) -> bytes:
        """Return the content.  Raises OSError."""
        with open(self._place["file"], "rb") as file:  # noqa: PTH123 - a Path costs more, and there are many
            file.seek(self._place["offset"])
            content = file.read(self.size_bytes)
        if len(content) != self.size_bytes:
            raise OSError(f"{self._place['file']} is cut off")
        return content


def decided(
    tasks: list[Any], keys: dict[Any, str], answer: dict[str, Any], failed: dict[Any, tuple[Any, str]]
) -> tuple[Hits, dict[Any, str]]:
    """Return what is kept of tasks, and why others are withheld, both by the ids of the tasks.

    ``answer`` is the helper's to ``find``.  A task is withheld if it ended its session in an earlier attempt
    of this run, or if it needs the result of one that is withheld or ``failed`` earlier.
    """
    found, failures = answer.get("found", {}), answer.get("failures", {})
    hits = {
        task.id: found[keys[task.id]]
        for task in tasks
        if keys.get(task.id) in found and len(found[keys[task.id]]["outputs"]) == len(task.outputs)
    }
    withheld: dict[Any, str] = {}
    without = {name: _named(task) for name, (task, _) in failed.items()}  # by outputs that there are not
    for task in tasks:
        needs = next((without[each.id] for each in task.inputs if each.id in without), "")
        if task.id in hits or not (needs or keys.get(task.id) in failures):
            continue
        own = failures.get(keys.get(task.id, ""), "")
        withheld[task.id] = own or f"not run: it needs the result of {needs}, which failed"
        without |= {output.id: _named(task) for output in task.outputs}
    return hits, withheld


def _named(task: Any) -> str:
    return repr(task.name or task.task_type)
