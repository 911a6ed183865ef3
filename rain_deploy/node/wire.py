"""All messages between the laptop and the nodes, as values: files, answers, exit codes.

This is the one module of ``node/`` that the laptop imports.  It needs only the standard library, and
imports nothing of ``node/``.  ``to_json`` writes a value; ``from_json`` reads it and refuses another shape.
Unknown keys are skipped and keys with a default may be absent, so that a laptop and a node of different
versions understand each other.
"""

import contextlib
import enum
import functools
import json
import types
import typing
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

NOT_IN_LINE = 10  # exit code of ``follow`` for a run that was never in line
BUSY = 11  # exit code of ``queue --no-wait`` while another run is not finished
LACKING = 12  # exit code of ``queue`` if modules are not installed; stderr has a list of ``NeededModule``

T = TypeVar("T")
Parameter = int | float | bool | str  # the value of a task's parameter
_GIVEN_AS: dict[type, set[type]] = {float: {int, float}, Path: {str}}
"""The JSON types of values that JSON has no type for."""


class WireError(ValueError):
    """A message is not of the shape that it must have."""


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
class RunDescription:
    """run.json: a run as it was shipped."""

    run: str
    sequence: int
    port: int
    script: str
    cwd: str = "."
    args: tuple[str, ...] = ()
    timeout_s: float | None = None
    min_nodes: int | None = None
    companion: bool = False
    then_off: bool = False
    live: tuple[str, ...] = ()  # runs that were not finished when this one was shipped
    nodes: tuple[str, ...] = ()  # names of the nodes that have the run; others may have joined since
    imports: tuple[NeededModule, ...] = ()


class RunState(enum.StrEnum):
    """How far a run is; all but ``shipped`` come from the server node."""

    SHIPPED = "shipped"
    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    FINISHED = "finished"


class Outcome(enum.StrEnum):
    """How a run ended."""

    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"
    POWERED_OFF = "powered off"  # the machine was, before the script ended; mostly at its time limit
    ENGINE = "engine"  # Rain failed
    LOST = "lost"  # the script's process is gone: killed, or the machine was restarted or deleted
    UNKNOWN = "unknown"  # of a run that cannot go on, on a machine that does not say how it ended


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStatus:
    """state.json: how a run stands.  Only the supervisor changes it once the run is in line."""

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
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def waits_or_runs(self) -> bool:
        return self.state not in {RunState.SHIPPED, RunState.FINISHED}


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedRun(RunStatus):
    """A run in the answer of ``runs``, which is a list of these."""

    run: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PointRow:
    """A line of points.jsonl: the state of a task at one moment."""

    task: int
    session: int = 0
    name: str = ""
    parameters: dict[str, Parameter | None] = field(default_factory=dict)
    value: Parameter | None = None
    node: str | None = None
    started_s: float | None = None
    ended_s: float | None = None
    duration_s: float | None = None
    state: str = ""
    source: str = ""  # ``companion`` when the companion noted a value, else ``engine``
    point: bool = False
    message: str = ""
    run: str = ""
    attempt: int = 1
    epoch: int = 0


def extended(status: RunStatus, kind: type[T], **more: object) -> T:
    """Return the status as a kind that adds ``more`` to it."""
    return kind(**{one.name: getattr(status, one.name) for one in fields(RunStatus)}, **more)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputLine:
    """A piece of the script's output.  ``t`` is ``out`` or ``err``."""

    t: str
    d: str

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
    """The run's state, with the number of runs before it in line.  Also the answer of ``queue``."""

    t: str = "state"
    ahead: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EndLine:
    """The run is finished and all of it has been sent."""

    t: str = "end"


FollowLine = OutputLine | PointLine | StateLine | EndLine
_LINES: dict[str, type[FollowLine]]
_LINES = {"out": OutputLine, "err": OutputLine, "point": PointLine, "state": StateLine, "end": EndLine}


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


def parse(text: bytes | str) -> object:
    """Return what a JSON text holds.  Raises WireError."""
    try:
        return typing.cast("object", json.loads(text))
    except (ValueError, RecursionError) as error:
        raise WireError(f"not JSON: {error}") from error


def read(kind: type[T], text: bytes | str) -> T:
    """Return the value that a JSON text holds.  Raises WireError."""
    return from_json(kind, parse(text))


def read_runs(text: bytes | str) -> dict[str, ListedRun]:
    """Return the answer of ``runs``, by run id.  Raises WireError."""
    value = parse(text)
    if not isinstance(value, list):
        raise WireError("the answer of runs is not a list")
    runs = (from_json(ListedRun, one) for one in value)
    return {run.run: run for run in runs}


def read_modules(text: bytes | str) -> tuple[NeededModule, ...]:
    """Return the modules of a JSON list.  Raises WireError."""
    value = parse(text)
    return tuple(from_json(NeededModule, one) for one in (value if isinstance(value, list) else ()))


def to_json(value: Any) -> Any:
    """Return the value as what ``json.dumps`` takes."""
    if is_dataclass(value):
        return {one.name: to_json(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, dict):
        return {key: to_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(inner) for inner in value]
    return str(value) if isinstance(value, Path | enum.Enum) else value


def from_json(kind: type[T], value: object) -> T:
    """Return a JSON value as a dataclass of this kind.  Raises WireError."""
    if not isinstance(value, dict):
        raise WireError(f"{kind.__name__}: not an object")
    given = {}
    for name, (hint, needed) in _shape(typing.cast("Any", kind)).items():
        if name in value:
            given[name] = _read(hint, value[name], f"{kind.__name__}.{name}")
        elif needed:
            raise WireError(f"{kind.__name__}: {name} is absent")
    return kind(**given)


@functools.cache
def _shape(kind: Any) -> dict[str, tuple[Any, bool]]:
    """Return for each field its type, and whether it must be there."""
    hint = typing.get_type_hints(kind)
    return {one.name: (hint[one.name], one.default is one.default_factory is MISSING) for one in fields(kind)}


def _read(hint: Any, value: Any, where: str) -> Any:
    """Return the value as the type that it must have, or as the first of several that it fits."""
    if isinstance(hint, types.UnionType):
        if value is None and types.NoneType in hint.__args__:
            return None
        *others, hint = (one for one in hint.__args__ if one is not types.NoneType)
        for one in others:
            with contextlib.suppress(WireError):
                return _read(one, value, where)
    kind, inner = typing.get_origin(hint) or hint, typing.get_args(hint)
    if is_dataclass(kind):
        return from_json(typing.cast("type[Any]", kind), value)
    if kind is tuple and type(value) is list:
        return tuple(_read(inner[0], one, where) for one in value)
    if kind is dict and type(value) is dict:
        return {key: _read(inner[1], one, f"{where}.{key}") for key, one in value.items()}
    if type(value) not in _GIVEN_AS.get(kind, {str if issubclass(kind, str) else kind}):
        raise WireError(f"{where} is {value!r:.80}, not {kind.__name__}")
    try:
        return kind(value)
    except (ValueError, OverflowError) as error:
        raise WireError(f"{where}: {error}") from error
