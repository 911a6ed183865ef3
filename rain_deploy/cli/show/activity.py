"""Build the moving progress line: the current step, the progress, the time so far and the time left."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rain_deploy.cli.show import text
from rain_deploy.cli.show.history import History
from rain_deploy.core import events
from rain_deploy.core.text import count, span

if TYPE_CHECKING:
    from rain_deploy.node.wire import PointRow

WIDTH_PER_HOST = 36  # the columns of the terminal that one host's newest line needs to be useful
BETWEEN = " · "


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
        self._points: dict[tuple[int, int], str] = {}
        self._tasks: dict[tuple[int, int], str] = {}
        self._running: dict[tuple[int, int], float] = {}  # points, and since when by their node's clock
        self._took_s: dict[tuple[int, int], float] = {}
        self._at_once = 1  # the most points that were seen to run at the same time

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
            case events.PointSeen(row):
                self._see_point((row.session, row.task), row)

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

    def _see_point(self, key: tuple[int, int], row: PointRow) -> None:
        (self._points if row.point else self._tasks)[key] = row.state
        self._running.pop(key, None)
        if row.point and row.state == "running":
            self._running[key] = row.started_s or self.wall()
            self._at_once = max(self._at_once, len(self._running))
        elif row.point and row.duration_s is not None:
            self._took_s[key] = row.duration_s

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
            parts = [*self._counts(), spent]
            if self.verb in {"run", "attach", "logs", "points"}:
                parts.append("Ctrl-C leaves it running")
            while len(BETWEEN.join(parts)) > width and len(parts) > 1:
                parts.pop()
            return text.cut(BETWEEN.join(parts), width)
        room = width - len(BETWEEN) - len(spent)
        what = self._work(room) if self._stage else text.cut(text.clean(self._what), room)
        return f"{what}{BETWEEN}{spent}"

    def _left_s(self, key: str, passed_s: float) -> float | None:
        """Return how many seconds are left, from the points that are done, or else from the last time."""
        if self._run and self._took_s:
            return self._points_left_s(sum(self._took_s.values()) / len(self._took_s))
        expected_s = self.history.expected_s(key)
        return None if expected_s is None or expected_s <= passed_s else max(1.0, expected_s - passed_s)

    def _points_left_s(self, each_s: float) -> float | None:
        """Return how long the other points take if each takes ``each_s``, as many at once as before."""
        waiting, now_s = Counter(self._points.values())["submitted"], self.wall()
        if not waiting and not self._running:
            return None
        ages_s = (min(each_s, max(0.0, now_s - since_s)) for since_s in self._running.values())
        return max(1.0, (waiting * each_s + sum(each_s - age_s for age_s in ages_s)) / self._at_once)

    def _script(self, run: str) -> str:
        """Return the name under which the length of a run is kept: another number of points is another."""
        return f"script {_name(run)}: {count(len(self._points), 'point')}"

    def _counts(self) -> list[str]:
        """Return ``12/20 done``, ``2 running``, ``1 failed`` of the points, or else of the tasks."""
        counts = Counter((self._points or self._tasks).values())
        if not counts:
            return ["running"]
        noun = "" if self._points else " tasks"
        shown = ((counts[state], state) for state in ("running", "failed"))
        return [
            f"{counts['finished']}/{counts.total()}{noun} done",
            *(f"{count} {state}" for count, state in shown if count),
        ]

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
