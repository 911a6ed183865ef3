"""Does the same work on many hosts at once, as functions or as stages; every outcome is kept."""

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from rain_deploy import workers
from rain_deploy.core.events import EventSink, Progress, StageEnded, StageStarted, StepDone, StepStarted
from rain_deploy.core.machine import Host, Intent, Resource
from rain_deploy.core.step import Stage
from rain_deploy.errors import HostKeyError, InstallFailed, RainDeployError, Unreachable
from rain_deploy.parts.shell import DATA, MARK, stage_command
from rain_deploy.transport.base import Transport

T = TypeVar("T")
N = TypeVar("N", Host, Intent, Resource)  # each of them has a name

MAX_AT_ONCE = 64  # threads of one fan-out; measured: more of them gain nothing
WAITING_S = 3.0  # no wait is longer without a word
PAUSE_S = 1.0  # pause between two tries of a host that does not answer yet


@dataclass(frozen=True, slots=True)
class Outcomes(Generic[T]):
    """Results and errors by host name; each host has one of the two."""

    values: Mapping[str, T]
    errors: Mapping[str, RainDeployError]

    def require(self) -> Mapping[str, T]:
        """Return the values.  If a host failed, raise one error that lists all; host keys take precedence."""
        if not self.errors:
            return self.values
        name = min(self.errors, key=lambda name: not isinstance(self.errors[name], HostKeyError))
        others = ", ".join(other for other in self.errors if other != name)
        if others:
            self.errors[name].message += f" (failed as well: {others})"
        raise self.errors[name]


def fan_out(hosts: tuple[N, ...], work: Callable[[N], T], *, finish: bool = False) -> Outcomes[T]:
    """Run ``work`` for each host in threads.  Only a RainDeployError is an outcome; a bug is raised.

    ``finish``: on Ctrl-C, wait for the calls in flight, because they must be recorded; none is repeated.
    """
    values: dict[str, T] = {}
    errors: dict[str, RainDeployError] = {}
    for host, future in zip(hosts, workers.outcomes(work, hosts, MAX_AT_ONCE, finish=finish), strict=True):
        try:
            values[host.name] = future.result()
        except RainDeployError as error:
            error.node = error.node or host.name
            errors[host.name] = error
    return Outcomes(values, errors)


def connect_all(transport: Transport, hosts: tuple[Host, ...]) -> None:
    """Connect to all hosts before anything is done on any.  Raises HostKeyError if one has a wrong key.

    A host that does not answer is left to the work that follows.
    """
    for error in fan_out(hosts, transport.connect).errors.values():
        if isinstance(error, HostKeyError):
            raise error


def once_it_answers(
    work: Callable[[], T],
    wait_s: float = 0.0,
    *,
    began_s: float | None = None,
    waiting: Callable[[str], None] = lambda _why: None,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = workers.pause,
) -> T:
    """Return what ``work`` on a host returns; a host that is unreachable is tried again for ``wait_s``.

    It may still be booting.  After WAITING_S ``waiting`` is called once, with the reason.  ``began_s``: when
    the wait for all hosts began, so that those that get their thread late do not prolong it; None: now.
    """
    began_s, reported = clock() if began_s is None else began_s, False
    while True:
        try:
            return work()
        except Unreachable as error:
            if clock() + PAUSE_S > began_s + wait_s:
                raise
            if not reported and clock() > began_s + WAITING_S:
                reported = True
                waiting(error.message)
            pause(PAUSE_S)


TAIL_LINES = 20  # how much of a failed step's output goes into its error


@dataclass(frozen=True, slots=True)
class StageReport:
    """The result of a stage on one host."""

    changed: tuple[str, ...] = ()  # names of the steps that acted
    data: tuple[tuple[str, str], ...] = ()

    def values(self, name: str) -> tuple[str, ...]:
        """Return every value that the stage's steps reported under ``name``, in order."""
        return tuple(value for key, value in self.data if key == name)


class Executor(Protocol):
    """Runs stages on hosts: the seam between what to do and how it reaches a machine."""

    def run(self, stages: Mapping[Host, Stage], base: str, emit: EventSink) -> Outcomes[StageReport]:
        """Run each host's stage, all at once; the stages share one name.  ``base`` is our directory there.

        A failed stage is an InstallFailed outcome with the name of the step and the end of its output.
        Raises HostKeyError, before anything runs on any host, if one of them has a wrong key.
        """


class SshExecutor:
    """Sends each stage as one shell script over one exec channel, its files on stdin."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def run(self, stages: Mapping[Host, Stage], base: str, emit: EventSink) -> Outcomes[StageReport]:
        hosts = tuple(stages)
        if not hosts:
            return Outcomes({}, {})
        name = stages[hosts[0]].name
        connect_all(self._transport, hosts)
        emit(StageStarted(name, tuple(host.name for host in hosts)))
        started_s = time.monotonic()
        outcomes = fan_out(hosts, lambda host: self._one(host, stages[host], base, emit))
        emit(StageEnded(name, tuple(outcomes.errors), time.monotonic() - started_s))
        return outcomes

    def _one(self, host: Host, stage: Stage, base: str, emit: EventSink) -> StageReport:
        command = stage_command(stage, base, host.installer_env if stage.installs else ())
        listener = _Listener(host.name, stage, emit)
        out, err = _Lines(listener.report), _Lines(listener.progress)
        result = self._transport.run(host, command, on_stdout=out, on_stderr=err)
        out.close()
        err.close()
        if result.exit_status != 0:
            what = ", ".join(listener.failed) or "preparing"
            message = f"{stage.name}: {what} failed (exit {result.exit_status})"
            raise InstallFailed(message, node=host.name, details="\n".join(listener.tail))
        return StageReport(tuple(listener.changed), tuple(listener.data))


class _Listener:
    def __init__(self, host: str, stage: Stage, emit: EventSink) -> None:
        self.host, self.stage, self.emit = host, stage, emit
        self.changed: list[str] = []
        self.failed: list[str] = []
        self.data: list[tuple[str, str]] = []
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self.started_s: dict[str, float] = {}

    def report(self, line: str) -> None:
        name, _, value = line[1:].partition("\t")
        if line.startswith(DATA):
            self.data.append((name, value))
        if not line.startswith(MARK):
            return
        step, now_s = self.stage.steps[int(name)].name, time.monotonic()
        if value == "started":
            self.started_s[step] = now_s
            self.emit(StepStarted(self.host, self.stage.name, step))
            return
        if value == "done":
            self.changed.append(step)
        elif value == "failed":
            self.failed.append(step)
        self.emit(StepDone(self.host, self.stage.name, step, value, now_s - self.started_s.get(step, now_s)))

    def progress(self, line: str) -> None:
        if line.strip():
            self.tail.append(line)
            self.emit(Progress(self.host, line))


class _Lines:
    def __init__(self, receive: Callable[[str], None]) -> None:
        self._receive, self._rest = receive, b""

    def __call__(self, chunk: bytes) -> None:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            self._receive(line.decode(errors="replace"))

    def close(self) -> None:
        if self._rest:
            self._receive(self._rest.decode(errors="replace"))
