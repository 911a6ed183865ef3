"""Show events: as lines in a pipe, as JSON Lines, or not at all; ``live`` shows them in a terminal."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import click

from rain_deploy.cli.show import points, text
from rain_deploy.cli.show.activity import Activity
from rain_deploy.cli.show.text import OutputLost, echo
from rain_deploy.core import events

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rain_deploy.node.wire import PointRow

SWEEPS = frozenset({"run", "attach", "sweep"})  # verbs that show the points of a run
WIDTH = 80  # of a line about a run in a log
QUIET_S = 20.0
"""After this time without a line, show the next thing that a long step prints, as a sign of life."""


@dataclass
class Sink:
    """Shows the script's own output and nothing else.  Called from many threads."""

    script_to_stderr: bool = False
    run: str = ""  # the run that the command is about, because Ctrl-C has to name it
    queued: bool = False  # True once the node has confirmed that the run is queued
    lost: OutputLost | None = None  # why the script's output is no longer shown
    on_point: Callable[[PointRow], None] | None = None  # for the one verb that shows points as they change
    activity: Activity = field(default_factory=Activity)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def __call__(self, event: events.Event) -> None:
        with self._lock:
            if isinstance(event, events.RunChanged):
                self.run, self.queued = event.run, event.state != "shipped"
            self.activity.see(event)
            if isinstance(event, events.PointSeen) and self.on_point:
                self.pause()
                self.on_point(event.row)
            self.show(event)

    def show(self, event: events.Event) -> None:
        """Show one event; called under the lock."""
        if isinstance(event, events.ScriptOutput):
            self.pause()
            err = self.script_to_stderr or event.stream == "stderr"
            if err or not self.lost:
                self._print(event.data, err=err)

    def _print(self, data: bytes, *, err: bool) -> None:
        try:
            echo(data, nl=False, err=err)
        except OutputLost as lost:
            if lost.reader_gone:
                raise
            self.lost = lost  # the run continues, and the script's output is among its results
            echo(f"{lost.message}; the rest of what the script prints is in the results only", err=True)

    def pause(self) -> None:
        """Leave the terminal to the script's output, a question or the result."""

    def resume(self) -> None:
        """Take the terminal back after a question."""

    @contextlib.contextmanager
    def work(self) -> Iterator[None]:
        """Show, until the end of the block, that the command works."""
        yield


@dataclass
class Lines(Sink):
    """Shows, in pipes and logs, a line on stderr for each thing done, and now and then what is being done."""

    verbose: bool = False
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._spoke_s = self.clock()
        self._ended: set[tuple[int, int]] = set()  # points that had their line

    def show(self, event: events.Event) -> None:
        super().show(event)
        if (line := self._line(event)) is not None:
            self._spoke_s = self.clock()
            self.pause()
            red = isinstance(event, events.Notice) and event.warning
            line = text.folded(text.clean(line), sys.stderr)
            echo(click.style(line, fg="red") if red else line, err=True)

    def _line(self, event: events.Event) -> str | None:
        match event:
            case events.Notice(sentence):
                return sentence
            case events.StepDone() if event.outcome != "unchanged" or self.verbose:
                took = text.seconds(event.seconds)
                return f"{event.host}: {event.stage}: {event.step}: {event.outcome}, {took}"
            case events.Progress() if self.verbose or self.clock() - self._spoke_s > QUIET_S:
                return f"{event.host}: {event.text}"
            case events.PointSeen(row):
                return self._point_line(row)
            case events.RunChanged() if event.state not in {"shipped", "finished"} or self.verbose:
                detail = f" ({event.detail})" if event.detail else ""
                return f"run {event.run}: {event.state}{detail}"  # how it ended is the command's result
        return None

    def _point_line(self, row: PointRow) -> str | None:
        """Return the line of a point that has ended, once; else, now and then, how far the run is."""
        key = row.session, row.task
        ends = row.point and row.state in {"finished", "failed"}
        if self.activity.verb in SWEEPS and ends and key not in self._ended:
            self._ended.add(key)
            return points.line(row)
        return self.activity.line(WIDTH) if self.clock() - self._spoke_s > QUIET_S else None


class JsonLines(Sink):
    """Prints, for verbs that follow with --json, a line of JSON on stdout per event of the run."""

    def show(self, event: events.Event) -> None:
        match event:
            case events.ScriptOutput():
                echo(text.event("output", stream=event.stream, text=event.data))
            case events.RunChanged():
                echo(text.event("run", run=event.run, state=event.state, detail=event.detail))
