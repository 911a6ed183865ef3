"""Follows a run over one exec channel; a lost connection is taken up again where it broke."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from rain_deploy.cluster.context import Context
from rain_deploy.core.cluster import Cluster
from rain_deploy.core.command import Command
from rain_deploy.core.events import Notice, PointSeen, RunChanged, ScriptOutput
from rain_deploy.core.run import RunRecord
from rain_deploy.errors import EngineError, InputError, Locked, Unreachable
from rain_deploy.parts.services import layout_of, node_command
from rain_deploy.runs.states import State

RECONNECT_S = 600.0
"""How long a lost connection is tried again before the command gives up; the run goes on meanwhile."""
PAUSES_S = (0.2, 1.0, 2.0, 5.0)


@dataclass(slots=True)
class _Follower:
    """Takes the node's JSON lines apart; remembers how far it came."""

    ctx: Context
    run: str
    offsets: dict[str, int] = field(default_factory=lambda: {"out": 0, "err": 0, "points": 0})
    state: dict[str, object] = field(default_factory=dict)
    ended: bool = False
    heard: int = 0
    """Lines so far; a run without output has a line every few seconds too."""
    rest: bytes = b""

    def __call__(self, chunk: bytes) -> None:
        *lines, self.rest = (self.rest + chunk).split(b"\n")
        for line in lines:
            self._line(json.loads(line))

    def _line(self, line: dict[str, object]) -> None:
        self.heard += 1
        kind = line.pop("t")
        if kind in {"out", "err"}:
            data = str(line["d"]).encode(errors="surrogateescape")
            self.offsets[str(kind)] += len(data)
            self.ctx.emit(ScriptOutput("stdout" if kind == "out" else "stderr", data))
        elif kind == "point":
            self.offsets["points"] += int(str(line["bytes"]))
            row = line["row"]
            if isinstance(row, dict):
                self.ctx.emit(PointSeen(row))
        elif kind == "state":
            self._state(line)
        elif kind == "end":
            self.ended = True

    def _state(self, state: dict[str, object]) -> None:
        ahead = state.get("ahead")
        if (state.get("state"), ahead) != (self.state.get("state"), self.state.get("ahead")):
            detail = f"{ahead} before it" if ahead else str(state.get("message") or "")
            self.ctx.emit(RunChanged(self.run, str(state.get("state")), detail))
        self.state = state


def follow(
    ctx: Context,
    cluster: Cluster,
    record: RunRecord,
    *,
    first: Command | None = None,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> State:
    """Emit the run's output, points and changes from their beginning; return its final state.

    ``first`` is used for the first connection in place of the plain follow (it queues the run too).
    Raises Locked when the node refuses to queue, Unreachable when the connection cannot be had again.
    """
    follower = _Follower(ctx, record.id)
    command = first or follow_command(cluster, record)
    lost_s: float | None = None
    tries = 0
    while not follower.ended:
        heard = follower.heard
        try:
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
        if follower.state:
            command = follow_command(cluster, record, follower.offsets)
    return follower.state


def refused(record: RunRecord, exit_status: int, stderr: bytes) -> Locked | InputError | EngineError:
    """The error for a queue or follow that the node ended with ``exit_status``."""
    details = stderr.decode(errors="replace").strip()[-2000:]
    if exit_status == Locked.exit_code:
        return Locked(f"run {record.id} was not started: {details}")
    if exit_status == InputError.exit_code:
        return InputError(
            f"run {record.id} was never in line: the command that shipped it was ended before",
            next_step=f"rain-deploy run -c {record.cluster} {record.script}",
        )
    return EngineError(f"run {record.id} cannot be followed (exit {exit_status})", details=details)


def follow_command(cluster: Cluster, record: RunRecord, offsets: dict[str, int] | None = None) -> Command:
    """The plain follow, from the given byte offsets."""
    run_dir = layout_of(cluster).run(record.id)
    flags = [word for key, value in (offsets or {}).items() for word in (f"--{key}", str(value))]
    return node_command(cluster, "follow", run_dir, *flags, deadline_s=None)
