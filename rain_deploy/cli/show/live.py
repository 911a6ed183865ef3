"""Show events in a terminal: a line for each stage that has ended, and below them one line that moves."""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rain_deploy.cli.show import text
from rain_deploy.cli.show.progress import Lines
from rain_deploy.core import events
from rain_deploy.core.text import count

if TYPE_CHECKING:
    from rich.live import Live

APPEARS_S = 0.5  # a command that is quicker shows no line
REDRAWN_S = 0.2
CALM_S = 0.3  # after the script's output, so that a script that prints much does not make the line flicker
SPINNER_COLUMNS = 3


@dataclass
class Spinner(Lines):
    """Keeps the moving line as long as a command works and nothing else needs the terminal."""

    _working: bool = False
    _free: bool = True  # False while a question or another program has the terminal
    _mid_line: bool = False  # the script has begun a line and not ended it: it must not be overwritten
    _from_s: float = 0.0  # the line is not drawn before

    def show(self, event: events.Event) -> None:
        if isinstance(event, events.ScriptOutput):
            self._mid_line = not event.data.endswith(b"\n")
            self._from_s = time.monotonic() + CALM_S
        if isinstance(event, events.StageStarted):
            self._hosts = len(event.hosts)
        super().show(event)
        self._free = True

    def _line(self, event: events.Event) -> str | None:
        if isinstance(event, events.StageEnded):
            where = f", failed on {', '.join(event.failed)}" if event.failed else ""
            return f"{event.stage}: {count(self._hosts, 'node')}, {text.seconds(event.seconds)}{where}"
        failed = isinstance(event, events.StepDone) and event.outcome == "failed"
        if isinstance(event, events.RunChanged) and not self.verbose:
            return event.detail if event.state == "shipped" else None  # the moving line shows the others
        moving = events.Progress | events.StepDone | events.PointSeen
        if isinstance(event, moving) and not failed and not self.verbose:
            return None
        return super()._line(event)

    @contextlib.contextmanager
    def work(self) -> Iterator[None]:
        self._from_s, ended = time.monotonic() + APPEARS_S, threading.Event()

        def draw() -> None:
            while not ended.wait(REDRAWN_S):
                with self._lock, contextlib.suppress(OSError):
                    self.draw()

        self._working = True
        threading.Thread(target=draw, name="progress", daemon=True).start()
        try:
            yield
        finally:
            ended.set()
            self._working = False
            self.pause()

    def draw(self) -> None:
        """Draw the moving line, unless something else has the terminal; called under the lock."""
        if not (self._working and self._free) or self._mid_line or time.monotonic() < self._from_s:
            return
        from rich.spinner import Spinner as Dots
        from rich.text import Text

        if not self._live.is_started:
            self._dots = Dots("dots")
            self._live.start()
        self._dots.update(text=Text(self.activity.line(self._live.console.width - SPINNER_COLUMNS)))
        self._live.update(self._dots, refresh=True)

    @functools.cached_property
    def _live(self) -> Live:
        from rich.console import Console
        from rich.live import Live

        redirect = False  # the line is paused whenever something is printed
        return Live(
            console=Console(stderr=True),
            auto_refresh=False,
            transient=True,
            redirect_stdout=redirect,
            redirect_stderr=redirect,
        )

    def resume(self) -> None:
        with self._lock:
            self._free = True

    def pause(self) -> None:
        with self._lock:
            self._free = False
            if "_live" in vars(self):
                with contextlib.suppress(OSError):
                    self._live.stop()
