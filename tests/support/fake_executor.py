"""Stages without a machine to run them on: machines remember what was done, and report as real ones do.

``tests/contract/test_executors.py`` keeps it honest: the real executor reports the same for the same stages.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from rain_deploy.core.events import EventSink, StageEnded, StageStarted, StepDone
from rain_deploy.core.machine import Host
from rain_deploy.core.step import Stage, Step
from rain_deploy.errors import RainDeployError, Unreachable
from rain_deploy.fleet.fanout import Outcomes, StageReport


@dataclass
class Machine:
    """What stages have left on a machine."""

    files: dict[str, str] = field(default_factory=dict)
    """Path -> digest, or nothing where it need only exist."""
    services: list[str] = field(default_factory=list)
    limit: str = ""


Reach = Callable[[Host], contextlib.AbstractContextManager[Machine]]
"""Gives a host's machine, and keeps it afterwards.  Raises Unreachable, HostKeyError."""


class FakeExecutor:
    """Implements Executor for machines on which every step succeeds."""

    def __init__(self, reach: Reach) -> None:
        self._reach = reach

    def run(self, stages: Mapping[Host, Stage], base: str, emit: EventSink) -> Outcomes[StageReport]:
        """Do what the stages do to files and services."""
        values: dict[str, StageReport] = {}
        errors: dict[str, RainDeployError] = {}
        for host in stages:  # one wrong host key ends the command before anything is done
            with contextlib.suppress(Unreachable), self._reach(host):
                pass
        for name in {stage.name: None for stage in stages.values()}:
            emit(StageStarted(name, tuple(host.name for host in stages)))
        for host, stage in stages.items():
            try:
                with self._reach(host) as machine:
                    values[host.name] = perform(machine, stage, base)
            except Unreachable as error:
                error.node = host.name
                errors[host.name] = error
                continue
            for step in stage.steps:
                outcome = "done" if step.name in values[host.name].changed else "unchanged"
                emit(StepDone(host.name, stage.name, step.name, outcome, 0.0))
        for name in {stage.name: None for stage in stages.values()}:
            emit(StageEnded(name, tuple(errors), 0.0))
        return Outcomes(values, errors)


def perform(machine: Machine, stage: Stage, base: str) -> StageReport:
    """Change the machine as the stage would, and return its report."""
    changed = tuple(step.name for step in stage.steps if not _is_done(machine, step, stage))
    machine.files |= {step.makes: step.sha256 for step in stage.steps if step.makes}
    started: list[str] = []
    match stage.name:
        case "start":
            server = any(file.path == "cluster.json" for file in stage.payload)
            wanted = ["governor", *(["supervisor"] if server else [])]
            started = [service for service in wanted if service not in machine.services]
            machine.services += started
        case "stop":
            machine.services.clear()
        case "remove":
            kept = (path for path in machine.files if not path.startswith(f"{base}/clusters/"))
            machine.files = {path: machine.files[path] for path in kept}
        case "limit":
            machine.limit = dict(stage.variables)["LIMIT"]
    return StageReport(changed, tuple(("started", service) for service in started))


def _is_done(machine: Machine, step: Step, stage: Stage) -> bool:
    if stage.name == "limit":
        return machine.limit == dict(stage.variables)["LIMIT"]
    return bool(step.makes) and machine.files.get(step.makes) == step.sha256
