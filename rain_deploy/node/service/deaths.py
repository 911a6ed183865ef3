"""Says under which tasks a process or an engine died in an attempt, and what follows for them."""

from collections.abc import Collection
from dataclasses import dataclass, replace

from ..lives import Death, Lives
from ..points.names import parameters
from ..points.table import Points
from ..run import Run
from ..wire import Member, PointRow
from . import engine

_MOST_NAMED = 3
Task = tuple[int, int]  # session and task, as Rain numbers them


@dataclass(frozen=True, slots=True)
class Deaths:
    """Tasks that were running when something died, and the run's record with them."""

    lives: Lives
    alone: tuple[str, ...] = ()  # names of those that ran alone: they are given up
    suspects: tuple[str, ...] = ()  # names of those that have to run alone from now on

    @property
    def words(self) -> str:
        """Return what a line for the user says of them; empty if nothing follows for them."""
        if self.alone:
            return f"; {_named(self.alone)} was running alone and is given up"
        return f"; {_named(self.suspects)} will run alone, after the others" if self.suspects else ""


def deaths_on(run: Run, points: Points, nodes: Collection[str], members: tuple[Member, ...]) -> Deaths:
    """Return the tasks that nodes had got and not ended when their engines were lost.

    The server's log says which tasks each node got; some of them may not have begun to run.
    """
    got = engine.handed_out(run.attempt_dir, members) if nodes else {}
    return _recorded(run, points, points.unended(task for task, node in got.items() if node in nodes), got)


def deaths_of(run: Run, points: Points, members: tuple[Member, ...]) -> Deaths:
    """Return the tasks whose own process died."""
    got = engine.handed_out(run.attempt_dir, members) if points.died else {}
    return _recorded(run, points, points.died, got)


def label(row: PointRow) -> str:
    """Return a task's name, with the arguments that it does not say."""
    arguments = ", ".join(f"{name}={value}" for name, value in row.parameters.items())
    name = row.name or "a task"
    return name if parameters(row.name) or not arguments else f"{name} ({arguments})"


def _recorded(run: Run, points: Points, rows: dict[Task, PointRow], nodes: dict[Task, str]) -> Deaths:
    attempt = run.status().attempt
    before = run.lives.before(attempt)
    new = [Death(row.key, attempt, nodes.get(task, ""), task in points.alone) for task, row in rows.items()]
    lives = replace(before, deaths=(*before.deaths, *new))
    alone = [row for task, row in rows.items() if task in points.alone]
    suspects = [row for row in rows.values() if row.key in lives.suspects - before.suspects]
    return Deaths(lives, tuple(map(label, alone)), tuple(map(label, suspects)))


def _named(names: Collection[str]) -> str:
    some, more = sorted(names)[:_MOST_NAMED], len(names) - _MOST_NAMED
    return ", ".join(some) + (f" and {more} more" if more > 0 else "")
