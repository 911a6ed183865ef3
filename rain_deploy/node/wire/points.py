"""What nodes say of the tasks of a run."""

from dataclasses import dataclass, field

Parameter = int | float | bool | str  # the value of a task's parameter
Values = dict[str, Parameter | None]
ENDED = ("finished", "failed", "cancelled", "not run")
"""States that a task keeps, in the order in which they are shown.

What had started when its session ended was cancelled, the rest was not run.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PointRow:
    """A line of points.jsonl: the state of a task at one moment."""

    task: int
    session: int = 0
    name: str = ""
    parameters: Values = field(default_factory=dict)
    value: Parameter | None = None
    values: Values = field(default_factory=dict)  # by name, of a dict, tuple or list
    node: str | None = None
    started_s: float | None = None
    ended_s: float | None = None
    duration_s: float | None = None
    state: str = ""
    source: str = ""  # ``companion`` when the companion noted a value, else ``engine``
    point: bool = False
    key: str = ""  # of its result in the journal; empty where the result cannot be kept
    cached: bool = False  # the result is of an earlier attempt or run; nothing was executed
    message: str = ""
    run: str = ""
    attempt: int = 1
    epoch: int = 0

    @property
    def title(self) -> str:
        """Return what people call the task: its name, its parameters, or its number in Rain."""
        pairs = " ".join(f"{name}={value}" for name, value in self.parameters.items())
        return self.name or pairs or f"task {self.task}"

    @property
    def ended(self) -> bool:
        """True if the task has ended, or will never start."""
        return self.state in ENDED


@dataclass(frozen=True, slots=True, kw_only=True)
class PointDetail:
    """A line of details.jsonl: more about a task.  Other lines of the same attempt add to it."""

    task: int
    session: int = 0
    attempt: int = 1
    arguments: Values = field(default_factory=dict)  # numbers and short texts that the script passes
    error: str = ""  # the whole text
    missed: str = ""  # why its result was not in the journal, though one with the same name is there
    unkept: str = ""  # why its result cannot be kept
