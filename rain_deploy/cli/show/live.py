"""Show events in a terminal: a line for each stage that has ended, and below it what goes on now.

This is one line that moves, or, once a run has points, the board of its sweep.  The script's output goes
above the board, line by line; a line that the script has not ended yet is the first of the board.
"""

from __future__ import annotations

import contextlib
import functools
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rain_deploy.cli.show import text
from rain_deploy.cli.show.progress import SWEEPS, Lines
from rain_deploy.core import events
from rain_deploy.core.text import count

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.live import Live
    from rich.segment import Segment
    from rich.spinner import Spinner as Dots

APPEARS_S = 0.5  # a command that is quicker shows no line
REDRAWN_S = 0.125  # however many events there are
CALM_S = 0.3  # after the script's output, so that a script that prints much does not make the line flicker
SPINNER_COLUMNS = 3
HELD_BYTES = 16_384  # of the script's output that waits for the next time that the board is drawn
LONG_LINE_BYTES = 4096  # a line that is longer is written before it has ended
LEAST_WIDTH, LEAST_HEIGHT = 40, 10  # a smaller screen shows one line instead of a board
MOST_LINES = 40  # of points that stay on the screen when a run has ended


@dataclass
class Spinner(Lines):
    """Keeps the moving line, or the board, as long as a command works and nothing else needs the terminal."""

    shares_terminal: Callable[[], bool] = lambda: text.same_terminal(sys.stdout, sys.stderr)
    _working: bool = False
    _free: bool = True  # False while a question or another program has the terminal
    _begun: bytes = b""  # a line on the screen that the script has not ended: the line below leaves it alone
    _from_s: float = 0.0  # the line is not drawn before
    _live: Live | None = None  # while something is drawn
    _held: bytes = b""  # the script's output that is not on the screen yet

    def show(self, event: events.Event) -> None:
        if isinstance(event, events.ScriptOutput):
            self._show_output(event)
            return
        if isinstance(event, events.StageStarted):
            self._hosts = len(event.hosts)
        super().show(event)
        if isinstance(event, events.RunChanged) and event.state == "finished":
            self._show_points()
        self._free = True

    def _show_output(self, event: events.ScriptOutput) -> None:
        here = self.script_to_stderr or event.stream == "stderr" or self.shares_terminal()
        if not here and text.is_file(sys.stdout):
            self._print(event.data, err=False)
        elif here and self._board_size():
            self._held += event.data
            if len(self._held) > HELD_BYTES:
                self.draw()
        else:
            super().show(event)
            self._note_begun(event.data)
            self._from_s = time.monotonic() + CALM_S
        self._free = True

    def _line(self, event: events.Event) -> str | None:
        if isinstance(event, events.StageEnded):
            where = f", failed on {', '.join(event.failed)}" if event.failed else ""
            return f"{event.stage}: {count(self._hosts, 'node')}, {text.seconds(event.seconds)}{where}"
        failed = isinstance(event, events.StepDone) and event.outcome == "failed"
        if isinstance(event, events.RunChanged) and not self.verbose:
            return None  # the moving line shows it
        if isinstance(event, events.PointSeen):
            return None
        if isinstance(event, events.Progress | events.StepDone) and not failed and not self.verbose:
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
        """Draw the moving line or the board, unless something else has the terminal; called locked."""
        if not (self._working and self._free) or time.monotonic() < self._from_s:
            return
        if size := self._board_size():
            self._draw_board(*size)
        elif not self._begun:
            self._show_live(self._moving_line(shutil.get_terminal_size().columns))

    def _draw_board(self, width: int, height: int) -> None:
        """Draw the board, and above it what the script printed since the last time."""
        from rich.console import Group

        if begun := self._take_back(width):
            self._held = begun + self._held
        whole, newline, self._held = self._held.rpartition(b"\n")
        self._show_live(Group(*self._board_lines(width, height, self._held)), above=whole + newline)
        if len(self._held) > LONG_LINE_BYTES:
            self.pause()
            self._free = True

    def _show_live(self, shown: RenderableType, above: bytes = b"") -> None:
        live = self._live or self._started()
        live.update(shown)
        if above:
            self._console.print(_AsItIs(above), end="", crop=False)
        else:
            live.refresh()

    def _take_back(self, width: int) -> bytes:
        """Erase a line on the screen that the script has begun and return it; or leave it, and end it."""
        begun, self._begun = self._begun, b""
        if begun:
            fits = len(begun) < width
            self._console.file.write("\r\x1b[2K" if fits else "\n")
            return begun if fits else b""
        return b""

    def _note_begun(self, data: bytes) -> None:
        self._begun = (self._begun + data).rpartition(b"\n")[2][-LONG_LINE_BYTES:]

    def _board_size(self) -> tuple[int, int] | None:
        """Return the size of the screen if there is a board that fits."""
        activity = self.activity
        if activity.verb not in SWEEPS or not (activity.running and activity.tally.points):
            return None
        width, height = shutil.get_terminal_size()
        return (width, height) if width >= LEAST_WIDTH and height >= LEAST_HEIGHT else None

    def _moving_line(self, width: int) -> RenderableType:
        from rich.text import Text

        self._dots.update(text=Text(self.activity.line(width - SPINNER_COLUMNS)))
        return self._dots

    def _board_lines(self, width: int, height: int, begun: bytes) -> list[RenderableType]:
        """Return the board, below the line that the script has begun."""
        from rich.text import Text

        from rain_deploy.cli.show.board import board_lines
        from rain_deploy.cli.show.columns import cut, one_line

        activity = self.activity
        board = board_lines(activity.tally, activity.passed_s, width, height, *activity.stays)
        newest = begun.rstrip(b"\r").rpartition(b"\r")[2].decode("utf-8", "replace")
        return [*([Text(cut(one_line(newest), width))] if newest else []), *board]

    def _show_points(self) -> None:
        """Leave the points of a run that has ended on the screen."""
        if self.activity.verb not in SWEEPS:
            return
        from rain_deploy.cli.show.board import points_lines

        size = shutil.get_terminal_size()
        self.pause()
        for line in points_lines(self.activity.tally, size.columns, min(size.lines - 2, MOST_LINES)):
            self._console.print(line, soft_wrap=True)

    @functools.cached_property
    def _dots(self) -> Dots:
        from rich.spinner import Spinner as Dots

        return Dots("dots")

    @functools.cached_property
    def _console(self) -> Console:
        from rich.console import Console

        return Console(stderr=True, highlight=False)

    def _started(self) -> Live:
        """Begin to draw.  Each time it is another Live: one that was stopped would erase what came after."""
        from rich.live import Live

        redirect = False  # the line is paused whenever something is printed
        self._live = Live(
            console=self._console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=redirect,
            redirect_stderr=redirect,
        )
        self._live.start()
        return self._live

    def resume(self) -> None:
        with self._lock:
            self._free = True

    def pause(self) -> None:
        with self._lock:
            self._free = False
            live, self._live = self._live, None
            if live:
                with contextlib.suppress(OSError):
                    live.stop()
            held, self._held = self._held, b""
            if held:
                self._note_begun(held)
                self._print(held, err=self.script_to_stderr)


@dataclass(frozen=True, slots=True)
class _AsItIs:
    """The script's output, with every escape sequence that it has."""

    data: bytes

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        from rich.segment import Segment

        yield Segment(self.data.decode("utf-8", "replace"))
        yield Segment("\x1b[0m")  # a colour that the script left on is not the board's
