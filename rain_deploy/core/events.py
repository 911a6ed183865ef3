"""What a verb reports: events while it works, handed to a sink, and a result.  Only cli prints them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rain_deploy.errors import RainDeployError
from rain_deploy.node.wire import PointRow


@dataclass(frozen=True, slots=True)
class Notice:
    """A sentence for the user."""

    text: str
    warning: bool = False
    """Shown in red."""


@dataclass(frozen=True, slots=True)
class StageStarted:
    """A stage begins on these hosts."""

    stage: str
    hosts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StepDone:
    """``outcome``: ``unchanged``, ``done`` or ``failed``."""

    host: str
    stage: str
    step: str
    outcome: str
    seconds: float


@dataclass(frozen=True, slots=True)
class StageEnded:
    """A stage has ended on every host; ``failed`` names those with an error."""

    stage: str
    failed: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Progress:
    """The newest line that a long step printed on a host."""

    host: str
    text: str


@dataclass(frozen=True, slots=True)
class ScriptOutput:
    """Output of the user's script, unchanged; ``stream`` is ``stdout`` or ``stderr``."""

    stream: str
    data: bytes


@dataclass(frozen=True, slots=True)
class RunChanged:
    """A run has a new state: queued (and how many are before it), starting, running, finished."""

    run: str
    state: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class PointSeen:
    """A point changed: a row of points.jsonl."""

    row: PointRow


Event = Notice | StageStarted | StepDone | StageEnded | Progress | ScriptOutput | RunChanged | PointSeen
EventSink = Callable[[Event], None]


class Result:
    """Anything that a flow returns."""

    __slots__ = ()

    @property
    def problem(self) -> RainDeployError | None:
        """Why the command's exit code is not 0 although there is a result."""
        return None
