"""Show events: as a spinner in a terminal, as lines in a pipe, as JSON Lines, or not at all."""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import click

from rain_deploy.cli.show import text
from rain_deploy.cli.show.text import OutputLost, echo
from rain_deploy.core import events

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.status import Status

    from rain_deploy.node.wire import PointRow

QUIET_S = 20.0
"""After this time without a line, show the next thing that a long step prints, as a sign of life."""
WIDTH_PER_HOST = 36  # the columns of the terminal that one host's newest line needs to be useful


@dataclass
class Sink:
    """Shows the script's own output and nothing else.  Called from many threads."""

    script_to_stderr: bool = False
    run: str = ""  # the run that the command is about, because Ctrl-C has to name it
    lost: OutputLost | None = None  # why the script's output is no longer shown
    on_point: Callable[[PointRow], None] | None = None  # for the one verb that shows points as they change
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, event: events.Event) -> None:
        with self._lock:
            if isinstance(event, events.RunChanged):
                self.run = event.run
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
            self.lost = lost  # the run goes on, and the script's output is among its results
            echo(f"{lost.message}; the rest of what the script prints is in the results only", err=True)

    def pause(self) -> None:
        """Leave the terminal to the script's output, a question or the result."""


@dataclass
class Lines(Sink):
    """Shows, in pipes and logs, a line on stderr for each thing done, and now and then what is being done."""

    verbose: bool = False
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._spoke_s = self.clock()

    def show(self, event: events.Event) -> None:
        super().show(event)
        if (line := self._line(event)) is not None:
            self._spoke_s = self.clock()
            self.pause()
            red = isinstance(event, events.Notice) and event.warning
            echo(click.style(text.clean(line), fg="red") if red else text.clean(line), err=True)

    def _line(self, event: events.Event) -> str | None:
        match event:
            case events.Notice(sentence):
                return sentence
            case events.StepDone() if event.outcome != "unchanged" or self.verbose:
                took = text.seconds(event.seconds)
                return f"{event.host}: {event.stage}: {event.step}: {event.outcome}, {took}"
            case events.Progress() if self.verbose or self.clock() - self._spoke_s > QUIET_S:
                return f"{event.host}: {event.text}"
            case events.RunChanged() if event.state != "finished" or self.verbose:
                detail = f" ({event.detail})" if event.detail else ""
                return f"run {event.run}: {event.state}{detail}"  # how it ended is the command's result
        return None


@dataclass
class Spinner(Lines):
    """Shows, in a terminal, what each host is doing, and one line per stage that has ended."""

    _stage: str = ""
    _hosts: dict[str, str] = field(default_factory=dict)
    _points: set[tuple[int, int]] = field(default_factory=set)
    _mid_line: bool = False  # the script has begun a line and not ended it; a spinner would overwrite it

    def show(self, event: events.Event) -> None:
        match event:
            case events.StageStarted():
                self._stage, self._hosts = event.stage, dict.fromkeys(event.hosts, "")
                self._news()
            case events.Progress():
                self._news(event.host, event.text)
            case events.StepDone() if event.host in self._hosts:
                self._news(event.host, event.step)
            case events.ScriptOutput():
                self._mid_line = not event.data.endswith(b"\n")
            case events.PointSeen(row) if row.point and row.state == "finished":
                self._points.add((row.session, row.task))
                if not self._mid_line:
                    self._show(f"running: {text.count(len(self._points), 'point')} done")
        super().show(event)

    def _line(self, event: events.Event) -> str | None:
        if isinstance(event, events.StageEnded):
            hosts = text.count(len(self._hosts), "node")
            where = f", failed on {', '.join(event.failed)}" if event.failed else ""
            self._hosts = {}
            return f"{event.stage}: {hosts}, {text.seconds(event.seconds)}{where}"
        failed = isinstance(event, events.StepDone) and event.outcome == "failed"
        if isinstance(event, events.Progress | events.StepDone) and not failed and not self.verbose:
            return None
        return super()._line(event)

    def _news(self, host: str = "", line: str = "") -> None:
        if host:
            self._hosts.pop(host, None)
            self._hosts[host] = line  # the last in order is the newest
        room = self._status.console.width - len(self._stage) - 6
        newest = [f"{host} {line}" for host, line in reversed(self._hosts.items()) if line]
        shown = newest[: max(1, room // WIDTH_PER_HOST)] or [text.count(len(self._hosts), "node")]
        parts = [text.cut(text.clean(part), room // len(shown) - 3) for part in shown]
        self._show(f"{self._stage}: {' · '.join(parts)}")

    @functools.cached_property
    def _status(self) -> Status:
        from rich.console import Console
        from rich.status import Status

        return Status("", console=Console(stderr=True))

    def _show(self, line: str) -> None:
        self._status.update(line.replace("[", r"\["))
        self._status.start()

    def pause(self) -> None:
        if "_status" in vars(self):
            with contextlib.suppress(OSError):
                self._status.stop()


class JsonLines(Sink):
    """Prints, for verbs that follow with --json, a line of JSON on stdout per event of the run."""

    def show(self, event: events.Event) -> None:
        match event:
            case events.ScriptOutput():
                echo(text.event("output", stream=event.stream, text=event.data))
            case events.RunChanged():
                echo(text.event("run", run=event.run, state=event.state, detail=event.detail))
