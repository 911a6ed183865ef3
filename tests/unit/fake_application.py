"""An Application whose verbs remember what they were asked and do as they are told."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from rain_deploy.cli.main import root
from rain_deploy.cli.session import Application
from rain_deploy.cluster.context import Confirm, Context
from rain_deploy.cluster.install import HostPlan, PlanResult, StagePlan
from rain_deploy.cluster.lookup import NodeLine
from rain_deploy.cluster.plan import GcLine
from rain_deploy.core.cluster import Bill, Cluster, Meter, Node, Quote
from rain_deploy.core.events import Event, EventSink
from rain_deploy.core.machine import Host, InstanceType
from rain_deploy.core.step import CommandResult
from rain_deploy.errors import InputError
from rain_deploy.fleet.fanout import SshExecutor
from rain_deploy.node.wire import JournalUsage, PointRow, RehearsedKind
from rain_deploy.providers.base import Provider
from rain_deploy.results.pull import PulledRun
from rain_deploy.runs.finish import RunResult
from rain_deploy.runs.states import RunLine
from rain_deploy.state.store import Store
from rain_deploy.transport.base import Forward
from rain_deploy.verbs.check import CheckLine, CheckResult
from rain_deploy.verbs.clean import CacheLine, CleanResult
from rain_deploy.verbs.copy import CopyResult
from rain_deploy.verbs.down import DownResult
from rain_deploy.verbs.gc import GcResult
from rain_deploy.verbs.journal import JournalLine, JournalResult
from rain_deploy.verbs.list import ClusterLine, ListResult, TypesResult, ZoneLine, ZonesResult
from rain_deploy.verbs.logs import LogsResult
from rain_deploy.verbs.nodes import ExecLine, ExecResult, Tunnel
from rain_deploy.verbs.rehearsal.rehearse import RehearseResult
from rain_deploy.verbs.results.explain import ExplainResult
from rain_deploy.verbs.results.points import PointsResult
from rain_deploy.verbs.results.report import ReportResult
from rain_deploy.verbs.runs import CancelResult, PullResult, RunsResult
from rain_deploy.verbs.scale import ExtendResult, ScaleResult
from rain_deploy.verbs.status import StatusResult
from rain_deploy.verbs.sweep import SweepResult
from rain_deploy.verbs.up import UpResult

NODES = (
    NodeLine("node-1", "server", "127.1.0.1", "ready", 2, load=0.5, disk_free_bytes=12_300_000_000),
    NodeLine("node-2", "governor", "127.1.0.2", "ready", 2),
)
OUT = Path("/somewhere/results/r1")
INJECTED = {"ctx"}
"""Parameters of verbs that no user sets."""
PRINTED = (b"loss \xff\n", b"warned\n")
STAGES = (StagePlan("install", "echo install"), StagePlan("start", "echo start"))
PLAN = PlanResult(
    "default", "hosts", "assumed", (HostPlan("node-1", "me@a", STAGES, ("installs it", "starts it")),)
)
RUN = RunResult("default", "r1", "finished", "done", 0, OUT, 61.0, figures=1, points=20, files=2)
UP = UpResult("default", "local", NODES, ("node-2 installed",), 4, 12.5)
DOWN = DownResult("default", ("node-1", "node-2"), ("node-1: no process", "node-2: no file"), ("r1",), 1.5)
REHEARSED = RehearseResult(
    script="job.py",
    outcome="done",
    exit_code=0,
    seconds=21.0,
    kinds=(
        RehearsedKind(name="load", count=1, tried="load", seconds=1.25),
        RehearsedKind(name="train", count=20, tried="lr=0.1", seconds=12.0),
        RehearsedKind(name="best", count=1, waits=True),
    ),
    memory_bytes=812 << 20,
    ended="job.py, line 31, fetches the result of 'lr=0.2', which was not run",
    left="lines 32 to 40 of job.py were not tried",
    compared=True,
)
RUN_LINE = RunLine(
    "r1", 1, "hsearch.py", ("--fast",), "finished", "done", 0, 1.8e9, 1.8e9, 1.8e9 + 75, OUT, pulled=True
)
POINT = PointRow(
    run="r1",
    task=3,
    session=1,
    name="lr=0.1 units=32",
    parameters={"lr": 0.1, "units": 32},
    value=0.93125,
    node="node-2",
    duration_s=4.25,
    state="finished",
    point=True,
)
FAILED = dataclasses.replace(POINT, state="failed", value=None, message="ValueError: no", key="ab" * 32)
EXPLAINED = ExplainResult(
    cluster="default",
    run="r1",
    number=3,
    name=FAILED.name,
    row=FAILED,
    why=("ValueError: no", "it was executed: the result that is kept from run r0 has another function"),
    arguments={"lr": 0.1, "seed": 7},
    error='Traceback (most recent call last):\n  File "h.py", line 7, in train\nValueError: no\n',
    attempts=(dataclasses.replace(FAILED, state="lost", attempt=1, node="node-1"), FAILED),
)
TASK = dataclasses.replace(POINT, task=4, name="collect", parameters={}, point=False, value=None)

QUOTE = Quote(
    zone="ch-gva-2",
    instance_type="standard.medium",
    template="Linux Debian 12 (Bookworm) 64-bit",
    disk_size_gib=20,
    cpus=2,
    memory_bytes=4 << 30,
    gpus=0,
    per_hour=0.04946,
    stopped_per_hour=0.0028,
    currency="CHF",
    source="prices of 2025-08-22",
    quota_left=18,
)
TYPES = (
    InstanceType("standard.medium", 2, 4 << 30, 0, 0.04666, "CHF", available=True),
    InstanceType("standard.micro", 1, 512 << 20, 0, None, "CHF", available=True),
    InstanceType("gpu3.small", 12, 56 << 30, 1, 1.3, "CHF", available=False),
)
FOUND = (
    GcLine("mine", "ab12", "ada", "living", ("instance node-1",), "kept", "it lives"),
    GcLine(
        "old", "cd34", "ada", "left", ("instance node-1", "security-group group"), "to delete", "not in state"
    ),
    GcLine(
        "far",
        "ef56",
        "ada",
        "left",
        ("instance node-1",),
        "kept",
        "of another machine",
        "rain-deploy gc --delete -c far",
    ),
)

CACHES = (
    CacheLine(
        Path("/home/me/local/cache/envs/ab12"), "environment", 2_600_000_000, "removed", "nothing uses it"
    ),
    CacheLine(Path("/home/me/cache/uv/cd34"), "uv", 40_000_000, "kept", "the next up needs it"),
)

JOURNALS = (
    JournalLine("node-1", "default", JournalUsage(bytes=4096, records=20, segments=3, newest_s=1.8e9)),
    JournalLine("/home/me/journal/ab12", "old", JournalUsage(bytes=512, records=2, segments=1, damaged=1)),
)


class FakeVerbs:
    """Stands for all verbs: notes what each was asked, does as it is told, and answers from its fields.

    A call that the verb itself would not take fails.  ``events`` are emitted, ``error`` is raised.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.events: tuple[Event, ...] = ()
        self.error: BaseException | None = None
        self.question = ""
        self.answer: bool | None = None
        self.run_result = RUN
        self.exec_lines: tuple[ExecLine, ...] = (
            ExecLine("node-1", 0, b"one\n"),
            ExecLine("node-2", 0, b"two\n", b"oh\n"),
        )
        self.drift: tuple[str, ...] = ()
        self.changing = ""
        self.rows: tuple[PointRow, ...] = (POINT, TASK)
        self.up_result = UP
        self.rehearsed = REHEARSED
        self.down_result = DOWN
        self.cost: float | None = None
        """What ``status``, ``list`` and ``down`` report."""
        self.found: tuple[GcLine, ...] = FOUND
        self.limit_s: float | None = None
        self.findings = (CheckLine("node-1", "change", "builds the engine"),)

    def __call__(self, verb: Callable[..., Any], ctx: Context, *arguments: Any, **named: Any) -> Any:
        bound = inspect.signature(verb).bind(ctx, *arguments, **named)
        bound.apply_defaults()
        asked = tuple(value for key, value in bound.arguments.items() if key not in INJECTED)
        self.calls.append((verb.__name__, asked))
        if self.question:
            self.answer = ctx.confirm(self.question)
        for event in self.events:
            ctx.emit(event)
        if self.error is not None:
            raise self.error
        return self._results(dict(bound.arguments))[verb.__name__]()

    def _results(self, asked: dict[str, Any]) -> dict[str, Callable[[], Any]]:
        """What each verb returns, by its name."""
        return {
            "up": lambda: self.up_result,
            "plan": lambda: PLAN,
            "run": lambda: dataclasses.replace(self.run_result, detached=asked["spec"].detach),
            "down": self._down,
            "rehearse": lambda: self.rehearsed,
            "sweep": lambda: SweepResult(self.up_result, self.run_result, self._down()),
            "status": lambda: self._status(asked["name"], checked=asked["check"]),
            "list_clusters": lambda: ListResult((self._cluster(),)),
            "runs": lambda: RunsResult(asked["name"], (RUN_LINE,)),
            "attach": lambda: self.run_result,
            "script_log": lambda: LogsResult(
                asked["name"], "script", "r1", "", *((b"", b"") if asked["follow"] else PRINTED)
            ),
            "node_log": lambda: LogsResult(asked["name"], asked["log"], "", "node-1", *PRINTED),
            "cancel": lambda: CancelResult(asked["name"], "r1", "finished", "cancelled", changed=True),
            "points": lambda: PointsResult(asked["name"], "r1", self.rows),
            "explain": lambda: dataclasses.replace(EXPLAINED, cluster=asked["name"]),
            "pull": lambda: PullResult(asked["name"], (PulledRun("r1", OUT, 1, 20, 2, 4096, finished=True),)),
            "journal": lambda: JournalResult(asked["name"], JOURNALS),
            "report": lambda: ReportResult(asked["name"], "r1", OUT / "report.html"),
            "ssh_argv": lambda: ("ssh", f"node-{asked['node'] or 1}", *asked["argv"]),
            "exec_all": lambda: ExecResult(asked["name"], asked["argv"], self.exec_lines),
            "push": lambda: _copied(asked, "node-1", "node-2"),
            "fetch": lambda: _copied(asked, "node-1"),
            "tunnel": lambda: self._open(Tunnel("one", asked["port"] or 4000, "node-1 127.0.0.1:7210")),
            "dashboard": lambda: self._open(
                Tunnel("one", 4001, "node-1 127.0.0.1:7222", "http://127.0.0.1:4001/")
            ),
            "check": lambda: CheckResult("local", self.findings),
            "scale": lambda: self._scaled(asked["spec"].name, asked["n"]),
            "extend": lambda: _extended(asked["name"], asked["duration_s"]),
            "gc": lambda: GcResult(self.found, deleting=asked["delete"], cluster=asked["cluster"]),
            "clean": lambda: CleanResult(CACHES),
            "zones": lambda: ZonesResult(
                (ZoneLine("ch-dk-2", default=False), ZoneLine("ch-gva-2", default=True))
            ),
            "types": lambda: TypesResult(
                asked["spec"].machines.zone or "ch-gva-2", TYPES, "prices of 2025-08-22"
            ),
        }

    def _down(self) -> DownResult:
        return dataclasses.replace(self.down_result, cost=self.cost, currency="CHF")

    def _status(self, name: str, *, checked: bool) -> StatusResult:
        hourly = None if self.cost is None else 0.09892
        money: dict[str, Any] = {
            "limit_s": self.limit_s,
            "cost": self.cost,
            "per_hour": hourly,
            "currency": "CHF",
            "changing": self.changing,
        }
        return StatusResult(name, "local", NODES, 2, RUN_LINE, self.drift, 0.2, checked=checked, **money)

    def _cluster(self) -> ClusterLine:
        state = "2 running" if self.cost is not None else ""
        money: dict[str, Any] = {
            "limit_s": self.limit_s,
            "cost": self.cost,
            "currency": "CHF",
            "state": state,
        }
        return ClusterLine(
            "default",
            "ab12",
            "local",
            2,
            up=True,
            created_s=1.8e9,
            runs=1,
            active_run="r1",
            **money,
        )

    def _scaled(self, name: str, nodes: int) -> ScaleResult:
        added = ("node-2",) if nodes > 1 else ()
        hourly = 0.04946 * nodes
        return ScaleResult(name, 1, nodes, added, (), NODES[:nodes], 12.5, hourly, "CHF", self.limit_s)

    @contextlib.contextmanager
    def _open(self, tunnel: Tunnel) -> Iterator[Tunnel]:
        yield tunnel
        self.calls.append(("closed", ()))


def _copied(asked: dict[str, Any], *nodes: str) -> CopyResult:
    return CopyResult(asked["name"], nodes, str(asked["source"]), str(asked["destination"]), 3, 4096, 0.1)


def _extended(name: str, duration_s: float | None) -> ExtendResult:
    limit_s = None if duration_s is None else time.time() + duration_s
    return ExtendResult(name, limit_s, ("node-1", "node-2"), 0.09892, "CHF")


class NoTransport:
    """The command line speaks to machines through verbs only."""

    def connect(self, host: Host) -> None:
        raise AssertionError(host)

    def run(self, *arguments: Any, **named: Any) -> CommandResult:
        raise AssertionError(arguments, named)

    def forward(self, *arguments: Any, **named: Any) -> Forward:
        raise AssertionError(arguments, named)

    def close(self) -> None: ...


def no_provider(name: str) -> Provider:
    raise InputError(name)


@dataclasses.dataclass
class World:
    """A command line over fake verbs, with a home of its own."""

    home: Path
    verbs: FakeVerbs = dataclasses.field(default_factory=FakeVerbs)
    interactive: bool = False
    credentials: str | None = None
    environ: dict[str, str] = dataclasses.field(default_factory=dict)
    called: list[tuple[str, ...]] = dataclasses.field(default_factory=list)
    browsed: list[str] = dataclasses.field(default_factory=list)
    wait: Callable[[], None] = lambda: None
    piped: bool = False
    make_context: Callable[..., contextlib.AbstractContextManager[Context]] | None = None

    def application(self) -> Application:
        return Application(
            call_verb=self.verbs,
            make_context=self.make_context or _context,
            environ={"RAIN_DEPLOY_HOME": str(self.home), **self.environ},
            credentials=lambda: self.credentials,
            interactive=self.interactive,
            call=self._call,
            browse=self.browsed.append,
            wait=self.wait,
            has_input=lambda: self.piped,
        )

    def invoke(self, *words: str, answer: str = "") -> Result:
        """What ``rain-deploy WORDS`` prints and how it ends."""
        return CliRunner(env={"NO_COLOR": "1", **self.environ}).invoke(
            root, list(words), obj=self.application(), input=answer
        )

    def living(self, provider: str = "local", *, limit_s: float | None = None) -> None:
        """Record a cluster ``default`` of two nodes; they cost money where the provider is exoscale."""
        hosts = (Host(f"node-{n}", f"127.1.0.{n}", 22, "me", ()) for n in (1, 2))
        nodes = tuple(Node(host.name, host) for host in hosts)
        cluster = Cluster("ab12", "default", provider, 1.8e9, nodes)
        if provider == "exoscale":
            meters = tuple(Meter(node.name, node.name, 1.8e9, QUOTE.per_hour) for node in nodes)
            cluster = dataclasses.replace(cluster, bill=Bill(QUOTE, meters=meters, limit_s=limit_s))
        Store(self.home).save_cluster(cluster)

    def last(self) -> tuple[Any, ...]:
        """Arguments of the last verb."""
        return self.verbs.calls[-1][1]

    def _call(self, argv: tuple[str, ...]) -> int:
        self.called.append(argv)
        return 7


@contextlib.contextmanager
def _context(home: Path, emit: EventSink, confirm: Confirm) -> Iterator[Context]:
    transport = NoTransport()
    yield Context(
        home,
        Store(home),
        transport,
        transport,
        no_provider,
        emit,
        confirm,
        Path.cwd(),
        SshExecutor(transport),
    )
