"""The lines that the companion and its helper write about tasks, in RUN_DIR/companion."""

from dataclasses import dataclass, field

from ..wire import Parameter, Values

EXECUTOR_LOST = "Lost connection to executor"
"""In Rain's message when the process of a task died: nobody knows if the task was the reason."""


@dataclass(frozen=True, slots=True)
class TaskNote:
    """A line of tasks.jsonl, which the script writes when it submits.  A later one of a task replaces it."""

    session: int
    task: int
    parameters: Values = field(default_factory=dict)
    kept: bool = False
    name: str = ""
    key: str = ""  # of its result in the journal; empty where nobody keeps it
    hit: bool = False  # the journal has the result; the task is not submitted
    doubt: str = ""  # why it has no key
    alone: bool = False  # it is started now, while nothing else is running


@dataclass(frozen=True, slots=True)
class ValueNote:
    """A line of values.jsonl, which the script writes when it loads a value."""

    session: int
    task: int
    value: Parameter | None = None
    values: Values = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MissNote:
    """A line of misses.jsonl, which the helper writes if the journal has another result of this name.

    With ``of_all``, it is about all tasks, and ``why`` is a line for the user.
    """

    session: int
    task: int
    why: str
    of_all: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskEnd:
    """A line of ends.jsonl, which the helper writes once the journal has the result, or the failure."""

    session: int
    task: int
    state: str  # ``finished`` or ``failed``
    started_s: float | None = None
    ended_s: float | None = None
    duration_s: float | None = None
    node: str = ""  # name of the node; empty if unknown
    message: str = ""  # the whole text of the error
    value: Parameter | None = None
    values: Values = field(default_factory=dict)
    hard: bool = False  # its session has failed with it
    hit: bool = False  # the result was in the journal; the times and the node are those of its execution

    @property
    def died(self) -> bool:
        """True if the task's process died.  lives.json counts such deaths; the journal has none."""
        return EXECUTOR_LOST in self.message


def check_numbers(value: Parameter | None, values: Values) -> None:
    """Refuse integers that are too large for a table.  Raises OverflowError."""
    for number in (value, *values.values()):
        if isinstance(number, int):
            float(number)
