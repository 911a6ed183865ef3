"""Says why the journal has no result of a task: what of its key differs from a result of the same name."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from .engine import Watched
from .listing import Changes
from .segment import Record
from .store import Journal

MOST_COMPARED = 5  # results of one name, the newest ones
MOST_EXPLAINED = 1000  # tasks of one run: each may cost a look at the disk
MOST_NAMED = 3  # things in one sentence
_WORDS = {
    "function": "another function",
    "arguments": "other arguments",
    "inputs": "other inputs",
    "options": "other outputs, resources or attributes",
    "order": "another place among equal calls",
    "script": "another path of the script",
    "files": "other shipped files",
    "software": "another Python environment or engine",
    "variables": "other values of --env",
}
_OF_ALL = {
    "script": "the path of the script",
    "files": "the files that are sent with the script",
    "software": "the Python environment or the engine",
    "variables": "--env",
}
"""Parts that all tasks of a run have in common, as the subject of a sentence."""
_OTHER_VERSION = "a key of another version of rain-deploy"


@dataclass(slots=True)
class Misses:
    """Explains tasks of a run; ``sweep`` are the parts of keys that all its tasks share.

    ``files`` are the files that were shipped with the script, with their digests.
    """

    journal: Journal
    run: str
    sweep: Mapping[str, str]
    files: Mapping[str, str] = field(default_factory=dict)
    _records: dict[str, list[Record]] = field(default_factory=dict)
    _explained: int = 0
    _changed: dict[str, None] = field(default_factory=dict)  # what changed for all tasks
    _told: set[str] = field(default_factory=set)

    def why(self, task: Watched) -> str:
        """Return what differs; empty if no result of this name is of another run."""
        if not task.key or not task.name or self._explained >= MOST_EXPLAINED:
            return ""
        if (run := self.journal.run_of(task.key)) not in {"", self.run}:
            self._explained += 1
            return f"the result that is kept from run {run} was not used, as with --fresh"
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
        if {"script", "function"} <= differing:  # of another script: only the name is the same
            return ""
        changes = self._changes(nearest) if "files" in differing else Changes()
        if common := [name for name in _OF_ALL if name in differing]:
            named = listed(changes.names) if common[0] == "files" else ""
            self._changed.setdefault(named or _OF_ALL[common[0]])
        words = []
        for name in (name for name in _WORDS if name in differing):
            words += (changes.phrases if name == "files" else []) or [_WORDS[name]]
        return f"the result that is kept from run {nearest.run} has {listed(words or [_OTHER_VERSION])}"

    def changed(self) -> Iterator[str]:
        """Yield a sentence, once each, about what changed for all tasks."""
        for what in self._changed:
            if what not in self._told:
                self._told.add(what)
                yield f"{what} changed: results that were kept before do not fit, so their tasks run again"

    def _changes(self, record: Record) -> Changes:
        before = self.journal.listing(record.parts["files"])
        return Changes() if before is None else Changes.between(before, self.files)


def _differing(parts: Mapping[str, str], others: Mapping[str, str]) -> set[str]:
    """Return the names of the parts that differ.  If only the sweep as a whole does, that is --env."""
    found = {name for name in parts if parts[name] != others.get(name)}
    only_whole = "sweep" in found and not found & _OF_ALL.keys()
    return found - {"sweep"} | ({"variables"} if only_whole else set())


def listed(words: Sequence[str]) -> str:
    """Return ``a, b and c``; of many words, the first and how many more there are."""
    more = [f"{len(words) - MOST_NAMED} more"] if len(words) > MOST_NAMED else []
    *most, last = [*words[:MOST_NAMED], *more] or [""]
    return f"{', '.join(most)} and {last}" if most else last
