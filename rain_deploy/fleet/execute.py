"""Runs one stage on many hosts, turning what their scripts report into events and values."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from rain_deploy.core.command import Command
from rain_deploy.core.events import EventSink, Progress, StageEnded, StageStarted, StepDone
from rain_deploy.core.machine import Host
from rain_deploy.errors import InstallFailed
from rain_deploy.fleet.fanout import Outcomes, fan_out
from rain_deploy.parts.stage import DATA, MARK
from rain_deploy.transport.base import Transport

TAIL_LINES = 20
"""Of a failed step's output, shown with the error."""


@dataclass(frozen=True, slots=True)
class StageWork:
    """A stage ready for one host: its command, and the names of its steps for what is reported."""

    host: Host
    command: Command
    steps: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StageReport:
    """What a stage did on one host."""

    changed: tuple[str, ...] = ()
    data: tuple[tuple[str, str], ...] = ()

    def values(self, name: str) -> tuple[str, ...]:
        """Every value that the stage's steps reported under ``name``, in order."""
        return tuple(value for key, value in self.data if key == name)


@dataclass(slots=True)
class _Listener:
    """Collects the report of one host while its script runs."""

    host: str
    stage: str
    steps: tuple[str, ...]
    emit: EventSink
    changed: list[str] = field(default_factory=list)
    data: list[tuple[str, str]] = field(default_factory=list)
    tail: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    started_s: dict[str, float] = field(default_factory=dict)

    def report(self, line: str) -> None:
        name, _, value = line[1:].partition("\t")
        if line.startswith(DATA):
            self.data.append((name, value))
        elif line.startswith(MARK):
            self._mark(self.steps[int(name)], value)

    def _mark(self, step: str, outcome: str) -> None:
        now_s = time.monotonic()
        if outcome == "started":
            self.started_s[step] = now_s
            return
        seconds = now_s - self.started_s.get(step, now_s)
        if outcome == "done":
            self.changed.append(step)
        elif outcome == "failed":
            self.failed.append(step)
        self.emit(StepDone(self.host, self.stage, step, outcome, seconds))

    def progress(self, line: str) -> None:
        if line.strip():
            self.tail = [*self.tail[-TAIL_LINES + 1 :], line]
            self.emit(Progress(self.host, line))


class _Lines:
    """Cuts a stream of bytes into lines of text."""

    def __init__(self, receive: Callable[[str], None]) -> None:
        self._receive = receive
        self._rest = b""

    def __call__(self, chunk: bytes) -> None:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            self._receive(line.decode(errors="replace"))

    def close(self) -> None:
        if self._rest:
            self._receive(self._rest.decode(errors="replace"))


def run_stage(
    transport: Transport, stage: str, works: Mapping[str, StageWork], emit: EventSink
) -> Outcomes[StageReport]:
    """Run the stage on all its hosts at once, each over one exec channel.

    A host whose script fails is an InstallFailed outcome that names the step and ends with its output.
    """

    def one(host: Host) -> StageReport:
        work = works[host.name]
        listener = _Listener(host.name, stage, work.steps, emit)
        out, err = _Lines(listener.report), _Lines(listener.progress)
        result = transport.run(host, work.command, on_stdout=out, on_stderr=err)
        out.close()
        err.close()
        if result.exit_status != 0:
            what = ", ".join(listener.failed) or "preparing"
            raise InstallFailed(
                f"{stage}: {what} failed (exit {result.exit_status})",
                node=host.name,
                details="\n".join(listener.tail),
            )
        return StageReport(tuple(listener.changed), tuple(listener.data))

    hosts = tuple(work.host for work in works.values())
    emit(StageStarted(stage, tuple(works)))
    started_s = time.monotonic()
    outcomes = fan_out(hosts, one)
    emit(StageEnded(stage, tuple(outcomes.errors), time.monotonic() - started_s))
    return outcomes
