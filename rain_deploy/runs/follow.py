"""Ships a run, queues it, and follows it over one exec channel, also after a lost connection."""

import contextlib
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.hosts import run_stages
from rain_deploy.cluster.lookup import understood
from rain_deploy.core.cluster import Cluster
from rain_deploy.core.events import NodesSeen, Notice, PointSeen, RunChanged, ScriptOutput
from rain_deploy.core.layout import RUN_PORTS
from rain_deploy.core.run import RunRecord, RunState, Shipment
from rain_deploy.core.spec import RunSpec
from rain_deploy.core.step import Command, CommandResult, Stage
from rain_deploy.core.text import count
from rain_deploy.errors import EngineError, InputError, Locked, MachineGone, RainDeployError, Unreachable
from rain_deploy.node import wire
from rain_deploy.parts.services import node_argv, ship_stage, withdraw_stage
from rain_deploy.results.heard import Heard
from rain_deploy.results.points import read_rows
from rain_deploy.results.pull import ROWS, PulledRun, check_target, pulled_before
from rain_deploy.runs.journal import Bringing
from rain_deploy.runs.lost import keep_heard, run_again, way_on
from rain_deploy.runs.missing import modules_missing
from rain_deploy.runs.outage import Outage
from rain_deploy.runs.outlook import run_nodes
from rain_deploy.runs.shipping import payload
from rain_deploy.runs.states import (
    at_limit,
    record_states,
    run_states,
    runs_of,
    unfinished,
)

QUEUE_DEADLINE_S = 60.0
_CHUNK_BYTES = 1 << 20


def shipped(ctx: Context, cluster: Cluster, spec: RunSpec, shipment: Shipment) -> tuple[RunRecord, Stage]:
    """Record a new run and ship it to all nodes; return it, and the stage that shipped it.

    The caller holds the cluster's lock.  If the run does not reach every node, an error is raised, and
    nothing is queued or recorded.
    """
    recorded = [record for record in runs_of(ctx, cluster) if record.state != RunState.FINISHED]
    states = run_states(ctx, cluster) if recorded else {}  # the node is asked only where a run may be live
    record_states(ctx, cluster, states)
    active = unfinished(states)
    live = tuple(record.id for record in recorded if record.id in active)
    taken = {record.port for record in recorded if record.id in live}
    record = ctx.store.add_run(
        lambda sequence: _new_run(ctx, cluster, spec, shipment, sequence=sequence, taken=taken)
    )
    try:
        names = tuple(node.name for node in cluster.nodes)
        files = payload(shipment)
        stage = ship_stage(
            cluster.layout,
            record,
            spec,
            shipment,
            files,
            live=live,
            nodes=names,
            env_digest=cluster.env_digest,
        )
        run_stages(ctx, cluster, dict.fromkeys(names, stage)).require()
    except BaseException:
        ctx.store.forget_run(record)
        withdraw(ctx, cluster, record)
        raise
    return record, stage


def withdraw(ctx: Context, cluster: Cluster, record: RunRecord) -> None:
    """Delete the variables of a run that does not run from all nodes that answer."""
    stage = withdraw_stage(cluster.layout, record.id)
    with contextlib.suppress(RainDeployError):
        run_stages(ctx, cluster, {node.name: stage for node in cluster.nodes})


def _new_run(
    ctx: Context, cluster: Cluster, spec: RunSpec, shipment: Shipment, *, sequence: int, taken: set[int]
) -> RunRecord:
    """Return a new run with an id that no other run has, in this home or another.

    Its port is the next that no unfinished run has; all clusters of this home take turns.
    """
    created_s = time.time()
    stem = "".join(c if c.isalnum() else "-" for c in Path(shipment.script).stem)[:40]
    when = time.strftime("%Y%m%d-%H%M%S", time.localtime(created_s))
    run_id = f"{when}-{sequence}-{cluster.id[:4]}-{stem}"
    out = (spec.out or ctx.cwd / "results" / run_id).absolute()
    check_target(out, run_id)
    turns = (RUN_PORTS[(sequence + turn) % len(RUN_PORTS)] for turn in range(len(RUN_PORTS)))
    port = next((port for port in turns if port not in taken), None)
    if port is None:
        message = f"{len(RUN_PORTS)} runs are waiting or active on {cluster.name}; no more can be queued"
        raise Locked(message, next_step=f"rain-deploy runs -c {cluster.name}")
    return RunRecord(
        id=run_id,
        cluster_id=cluster.id,
        cluster=cluster.name,
        sequence=sequence,
        port=port,
        script=shipment.script,
        args=spec.args,
        script_sha256=shipment.script_sha256,
        created_s=created_s,
        out=out,
        then_off=spec.then_off,
        again=spec.again,
    )


def queue(ctx: Context, cluster: Cluster, record: RunRecord, spec: RunSpec) -> RunRecord:
    """Queue the run, do not follow it, and return its record."""
    try:
        command = Command(_queue_argv(cluster, record, spec), deadline_s=QUEUE_DEADLINE_S)
        result = ctx.transport.run(cluster.server.host, command)
    except Unreachable as error:
        error.still_running = f"run {record.id}, if it was queued before the connection was lost"
        error.next_step = f"rain-deploy runs -c {cluster.name}"
        raise
    if result.exit_status != 0:
        ctx.store.forget_run(record)
        withdraw(ctx, cluster, record)
        raise _refused(ctx, record, result)
    queued = replace(record, state=RunState.QUEUED)
    ctx.store.save_run(queued)
    return queued


def _queue_argv(cluster: Cluster, record: RunRecord, spec: RunSpec) -> tuple[str, ...]:
    flags = () if spec.wait else ("--no-wait",)
    return node_argv(cluster, "queue", cluster.layout.run(record.id), *flags)


@dataclass(slots=True)
class _Follower:
    """Reads the lines of ``follow`` and remembers how far it came."""

    ctx: Context
    cluster: Cluster
    run: str
    in_line: Callable[[], None]
    stored: Callable[[], None]
    take_state: Callable[[wire.StateLine], None]
    kept: Heard = field(default_factory=Heard)
    offsets: dict[str, int] = field(default_factory=lambda: {"out": 0, "err": 0, "points": 0})
    attempts: dict[str, int] = field(default_factory=dict)  # whose output the offset is in, by stream
    events: int = 0  # that were shown
    status: wire.StateLine | None = None
    ending: RunChanged | None = None  # of a run that has finished, until all of it was sent
    ended: bool = False
    heard: int = 0  # lines so far; a run without output also sends one every few seconds
    rest: bytes = b""

    def __call__(self, chunk: bytes) -> None:
        *lines, self.rest = (self.rest + chunk).split(b"\n")
        for text in lines:
            self.heard += 1
            match wire.read_line(text):
                case wire.OutputLine() as line:
                    self._take_output(line)
                case wire.PointLine() as line:
                    self._take_point(line)
                case wire.StateLine() as line:
                    self._take_state(line)
                case wire.LoadLine() as line:
                    self.ctx.emit(NodesSeen(line.busy, line.now_s))
                case wire.EndLine():
                    self.ended = True
                    if self.ending:
                        self.ctx.emit(self.ending)
                case None:
                    pass

    def _take_point(self, line: wire.PointLine) -> None:
        row = line.row
        self.offsets["points"] += line.bytes
        if row.state == "finished" and row.key and not row.cached:
            self.stored()
        self.kept.point(row)
        self.ctx.emit(PointSeen(row))

    def _take_output(self, line: wire.OutputLine) -> None:
        stream = "stdout" if line.t == "out" else "stderr"
        if line.again:
            self.offsets[line.t] = 0
            self.ctx.emit(Notice(f"attempt {line.attempt} prints something else; its {stream} starts again"))
        self.offsets[line.t] += len(line.data)
        self.attempts[line.t] = line.attempt
        self.kept.printed(stream, line.data, again=line.again)
        self.ctx.emit(ScriptOutput(stream, line.data))

    def _take_state(self, line: wire.StateLine) -> None:
        before, self.status = self.status, line
        self.take_state(line)
        if before is None:
            self.in_line()
            for warning in line.warnings:
                self.ctx.emit(Notice(warning))
        for event in line.events[self.events :]:
            self.ctx.emit(Notice(event.message))
        self.events = len(line.events)
        if line.nodes and (before is None or before.nodes != line.nodes):
            self.ctx.emit(run_nodes(self.cluster, line))
        if before is None or (before.state, before.ahead) != (line.state, line.ahead):
            detail = f"{line.ahead} before it" if line.ahead else line.message
            by_itself = line.outcome == wire.Outcome.DONE and line.started_s and line.ended_s
            seconds = (line.ended_s or 0) - (line.started_s or 0) if by_itself else None
            changed = RunChanged(self.run, line.state, detail, line.started_s, seconds)
            if line.state == RunState.FINISHED:
                self.ending = changed
            else:
                self.ctx.emit(changed)

    def show(self, status: wire.RunStatus, out: Path) -> None:
        """Take all of a run that has ended and whose results are in ``out``."""
        self._take_state(wire.extended(status, wire.StateLine))
        for stream in ("stdout", "stderr"):
            with contextlib.suppress(FileNotFoundError), (out / f"{stream}.log").open("rb") as file:
                for data in iter(lambda: file.read(_CHUNK_BYTES), b""):
                    self.ctx.emit(ScriptOutput(stream, data))
        for row in read_rows(out / ROWS):
            self.ctx.emit(PointSeen(row))
        if self.ending:
            self.ctx.emit(self.ending)

    @property
    def place(self) -> tuple[str, ...]:
        """Return the options of ``follow`` that skip what came already."""
        places = {key: str(offset) for key, offset in self.offsets.items()}
        places |= {key: f"{attempt}:{places[key]}" for key, attempt in self.attempts.items()}
        return tuple(word for key, where in places.items() for word in (f"--{key}", where))

    @property
    def progress(self) -> str:
        """Return the progress, such as ``6 of 20 points finished``."""
        states = self.kept.points
        all_ = count(sum(states.values()), "point")
        return f"{states.get('finished', 0)} of {all_} finished" if states else ""


@dataclass(frozen=True, slots=True)
class Followed:
    """The end of a run; if its server node is out of reach, also what was heard of it."""

    status: wire.RunStatus
    heard: Heard | None = None
    here: PulledRun | None = None  # its results, if it was shown from them


def shown_here(ctx: Context, cluster: Cluster, record: RunRecord) -> Followed | None:
    """Show a run from its results, whatever has become of its machine.  None if not all of them are here."""
    if (here := pulled_before(record)) is None:
        return None
    status, pulled = here
    ctx.emit(Notice(f"all results of run {record.id} are here, in {record.out}"))
    _Follower(ctx, cluster, record.id, lambda: None, lambda: None, lambda _: None).show(status, record.out)
    return Followed(status, here=pulled)


def follow(
    ctx: Context,
    cluster: Cluster,
    record: RunRecord,
    *,
    queued: RunSpec | None = None,
    in_line: Callable[[], None] = lambda: None,
    take_state: Callable[[wire.StateLine], None] = lambda _: None,
) -> Followed:
    """Emit the run's output, points and changes from their beginning; return how it ended.

    With ``queued``, the first connection queues the run too; ``in_line`` is called once it is queued,
    ``take_state`` whenever the server node says how the run stands.
    Raises Locked when the node refuses to queue, Unreachable for a connection that stays lost.
    """
    argv = node_argv(cluster, "follow", cluster.layout.run(record.id))
    if queued:
        queue_line = shlex.join(_queue_argv(cluster, record, queued))
        argv = ("sh", "-c", f"{queue_line} && exec {shlex.join(argv)}")
    with Bringing(ctx, cluster) as bringing:
        follower = _Follower(ctx, cluster, record.id, in_line, bringing.stored, take_state)
        try:
            if ended := _ended_away(follower, record, argv):
                return Followed(ended, follower.kept)
        except Unreachable as error:
            keep_heard(ctx, cluster, record, follower.kept, wire.RunStatus())
            error.also(f"if {cluster.server.name} is gone for good: {way_on(ctx, cluster, record)}")
            raise
    assert follower.status
    status = at_limit(ctx.store.cluster(cluster.name) or cluster, follower.status, time.time())
    if status.outcome == wire.Outcome.POWERED_OFF and follower.progress:
        status = replace(status, message=f"{status.message}; {follower.progress}")
    return Followed(status)


def with_machine_gone(ctx: Context, cluster: Cluster, record: RunRecord, error: MachineGone) -> Followed:
    """Return how a run ended whose machine was found to be gone.  Raises the error if it is there again."""
    ended = Outage(ctx, cluster, record).ended(error, wire.RunStatus(), "")
    if ended is None:
        raise error
    return Followed(ended, Heard())


def _ended_away(follower: _Follower, record: RunRecord, argv: tuple[str, ...]) -> wire.RunStatus | None:
    """Follow a run to its end; return how it ended if its machine is off or gone, else None."""
    ctx, cluster = follower.ctx, follower.cluster
    outage = Outage(ctx, cluster, record)
    while not follower.ended:
        heard = follower.heard
        try:
            with understood(cluster, cluster.server.name):
                command = Command(argv, deadline_s=None)
                result = ctx.transport.run(cluster.server.host, command, on_stdout=follower)
        except Unreachable as error:
            if follower.heard > heard:
                outage = Outage(ctx, cluster, record)
            if ended := outage.next(error, follower.status or wire.RunStatus(), follower.progress):
                return ended
        else:
            if not follower.ended:
                with understood(cluster, cluster.server.name):
                    raise _refused(ctx, record, result)
        follower.rest = b""
        if follower.status:
            argv = (*node_argv(cluster, "follow", cluster.layout.run(record.id)), *follower.place)
    return None


def _refused(ctx: Context, record: RunRecord, result: CommandResult) -> Locked | InputError | EngineError:
    again = run_again(record)
    if result.exit_status == wire.BUSY:
        message = f"run {record.id} was not started: {result.complaint}"
        return Locked(message, next_step=f"to wait for the others: {again}")
    if result.exit_status == wire.MODULES_MISSING:
        return modules_missing(ctx, record, wire.read_modules(result.stderr))
    if result.exit_status == wire.NOT_QUEUED:
        message = f"run {record.id} was never queued: the command that sent it was interrupted"
        return InputError(message, next_step=again)
    message = f"run {record.id} cannot be followed (exit {result.exit_status})"
    return EngineError(message, details=result.complaint)
