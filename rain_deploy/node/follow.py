"""``follow``: send what a run prints, its points and its state, from any place on, until its end."""

import json
import math
import os
import select
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from . import wire
from .files import Tail
from .run import Run, state_line, the_run
from .service.report import end_lost, server_config
from .wire import RunState, StateLine

_EAGER_S = 1.0
_EAGER_POLL_S = 0.02
_POLL_S = 0.05
_ALIVE_EVERY_S = 10.0
"""The state is sent again this often, so that a reader that is gone is noticed, and a run that is lost."""


def follow(run_dir: Path, out: int, err: int, points: int) -> int:
    """Send a run's lines until it is finished and all are sent, or until the reader is gone."""
    run = the_run(run_dir)
    if run.status().state == RunState.SHIPPED:
        print("it was never queued", file=sys.stderr)
        return wire.NOT_QUEUED
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    started = time.monotonic()
    try:
        for lines in _batches(run, out, err, points):
            if lines:
                sys.stdout.write("".join(json.dumps(wire.to_json(line)) + "\n" for line in lines))
                sys.stdout.flush()
                continue
            wait_s = _EAGER_POLL_S if time.monotonic() - started < _EAGER_S else _POLL_S
            if poll.poll(wait_s * 1000):  # at once when the other end of stdout is closed
                break
    except BrokenPipeError:
        # The interpreter's own flush at exit would fail once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _batches(run: Run, out: int, err: int, points: int) -> Iterator[list[wire.FollowLine]]:
    """Yield lists of lines to send, empty ones to wait after, until all of a finished run is sent."""
    streams = {"out": Tail(run.path / "stdout.log", out), "err": Tail(run.path / "stderr.log", err)}
    rows = Tail(run.path / "points.jsonl", points)
    sent: StateLine | None = None
    sent_s = -math.inf
    while True:
        if due := time.monotonic() - sent_s > _ALIVE_EVERY_S:
            end_lost(server_config(run.path.parents[1]))
        state = state_line(run)  # before the files: once it is finished they are complete
        lines: list[wire.FollowLine] = []
        if due or state != sent:
            sent, sent_s = state, time.monotonic()
            lines.append(state)
        for kind, stream in streams.items():
            if data := stream.read():
                lines.append(wire.OutputLine(t=kind, d=data.decode("utf-8", "surrogateescape")))
        new = rows.read(whole_lines=True).splitlines(keepends=True)
        lines += [wire.PointLine(row=wire.read(wire.PointRow, row), bytes=len(row)) for row in new]
        if not lines and state.state == RunState.FINISHED:
            yield [wire.EndLine()]
            return
        yield lines
