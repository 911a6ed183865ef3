"""All messages between the laptop and the nodes, as values: files, answers, exit codes.

This is the one part of ``node/`` that the laptop imports.  It needs only the standard library, and of
``node/`` only the codec: ``to_json`` writes a value; ``from_json`` reads it and refuses another shape.
"""

import enum
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TypeVar

from ..codec import WireError, from_json, parse, read, to_json
from .journal import (
    JOURNAL_BYTES,
    LITTLE_BYTES,
    SEGMENT_NAME,
    JournalState,
    JournalUsage,
    JournalWish,
    journal_limit,
)
from .pack import LeftKind, LeftOut, LeftOuts, Limits, map_of_parts
from .points import ENDED, Parameter, PointDetail, PointRow, Values
from .rehearsal import Rehearsal, RehearsedKind

__all__ = [
    "ENDED",
    "JOURNAL_BYTES",
    "LITTLE_BYTES",
    "SEGMENT_NAME",
    "JournalState",
    "JournalUsage",
    "JournalWish",
    "LeftKind",
    "LeftOut",
    "LeftOuts",
    "Limits",
    "Parameter",
    "PointDetail",
    "PointRow",
    "Rehearsal",
    "RehearsedKind",
    "Values",
    "WireError",
    "from_json",
    "journal_limit",
    "map_of_parts",
    "parse",
    "read",
    "to_json",
]

NOT_QUEUED = 10  # exit code of ``follow`` for a run that was never queued
BUSY = 11  # exit code of ``queue --no-wait`` while another run is not finished
MODULES_MISSING = 12  # exit code of ``queue`` if modules are missing; stderr has a list of ``NeededModule``
RESTARTS = 5
"""How many attempts of a run may be lost one after the other without progress before the run ends."""
MOST_HOMES = 300
"""Of how many tasks of a run the output is kept; each costs one more object and a directory."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig:
    """node.json: the configuration of a node.  Node code reads it each time it needs it."""

    node_dir: Path
    cluster_dir: Path
    name: str
    service: str  # ``<cluster id>/<node index>``, the mark of this node's processes
    env: Path
    engine: Path
    code: Path
    address: str
    governor_port: int
    server_address: str
    idle_port: int
    http_port: int
    cpus: int
    server: bool

    @property
    def python(self) -> str:
        return str(self.env / "bin" / "python")

    @property
    def governor_dir(self) -> Path:
        return self.node_dir / "governor"

    @property
    def server_dir(self) -> Path:
        return self.cluster_dir / "server"

    @property
    def runs_dir(self) -> Path:
        return self.cluster_dir / "runs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A node of the cluster, as its server knows it."""

    name: str
    address: str
    governor_port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterConfig:
    """cluster.json of the server node: the nodes whose governors a run waits for."""

    nodes: tuple[Member, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NeededModule:
    """A module that a run imports from its node's environment."""

    name: str
    where: str  # the first import of it, as "train.py, line 3"
    sure: bool  # it is imported in any case; else only if a function is called or a condition holds


@dataclass(frozen=True, slots=True, kw_only=True)
class CostCap:
    """What a run may cost, as the time after which it has cost that."""

    seconds: float
    words: str  # such as ``--max-cost 2.00 CHF``


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDescription:
    """run.json: a run as it was shipped."""

    run: str
    sequence: int
    port: int
    script: str
    cwd: str = "."
    args: tuple[str, ...] = ()
    timeout_s: float | None = None
    cap: CostCap | None = None
    min_nodes: int | None = None
    companion: bool = False
    restarts: int = RESTARTS  # 0: the run ends with the engine
    fresh: bool = False  # True: it takes no result from the journal, but still stores its own
    fail_fast: bool = False  # True: a task that fails ends its session, as on bare Rain
    then_off: bool = False
    live: tuple[str, ...] = ()  # runs that were not finished when this one was shipped
    nodes: tuple[str, ...] = ()  # names of the nodes that have the run; others may have joined since
    imports: tuple[NeededModule, ...] = ()
    packages: str = ""  # the directory of the environment that must have them


class RunState(enum.StrEnum):
    """The state of a run; all but ``shipped`` come from the server node."""

    SHIPPED = "shipped"
    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    FINISHED = "finished"


class Outcome(enum.StrEnum):
    """The way in which a run ended."""

    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"
    LIMIT = "limit"  # its ``--max-cost``, or the time limit of the machines, a little before they are off
    POWERED_OFF = "powered off"  # the machine was, before the script ended; mostly at its time limit
    ENGINE = "engine"  # Rain failed
    LOST = "lost"  # the script's process is gone: killed, or the machine was restarted or deleted
    UNKNOWN = "unknown"  # of a run that cannot continue, on a machine that does not say how it ended


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEvent:
    """What happened to a run while it was active, such as the loss of a node, as one line for the user."""

    at_s: float
    attempt: int
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStatus:
    """state.json: the state of a run.  Only the supervisor changes it once the run is queued."""

    state: RunState = RunState.SHIPPED
    outcome: str = ""  # an ``Outcome``, or one of a newer version; empty while the run is not finished
    exit_code: int | None = None  # exit code of the script itself; negative: killed by that signal
    attempt: int = 1
    epoch: int = 0
    queued_s: float | None = None
    started_s: float | None = None
    ended_s: float | None = None
    nodes: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()  # nodes whose governors did not register
    message: str = ""
    warnings: tuple[str, ...] = ()  # what the run may lack, or has lost; one sentence each
    events: tuple[RunEvent, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def waits_or_runs(self) -> bool:
        return self.state not in {RunState.SHIPPED, RunState.FINISHED}


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedRun(RunStatus):
    """A run in the answer of ``runs``, which is a list of these."""

    run: str


def extended(status: RunStatus, kind: type[T], **more: object) -> T:
    """Return the status as a kind that adds ``more`` to it."""
    return kind(**{one.name: getattr(status, one.name) for one in fields(RunStatus)}, **more)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputLine:
    """A piece of the script's output.  ``t`` is ``out`` or ``err``."""

    t: str
    d: str
    attempt: int = 1  # the attempt that printed it
    again: bool = False  # it is the beginning of what the attempt printed; it differs from what was sent

    @property
    def data(self) -> bytes:
        return self.d.encode("utf-8", "surrogateescape")


@dataclass(frozen=True, slots=True, kw_only=True)
class PointLine:
    """A row of points.jsonl, with its length there."""

    t: str = "point"
    row: PointRow
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StateLine(RunStatus):
    """The run's state, with the number of runs before it in the queue.  Also the answer of ``queue``."""

    t: str = "state"
    ahead: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadLine:
    """How busy the nodes of a run are, by the server node's clock."""

    t: str = "load"
    now_s: float
    busy: dict[str, int] = field(default_factory=dict)  # percent of a node's CPUs, by name of the node


@dataclass(frozen=True, slots=True, kw_only=True)
class EndLine:
    """The run is finished and all of it has been sent."""

    t: str = "end"


FollowLine = OutputLine | PointLine | StateLine | LoadLine | EndLine
_LINES: dict[str, type[FollowLine]]
_LINES = {
    "out": OutputLine,
    "err": OutputLine,
    "point": PointLine,
    "state": StateLine,
    "load": LoadLine,
    "end": EndLine,
}


def read_line(text: bytes) -> FollowLine | None:
    """Return one line of ``follow``; None for a kind of a newer version.  Raises WireError."""
    value = parse(text)
    if not isinstance(value, dict):
        raise WireError("a line of follow is not an object")
    kind = _LINES.get(str(value.get("t", "state")))  # an older node's `queue` names no kind
    return from_json(kind, value) if kind else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """The governor's process on the node."""

    pid: int = 0
    ready: bool = False  # Rain said that it is registered


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus:
    """The answer of ``status``: one node, as it sees itself."""

    services: dict[str, int | None] = field(default_factory=dict)
    """Pid by role; None where the service does not run.  Empty: the node could not say."""
    governor: Life | None = None
    runs: tuple[ListedRun, ...] = ()
    load: float | None = None
    disk_free_bytes: int | None = None


def read_runs(text: bytes | str) -> dict[str, ListedRun]:
    """Return the answer of ``runs``, by run id.  Raises WireError."""
    value = parse(text)
    if not isinstance(value, list):
        raise WireError("the answer of runs is not a list")
    runs = (from_json(ListedRun, one) for one in value)
    return {run.run: run for run in runs}


def read_modules(text: bytes | str) -> tuple[NeededModule, ...]:
    """Return the modules of a JSON list, which is a line among what shells may print.  Raises WireError."""
    printed = text.decode(errors="replace") if isinstance(text, bytes) else text
    lists = [line for line in printed.splitlines() if line.startswith("[")]
    value = parse(lists[-1]) if lists else None
    if not isinstance(value, list) or not value:
        raise WireError("it names no module that is missing")
    return tuple(from_json(NeededModule, one) for one in value)
