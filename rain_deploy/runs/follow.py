"""Follow a run over one exec channel; continue a lost connection where it broke."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from rain_deploy.cluster.answers import understood
from rain_deploy.cluster.context import Context
from rain_deploy.core.cluster import Cluster
from rain_deploy.core.events import Notice, PointSeen, RunChanged, ScriptOutput
from rain_deploy.core.run import RunRecord
from rain_deploy.core.step import Command
from rain_deploy.errors import EngineError, InputError, Locked, Unreachable
from rain_deploy.node.wire import (
    BUSY,
    NOT_IN_LINE,
    EndLine,
    OutputLine,
    PointLine,
    RunStatus,
    StateLine,
    read_line,
)
from rain_deploy.parts.services import layout_of, node_command

RECONNECT_S = 600.0
"""How long a lost connection is tried again before the command gives up; the run goes on meanwhile."""
PAUSES_S = (0.2, 1.0, 2.0, 5.0)


@dataclass(slots=True)
class _Follower:
    """Reads the lines of ``follow`` and remembers how far it came."""

    ctx: Context
    run: str
    in_line: Callable[[], None]
    offsets: dict[str, int] = field(default_factory=lambda: {"out": 0, "err": 0, "points": 0})
    status: StateLine | None = None
    ended: bool = False
    heard: int = 0
    """Lines so far; a run without output also sends one every few seconds."""
    rest: bytes = b""

    def __call__(self, chunk: bytes) -> None:
        *lines, self.rest = (self.rest + chunk).split(b"\n")
        for text in lines:
            self.heard += 1
            match read_line(text):
                case OutputLine() as line:
                    self.offsets[line.t] += len(line.data)
                    self.ctx.emit(ScriptOutput("stdout" if line.t == "out" else "stderr", line.data))
                case PointLine() as line:
                    self.offsets["points"] += line.bytes
                    self.ctx.emit(PointSeen(line.row))
                case StateLine() as line:
                    self._changed(line)
                case EndLine():
                    self.ended = True
                case None:
                    pass

    def _changed(self, status: StateLine) -> None:
        before, self.status = self.status, status
        if before is None:
            self.in_line()
        if before is None or (before.state, before.ahead) != (status.state, status.ahead):
            detail = f"{status.ahead} before it" if status.ahead else status.message
            self.ctx.emit(RunChanged(self.run, status.state, detail))


def follow(
    ctx: Context,
    cluster: Cluster,
    record: RunRecord,
    *,
    first: Command | None = None,
    in_line: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> RunStatus:
    """Emit the run's output, points and changes from their beginning; return its final state.

    ``first`` is used for the first connection in place of the plain follow (it queues the run too), and
    ``in_line`` is called when the node answers that the run is in line.  Raises Locked when the node refuses
    to queue, Unreachable when the connection cannot be restored.
    """
    follower = _Follower(ctx, record.id, in_line)
    command = first or follow_command(cluster, record)
    lost_s: float | None = None
    tries = 0
    while not follower.ended:
        heard = follower.heard
        try:
            with understood(cluster, cluster.server.name):
                result = ctx.transport.run(cluster.server.host, command, on_stdout=follower)
        except Unreachable as error:
            if follower.heard > heard:
                lost_s, tries = None, 0
            lost_s = lost_s or clock()
            if clock() - lost_s > RECONNECT_S:
                error.still_running = f"run {record.id} goes on on {cluster.server.name}"
                error.next_step = f"rain-deploy attach {record.id} -c {cluster.name}"
                raise
            if tries == 0:
                ctx.emit(Notice(f"connection lost ({error.message}); the run goes on, trying again"))
            pause(PAUSES_S[min(tries, len(PAUSES_S) - 1)])
            tries += 1
        else:
            if not follower.ended:
                raise refused(record, result.exit_status, result.stderr)
        follower.rest = b""
        if follower.status:
            command = follow_command(cluster, record, follower.offsets)
    assert follower.status
    return follower.status


def refused(record: RunRecord, exit_status: int, stderr: bytes) -> Locked | InputError | EngineError:
    """Return the error for a queue or follow that the node ended with ``exit_status``."""
    details = stderr.decode(errors="replace").strip()[-2000:]
    again = f"rain-deploy run -c {record.cluster} {record.script}"
    if exit_status == BUSY:
        return Locked(
            f"run {record.id} was not started: {details}", next_step=f"{again}, which waits in line"
        )
    if exit_status == NOT_IN_LINE:
        message = f"run {record.id} was never in line: the command that shipped it was ended before"
        return InputError(message, next_step=again)
    return EngineError(f"run {record.id} cannot be followed (exit {exit_status})", details=details)


def follow_command(cluster: Cluster, record: RunRecord, offsets: dict[str, int] | None = None) -> Command:
    """Return the command that follows the run from the given byte offsets, and does not queue it."""
    run_dir = layout_of(cluster).run(record.id)
    flags = [word for key, value in (offsets or {}).items() for word in (f"--{key}", str(value))]
    return node_command(cluster, "follow", run_dir, *flags, deadline_s=None)
