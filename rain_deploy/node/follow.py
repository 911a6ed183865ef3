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
from .load import load_line
from .run import Run, state_line, the_run
from .service.report import end_lost, server_config
from .wire import RunState, StateLine

_EAGER_S = 1.0
_EAGER_POLL_S = 0.02
_POLL_S = 0.05
_LOAD_EVERY_S = 5.0  # governors report it as often
_ALIVE_EVERY_S = 10.0
"""The state is sent again this often, so that a reader that is gone is noticed, and a run that is lost."""


class Output:
    """One of a script's two streams over all attempts; nothing is sent twice without a word.

    Every attempt prints from its beginning.  As long as that is what the reader has, nothing is sent.
    """

    def __init__(self, run_dir: Path, name: str, sent: str) -> None:
        """``sent``: what the reader has, as ``ATTEMPT:BYTES``; without an attempt it is the first."""
        self._run_dir, self._name = run_dir, name
        attempt, _, size = sent.rpartition(":")
        self.attempt, self._sent = int(attempt or 1), int(size)
        self._same = 0  # bytes of a later attempt that the reader has too

    def read(self, attempt: int) -> tuple[bytes, bool]:
        """Return what is to be sent next, and whether the output of ``attempt`` begins with it."""
        if data := self._piece(self.attempt, self._sent):
            self._sent += len(data)
            return data, False
        while self.attempt < attempt and (data := self._piece(attempt, self._same)):
            data = data[: self._sent - self._same]
            if data != self._piece(self.attempt, self._same)[: len(data)]:
                data = self._piece(attempt, 0)
                self.attempt, self._sent, self._same = attempt, len(data), 0
                return data, True
            self._same += len(data)
            if self._same == self._sent:
                self.attempt, self._same = attempt, 0
                return self.read(attempt)
        return b"", False

    def _piece(self, attempt: int, offset: int) -> bytes:
        aside = self._run_dir / "attempts" / str(attempt) / self._name
        data = Tail(self._run_dir / self._name, offset).read()
        return Tail(aside, offset).read() if aside.exists() else data  # it may be moved while it is read


def follow(run_dir: Path, out: str, err: str, points: int) -> int:
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


def _batches(run: Run, out: str, err: str, points: int) -> Iterator[list[wire.FollowLine]]:
    """Yield lists of lines to send, empty ones to wait after, until all of a finished run is sent."""
    streams = {"out": Output(run.path, "stdout.log", out), "err": Output(run.path, "stderr.log", err)}
    rows = Tail(run.path / "points.jsonl", points)
    sent: StateLine | None = None
    sent_s = load_s = -math.inf
    while True:
        if due := time.monotonic() - sent_s > _ALIVE_EVERY_S:
            end_lost(server_config(run.path.parents[1]))
        state = state_line(run)  # before the files: once it is finished they are complete
        lines: list[wire.FollowLine] = []
        if due or state != sent:
            sent, sent_s = state, time.monotonic()
            lines.append(state)
        if state.state == RunState.RUNNING and time.monotonic() - load_s > _LOAD_EVERY_S:
            load_s = time.monotonic()
            lines.append(load_line(run, run.path.parents[1] / "server"))
        for kind, stream in streams.items():
            data, again = stream.read(state.attempt)
            if data:
                text = data.decode("utf-8", "surrogateescape")
                lines.append(wire.OutputLine(t=kind, d=text, attempt=stream.attempt, again=again))
        new = rows.read(whole_lines=True).splitlines(keepends=True)
        lines += [wire.PointLine(row=wire.read(wire.PointRow, row), bytes=len(row)) for row in new]
        if not lines and state.state == RunState.FINISHED:
            yield [wire.EndLine()]
            return
        yield lines
