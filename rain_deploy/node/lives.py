"""What counts over all attempts of a run: restarts, and the tasks under which something died."""

from dataclasses import dataclass, replace
from typing import Self

SUSPECT_FROM = 2
"""A task under which something died so often runs alone, after all others."""


@dataclass(frozen=True, slots=True)
class Death:
    """A process of a task, or the engine of its node, died while the task was running."""

    key: str
    attempt: int
    node: str = ""
    alone: bool = False  # nothing else was running: it is the task's own fault


@dataclass(frozen=True, slots=True)
class Broken:
    """A task ended the session of an attempt."""

    task: str  # session and task, as Rain numbers them
    attempt: int


@dataclass(frozen=True, slots=True)
class Lives:
    """lives.json."""

    begun_s: float | None = None  # when the first script was started, by a clock that nobody sets
    restarts: int = 0  # since an attempt finished a task that none before it had finished
    broken: tuple[Broken, ...] = ()
    deaths: tuple[Death, ...] = ()

    def after(self, deaths: tuple[Death, ...]) -> Self:
        """Return what counts after these deaths; one of them may be recorded already."""
        known = {(death.key, death.attempt) for death in self.deaths}
        new = (death for death in deaths if (death.key, death.attempt) not in known)
        return replace(self, deaths=(*self.deaths, *new))

    @property
    def suspects(self) -> frozenset[str]:
        """Return the keys of the tasks that have to run alone."""
        keys = [death.key for death in self.deaths]
        return frozenset(key for key in keys if keys.count(key) >= SUSPECT_FROM) - self.given_up.keys()

    @property
    def given_up(self) -> dict[str, str]:
        """Return why tasks are not run any more, by their keys."""
        return {death.key: self._why(death.key) for death in self.deaths if death.alone}

    def _why(self, key: str) -> str:
        mine = [death for death in self.deaths if death.key == key]
        nodes = ", ".join(dict.fromkeys(death.node or "?" for death in mine))
        times = f"{len(mine)} times (on {nodes}), the last time while it ran alone"
        return f"given up: its process or its node's engine died under it {times}"
