"""What the companion writes about a rehearsal."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RehearsedKind:
    """The tasks of one function or program."""

    name: str
    count: int
    tried: str = ""  # the name of the task that ran
    waits: bool = False  # none can run: they need results of tasks that were not run
    seconds: float | None = None
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """companion/rehearsal.json."""

    ended: str = ""  # where and why the script ended before its end
    left: str = ""  # which lines were not tried
    memory_bytes: int = 0  # the most memory of a task's process
    kinds: tuple[RehearsedKind, ...] = ()
    unstable: tuple[str, ...] = ()  # what differs from the first run, a sentence each
