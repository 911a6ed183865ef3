"""The supervisor: runs the queued runs one after the other, and keeps an idle server between them."""

from __future__ import annotations

import sys
import time
import traceback
from pathlib import Path

from ..files import node_config
from ..run.attempt import Attempt
from ..run.directory import Run, all_runs
from ..wire import Outcome, RunState
from .engine import EngineFailed, WarmProbe, end_servers, fresh_epoch, next_epoch, start_server
from .ensure import Service
from .process import Process, scan

_POLL_S = 0.03
_FAULT_PAUSE_S = 1.0
_LINE_EVERY_S = 0.3


class Supervisor:
    """Its state is in files and in the process table, so a new one continues where a killed one stopped."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._config = service.config
        self._idle: Process | None = None
        self._probe: WarmProbe | None = None
        self._finished: set[str] = set()
        self._line_checked_s = 0.0

    def step(self) -> None:
        """Bring the next run to its end, or keep an idle server.

        Raises EngineFailed, NotInstalled, OSError.
        """
        self._config = node_config(self._config.node_dir)
        self._service.look_after()
        waiting = self._waiting()
        if not waiting:
            self._keep_idle_server()
            time.sleep(_POLL_S)
            return
        begun = [run for run in waiting if run.status().state != RunState.QUEUED]
        self._idle = None
        Attempt(self._config, (begun or waiting)[0], self._take_probe, self._meanwhile).conduct()

    def _take_probe(self) -> WarmProbe:
        probe, self._probe = self._probe or WarmProbe(self._config), None
        return probe

    def _waiting(self) -> list[Run]:
        """Return the unfinished runs in the order of the line; end those that were cancelled in it."""
        waiting = []
        for run in all_runs(self._config.runs_dir, frozenset(self._finished)):
            status = run.status()
            if status.state == RunState.QUEUED and run.cancelled:
                status = run.finish(Outcome.CANCELLED, "cancelled in line", ended_s=time.time())
            if status.state == RunState.FINISHED:
                self._finished.add(run.path.name)
            elif status.waits_or_runs:
                waiting.append(run)
        return waiting

    def _keep_idle_server(self) -> None:
        if self._idle and self._idle.alive():
            self._probe = self._probe or WarmProbe(self._config)
            return
        idle_dir = self._config.server_dir / "idle"
        servers = [found for found in scan(self._config.service, "server") if found.leader]
        if len(servers) == 1 and Path(servers[0].place).parent == idle_dir:
            self._idle = servers[0].process
            return
        end_servers(self._config)
        next_epoch(self._config.server_dir)
        self._idle = start_server(self._config, fresh_epoch(idle_dir), self._config.idle_port)

    def _meanwhile(self) -> None:
        """Check the keeper and the line while a run goes on."""
        self._service.look_after()
        if time.monotonic() - self._line_checked_s > _LINE_EVERY_S:
            self._line_checked_s = time.monotonic()
            self._waiting()


def supervise(cluster_dir: Path, node_dir: Path) -> int:
    """Supervise the runs of a cluster until the node is stopped; return 0 at once if another does."""
    service = Service(node_config(node_dir), "supervisor")
    if not service.hold():
        return 0
    supervisor = Supervisor(service)
    while (cluster_dir / "server").exists():
        try:
            supervisor.step()
        except (EngineFailed, OSError):
            traceback.print_exc(file=sys.stderr)
            time.sleep(_FAULT_PAUSE_S)
    return 0
