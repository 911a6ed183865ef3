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
    losses: tuple[int, ...] = ()  # attempts, since one finished a task that none before it had finished
    broken: tuple[Broken, ...] = ()
    deaths: tuple[Death, ...] = ()

    def before(self, attempt: int) -> Self:
        """Return what counted when an attempt began.

        What follows from its end is added to this: a supervisor that was killed may have recorded it already.
        """
        return replace(
            self,
            losses=tuple(one for one in self.losses if one < attempt),
            broken=tuple(one for one in self.broken if one.attempt < attempt),
            deaths=tuple(one for one in self.deaths if one.attempt < attempt),
        )

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
