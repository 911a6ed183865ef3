"""The supervisor: runs the queued runs one after the other, and keeps an idle server between them."""

import time
from pathlib import Path

from ..files import node_config
from ..run import Run, all_runs
from ..wire import Outcome, RunState
from . import engine
from .engine import WarmProbe
from .process import Process, Service, scan
from .recovery import Conduct

_IDLE_POLL_S = 0.03
_LINE_EVERY_S = 0.3


class Supervisor:
    """Its state is in files and in the process table, so a new one continues where a killed one stopped."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.config = service.config
        self._idle: Process | None = None
        self.probe: WarmProbe | None = None
        self._finished: set[str] = set()
        self._line_checked_s = 0.0

    def step(self) -> float:
        """Bring the next run to its end, or keep an idle server; return the seconds until the next step."""
        self.config = config = node_config(self.config.node_dir)
        if waiting := self._waiting():
            begun = [run for run in waiting if run.status().state != RunState.QUEUED]
            self._idle = None
            Conduct(self, (begun or waiting)[0]).conduct()
            return 0
        if self._idle and self._idle.alive():
            self.probe = self.probe or WarmProbe(config)
            return _IDLE_POLL_S
        idle_dir = config.server_dir / "idle"
        servers = [server for server in scan(config.service, "server") if server.group == server.pid]
        if len(servers) == 1 and Path(servers[0].place).parent == idle_dir:
            self._idle = servers[0]
        else:
            engine.end_servers(config)
            engine.next_epoch(config.server_dir)
            self._idle = engine.start_server(config, engine.fresh_epoch(idle_dir), config.idle_port)
        return _IDLE_POLL_S

    def _waiting(self) -> list[Run]:
        """Return the unfinished runs in the order of the line; end those that were cancelled in it."""
        waiting = []
        for run in all_runs(self.config.runs_dir, frozenset(self._finished)):
            status = run.status()
            if status.state == RunState.QUEUED and run.cancelled:
                status = run.finish(Outcome.CANCELLED, "cancelled while it waited", ended_s=time.time())
            if status.state == RunState.FINISHED:
                self._finished.add(run.path.name)
            elif status.waits_or_runs:
                waiting.append(run)
        return waiting

    def meanwhile(self) -> None:
        """Check the keeper and the line while a run is active."""
        self._service.look_after()
        if time.monotonic() - self._line_checked_s > _LINE_EVERY_S:
            self._line_checked_s = time.monotonic()
            self._waiting()


def supervise(cluster_dir: Path, node_dir: Path) -> int:
    """Supervise the runs of a cluster until the node is stopped; return 0 at once if another does."""
    service = Service(node_config(node_dir), "supervisor")
    if service.hold():
        service.repeat(Supervisor(service).step, cluster_dir / "server")
    return 0
