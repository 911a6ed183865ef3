"""``follow``: send a run's output, state and points as JSON lines, from given offsets to the run's end."""

from __future__ import annotations

import json
import os
import select
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from ..files import Tail
from ..wire import (
    NOT_IN_LINE,
    EndLine,
    FollowLine,
    OutputLine,
    PointLine,
    PointRow,
    RunState,
    StateLine,
    from_json,
    to_json,
)
from .directory import Run, the_run
from .line import state_line

_EAGER_S = 1.0
_EAGER_POLL_S = 0.02
_POLL_S = 0.05
_ALIVE_EVERY_S = 10.0
"""The state is sent again this often, so that a reader that is gone is noticed."""


class Follower:
    """Collects what was not sent to a reader yet."""

    def __init__(self, run: Run, out: int, err: int, points: int) -> None:
        self._run = run
        self._streams = {"out": Tail(run.path / "stdout.log", out), "err": Tail(run.path / "stderr.log", err)}
        self._points = Tail(run.path / "points.jsonl", points)
        self._sent: StateLine | None = None
        self._sent_s = 0.0

    def batches(self) -> Iterator[list[FollowLine]]:
        """Yield lists of lines to send, empty ones to wait after, until all of a finished run is sent."""
        while True:
            state = state_line(self._run)  # before the files: once it is finished they are complete
            if state != self._sent or time.monotonic() - self._sent_s > _ALIVE_EVERY_S:
                self._sent, self._sent_s = state, time.monotonic()
                yield [state]
            while lines := self._new():
                yield lines
            if state.state == RunState.FINISHED:
                yield [EndLine()]
                return
            yield []

    def _new(self) -> list[FollowLine]:
        lines: list[FollowLine] = [
            OutputLine(t=kind, d=data.decode("utf-8", "surrogateescape"))
            for kind, stream in self._streams.items()
            if (data := stream.read())
        ]
        rows = self._points.read(whole_lines=True).splitlines(keepends=True)
        return lines + [PointLine(row=from_json(PointRow, json.loads(row)), bytes=len(row)) for row in rows]


def follow(run_dir: Path, out: int, err: int, points: int) -> int:
    """Send a run's lines until it is finished and all are sent, or until the reader is gone."""
    run = the_run(run_dir)
    if run.status().state == RunState.SHIPPED:
        print("it was never in line", file=sys.stderr)
        return NOT_IN_LINE
    started = time.monotonic()
    try:
        for lines in Follower(run, out, err, points).batches():
            if lines:
                sys.stdout.write("".join(json.dumps(to_json(line)) + "\n" for line in lines))
                sys.stdout.flush()
            elif _reader_gone(_EAGER_POLL_S if time.monotonic() - started < _EAGER_S else _POLL_S):
                break
    except BrokenPipeError:
        # The interpreter's own flush at exit would fail once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _reader_gone(wait_s: float) -> bool:
    """Wait, and return True at once if the other end of stdout is closed."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return bool(poll.poll(wait_s * 1000))
