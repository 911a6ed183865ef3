"""``follow``: a run's output, state and points as JSON lines, from given offsets to the run's end."""

from __future__ import annotations

import json
import os
import select
import sys
import time
from collections.abc import Iterator

from ..files import Json, Tail
from .directory import FINISHED, Run
from .line import ahead

_EAGER_S = 1.0
_EAGER_POLL_S = 0.02
_POLL_S = 0.05
_ALIVE_EVERY_S = 10.0
"""So often the state is sent again, so that a reader that is gone is noticed."""


class Follower:
    """Collects what a reader has not got yet."""

    def __init__(self, run: Run, out: int, err: int, points: int) -> None:
        self._run = run
        self._streams = {"out": Tail(run.path / "stdout.log", out), "err": Tail(run.path / "stderr.log", err)}
        self._points = Tail(run.path / "points.jsonl", points)
        self._told: Json | None = None
        self._told_s = 0.0

    def batches(self) -> Iterator[list[Json]]:
        """Lists of lines to send, empty ones to wait after, until all of a finished run is sent."""
        while True:
            state = self._state()  # before the files: what they hold then is all there is
            yield self._state_lines(state)
            sent = True
            while sent:
                sent = bool(lines := self._new())
                if lines:
                    yield lines
            if state["state"] == FINISHED:
                yield [{"t": "end"}]
                return
            yield []

    def _state(self) -> Json:
        state = self._run.state()
        return {**state, "ahead": ahead(self._run) if state["state"] == "queued" else 0}

    def _state_lines(self, state: Json) -> list[Json]:
        if state == self._told and time.monotonic() - self._told_s < _ALIVE_EVERY_S:
            return []
        self._told, self._told_s = state, time.monotonic()
        return [{"t": "state", **state}]

    def _new(self) -> list[Json]:
        lines: list[Json] = [
            {"t": kind, "d": data.decode("utf-8", "surrogateescape")}
            for kind, stream in self._streams.items()
            if (data := stream.read())
        ]
        rows = self._points.read(whole_lines=True).splitlines(keepends=True)
        return lines + [{"t": "point", "row": json.loads(row), "bytes": len(row)} for row in rows]


def follow(run: Run, out: int, err: int, points: int) -> int:
    """Send a run's lines to stdout until it is finished and all is sent, or the reader is gone."""
    started = time.monotonic()
    try:
        for lines in Follower(run, out, err, points).batches():
            if lines:
                sys.stdout.write("".join(json.dumps(line) + "\n" for line in lines))
                sys.stdout.flush()
            elif _reader_gone(_EAGER_POLL_S if time.monotonic() - started < _EAGER_S else _POLL_S):
                break
    except BrokenPipeError:
        # The interpreter's own flush at exit would fail once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _reader_gone(wait_s: float) -> bool:
    """Wait; at once True when the other end of stdout is closed."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return bool(poll.poll(wait_s * 1000))
