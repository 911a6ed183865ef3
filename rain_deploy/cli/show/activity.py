"""Build the moving progress line: the current step, the progress, the time so far and the time left."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from rain_deploy.cli.show import text
from rain_deploy.cli.show.history import History
from rain_deploy.cli.show.text import BETWEEN
from rain_deploy.core import events
from rain_deploy.core.text import count, span
from rain_deploy.results.forecast import forecast
from rain_deploy.results.tally import Tally

WIDTH_PER_HOST = 36  # the columns of the terminal that one host's newest line needs to be useful
STAYS = "Ctrl-C leaves it running"


@dataclass
class Activity:
    """Follows the events of a command.  Not thread-safe."""

    verb: str = ""
    history: History = field(default_factory=History)
    clock: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time

    def __post_init__(self) -> None:
        self._what, self._key, self._since_s = self.verb, self.verb, self.clock()
        self._hosts: dict[str, str] = {}  # the newest line of each; the last in order is the newest
        self._steps: dict[str, tuple[str, float]] = {}  # what each does, and since when
        self._stage = ""
        self._run = ""
        self.tally = Tally(clock=self.wall)

    def see(self, event: events.Event) -> None:
        """Take note of an event."""
        match event:
            case events.Notice(sentence) if not self._run and (doing := re.match(r"\w+ing\b", sentence)):
                self._turn_to(sentence, f"{self.verb}: {doing[0]}")  # others state something that is so
            case events.StageStarted():
                self._turn_to(event.stage, self.verb)  # its length depends on the steps that it needs
                self._stage, self._hosts = event.stage, dict.fromkeys(event.hosts, "")
            case events.StepStarted():
                self._steps[event.host] = (event.step, self.clock())
                self._news(event.host, event.step)
            case events.StepDone():
                self._steps.pop(event.host, None)
                self.history.add(event.step, event.seconds)
            case events.Progress():
                self._news(event.host, event.text)
            case events.StageEnded():
                self._turn_to(self.verb, self.verb)
            case events.RunChanged():
                self._see_run(event)
            case events.PointSeen() | events.RunNodes() | events.NodesSeen():
                self.tally.see(event)

    @property
    def running(self) -> bool:
        """True from the start of the script to the end of the run."""
        return bool(self._run)

    @property
    def passed_s(self) -> float:
        """Return how long the run has run, or what else is going on."""
        return self.clock() - self._since_s

    @property
    def stays(self) -> tuple[str, ...]:
        """Return the promise that the run goes on without us, where it does."""
        return (STAYS,) if self.verb in {"run", "attach", "logs", "points"} else ()

    def _see_run(self, event: events.RunChanged) -> None:
        run, state = event.run, event.state
        self._run = run if state == "running" else ""
        if state == "finished":
            if event.seconds is not None:
                self.history.add(self._script(run), event.seconds)
            self._turn_to("pulling results", f"results {_name(run)}")
            return
        more = f", {event.detail}" if event.detail and state == "queued" else ""
        self._turn_to(f"run {run}: {state}{more}", self.verb)
        if self._run and event.started_s is not None:  # it may have begun long before this command
            self._since_s -= max(0.0, self.wall() - event.started_s)

    def _turn_to(self, what: str, key: str) -> None:
        now_s = self.clock()
        if self._key != self.verb:
            self.history.add(self._key, now_s - self._since_s)
        self._what, self._key, self._since_s = what, key, now_s
        self._stage, self._hosts, self._steps = "", {}, {}

    def _news(self, host: str, line: str) -> None:
        self._hosts.pop(host, None)
        self._hosts[host] = line

    def line(self, width: int) -> str:
        """Return the line of this moment, at most ``width`` columns wide."""
        key, since_s = self._script(self._run) if self._run else self._key, self._since_s
        if self._steps:
            key, since_s = min(self._steps.values(), key=lambda step: step[1])
        passed_s = self.clock() - since_s
        left = self._left_s(key, passed_s)
        spent = span(passed_s) + (f", about {span(left)} left" if left else "")
        if self._run:
            counts = self.tally.count_texts() if self.tally.counts() else ["running"]
            return text.cut(text.fitting((*counts, spent, *self.stays), width), width)
        room = width - len(BETWEEN) - len(spent)
        what = self._work(room) if self._stage else text.cut(text.clean(self._what), room)
        return f"{what}{BETWEEN}{spent}"

    def _left_s(self, key: str, passed_s: float) -> float | None:
        """Return how many seconds are left, from the points that are done, or else from the last time."""
        if self._run and (left := forecast(self.tally.sweep)):
            return max(1.0, left.seconds)
        if self._run and self.tally.done:
            return None
        expected_s = self.history.expected_s(key)
        return None if expected_s is None or expected_s <= passed_s else max(1.0, expected_s - passed_s)

    def _script(self, run: str) -> str:
        """Return the name under which the length of a run is kept: another number of points is another."""
        return f"script {_name(run)}: {count(len(self.tally.points), 'point')}"

    def _work(self, room: int) -> str:
        """Return the stage and what its hosts printed last."""
        room -= len(self._stage) + 2
        newest = [f"{host} {line}" for host, line in reversed(self._hosts.items()) if line]
        shown = newest[: max(1, room // WIDTH_PER_HOST)] or [count(len(self._hosts), "node")]
        each = (room - len(BETWEEN) * (len(shown) - 1)) // len(shown)
        parts = [text.cut(re.sub(r"\s+", " ", text.clean(part)), max(1, each)) for part in shown]
        return f"{self._stage}: {BETWEEN.join(parts)}"


def _name(run: str) -> str:
    """Return the name of the script in a run's id."""
    return "-".join(run.split("-")[4:])
