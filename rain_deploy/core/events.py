"""The reports of a verb: events while it works, handed to a sink, and a result.  Only cli prints them."""

from collections.abc import Callable
from dataclasses import dataclass

from rain_deploy.errors import RainDeployError
from rain_deploy.node.wire import PointRow


@dataclass(frozen=True, slots=True)
class Notice:
    """A sentence for the user."""

    text: str
    warning: bool = False  # shown in red


@dataclass(frozen=True, slots=True)
class ResultsPlace(Notice):
    """A sentence that says where the results of a run go."""


@dataclass(frozen=True, slots=True)
class StageStarted:
    """A stage starts on these hosts."""

    stage: str
    hosts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StepStarted:
    """A step that has something to do starts on a host."""

    host: str
    stage: str
    step: str


@dataclass(frozen=True, slots=True)
class StepDone:
    """A step ended on a host; ``outcome`` is ``unchanged``, ``done`` or ``failed``."""

    host: str
    stage: str
    step: str
    outcome: str
    seconds: float


@dataclass(frozen=True, slots=True)
class StageEnded:
    """A stage ended on all hosts; ``failed`` contains the hosts with an error."""

    stage: str
    failed: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Progress:
    """The last line that a long step printed on a host."""

    host: str
    text: str


@dataclass(frozen=True, slots=True)
class ScriptOutput:
    """Output of the script, unchanged; ``stream`` is ``stdout`` or ``stderr``."""

    stream: str
    data: bytes


@dataclass(frozen=True, slots=True)
class RunChanged:
    """A run has a new state: queued (``detail`` has the runs before it), starting, running, finished."""

    run: str
    state: str
    detail: str = ""
    started_s: float | None = None  # since the epoch, by the clock of its server node
    seconds: float | None = None  # how long the script took, if it came to its own end


@dataclass(frozen=True, slots=True)
class PointSeen:
    """A task changed; ``row`` has its new state."""

    row: PointRow


@dataclass(frozen=True, slots=True)
class RunNodes:
    """The nodes on which a run works: how many tasks each can run at a time, and the price of all of them."""

    cpus: dict[str, int]
    per_hour: float = 0.0
    currency: str = ""  # empty where nothing is priced


@dataclass(frozen=True, slots=True)
class NodesSeen:
    """How busy the CPUs of nodes are, in percent, at a moment of the server node's clock."""

    busy: dict[str, int]
    now_s: float


Event = (
    Notice
    | StageStarted
    | StepStarted
    | StepDone
    | StageEnded
    | Progress
    | ScriptOutput
    | RunChanged
    | PointSeen
    | RunNodes
    | NodesSeen
)
EventSink = Callable[[Event], None]


class Result:
    """Base class of the results of all verbs."""

    __slots__ = ()

    @property
    def problem(self) -> RainDeployError | None:
        """Return the error that the command line shows; None if the result has none."""
        return None
