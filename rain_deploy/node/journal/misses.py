"""Says why the journal has no result of a task: what of its key differs from a result of the same name."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from .engine import Watched
from .segment import Record
from .store import Journal

MOST_COMPARED = 5  # results of one name, the newest ones
MOST_EXPLAINED = 1000  # tasks of one run: each may cost a look at the disk
_WORDS = {
    "function": "another function",
    "arguments": "other arguments",
    "inputs": "other inputs",
    "options": "other outputs, resources or attributes",
    "order": "another place among equal calls",
    "script": "another path of the script",
    "files": "other shipped files",
    "software": "another Python environment or engine",
}
_SWEEP = {"script", "files", "software"}


@dataclass(slots=True)
class Misses:
    """Explains tasks of a run; ``sweep`` are the parts of keys that all its tasks share."""

    journal: Journal
    run: str
    sweep: Mapping[str, str]
    _records: dict[str, list[Record]] = field(default_factory=dict)
    _explained: int = 0

    def why(self, task: Watched) -> str:
        """Return what differs; empty if no result of this name is of another run."""
        if not task.key or not task.name or self._explained >= MOST_EXPLAINED:
            return ""
        if task.name not in self._records:
            found = self.journal.named(task.name, MOST_COMPARED)
            self._records[task.name] = [one for one in found if one.run != self.run and one.parts]
        others = self._records[task.name]
        if not others:
            return ""
        self._explained += 1
        parts = {**task.parts, **self.sweep}
        nearest = min(others, key=lambda one: len(_differing(parts, one.parts)))
        differing = _differing(parts, nearest.parts)
        words = [_WORDS[name] for name in _WORDS if name in differing]
        if "sweep" in differing and not differing & _SWEEP:
            words.append("other values of --env")
        *most, last = words or ["a key of another version of rain-deploy"]
        return f"the result that is kept from run {nearest.run} has {' and '.join([*most[:2], last])}"


def _differing(parts: Mapping[str, str], others: Mapping[str, str]) -> set[str]:
    return {name for name in parts if parts[name] != others.get(name)}
