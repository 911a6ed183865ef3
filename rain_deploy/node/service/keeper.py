"""The keeper: connects until a server answers, starts a governor for it, and ends what a governor leaves."""

import contextlib
import socket
import time
from pathlib import Path

from ..files import Tail, load, node_config
from ..run import Run, all_runs, load_run
from ..wire import NodeConfig, RunState
from .engine import GOVERNOR_LOG, Epoch, fresh_epoch, start_governor
from .leftovers import NEVER_QUEUED_S, tidy
from .process import Process, Service, end, group, leader, scan

_BUSY_POLL_S = 0.03
_FRESH_S = 30.0
"""Time after a governor's end in which the keeper polls often, because another server is expected soon."""
_IDLE_POLL_S = 0.5
_LONGEST_PAUSE_S = 2.0
_RUN_OVER_S = 60.0
"""After so long without an answer of a server, the run that was served is over: its server never returns."""
_TIDY_EVERY_S = 10.0
_SERVER_GONE = b"Lost connection to the server"


def targets(runs: tuple[Run, ...]) -> tuple[Run, ...]:
    """Return the runs whose server may be up, newest first.

    The newest run lists the older ones that were not finished when it was shipped.  A port belongs to the
    newest run that uses it.
    """
    possible = {name for run in runs[-1:] for name in (run.id, *run.about.live)}
    by_port: dict[int, Run] = {}
    for run in reversed(runs):
        by_port.setdefault(run.about.port, run)
    newest_first = [run for run in by_port.values() if run.id in possible]
    return tuple(run for run in newest_first if run.status().state != RunState.FINISHED)


class Keeper:
    """Keeps one node's governor.  What must survive the keeper is in the process table and on disk."""

    def __init__(self, config: NodeConfig) -> None:
        self._config = config
        self._since = time.monotonic()
        self._failures = 0
        self._tidied_s = 0.0
        self._governor: Process | None = None
        if found := leader(config.service, "governor"):
            self._adopt(found, Path(found.place))
        else:
            self._clear()

    def step(self) -> float:
        """Check once and act; return the seconds until the next check."""
        if time.monotonic() - self._tidied_s > _TIDY_EVERY_S:
            self._tidied_s = time.monotonic()
            self._tidy()
        if self._governor:
            # A governor that logs that its server is gone may run on for 5 s.
            if self._governor.alive() and _SERVER_GONE not in self._log.read(whole_lines=True):
                return _BUSY_POLL_S
            self._clear()
            self._governor = None
            self._failures = 0 if (self._epoch / "ready").exists() else self._failures + 1
            if self._failures > 1:  # one failure may be the end of its server; more are a fault: slow down
                time.sleep(min(0.2 * self._failures, _LONGEST_PAUSE_S))
            self._since = time.monotonic()
        self._config = config = node_config(self._config.node_dir)
        port, run = self._answering()
        if port is None:
            return _BUSY_POLL_S if time.monotonic() - self._since < _FRESH_S else _IDLE_POLL_S
        epoch = fresh_epoch(config.governor_dir / "epochs")
        self._adopt(start_governor(config, epoch, port, run), epoch)
        self._since = time.monotonic()
        self._forget_served()  # another server answers, so what was served before is over
        return _BUSY_POLL_S

    def _tidy(self) -> None:
        """Remove what killed commands left, and variables of runs that are over or never ran."""
        silent_s = time.monotonic() - self._since
        if self._governor:
            tidy(self._config, idle=not self._serves)
        else:
            tidy(self._config, idle=silent_s > NEVER_QUEUED_S)
            if silent_s > _RUN_OVER_S:
                self._forget_served()

    def _forget_served(self) -> None:
        """Delete the variables of the runs that were served here, except of the one that is served now."""
        now = self._serves if self._governor else ""
        for record in (self._config.governor_dir / "epochs").glob("*/epoch.json"):
            served = load(record, Epoch)
            if served and served.run not in {"", now}:
                run = load_run(self._config.runs_dir / served.run)
                if run and not run.status().waits_or_runs:  # on the server node the supervisor does it
                    run.forget_env()

    def _adopt(self, governor: Process, epoch: Path) -> None:
        self._governor, self._epoch = governor, epoch
        self._serves = (load(epoch / "epoch.json", Epoch) or Epoch()).run
        self._log = Tail(epoch / GOVERNOR_LOG)

    def _clear(self) -> None:
        """End what a governor left: its process group, and every other process with our mark."""
        governor = self._governor

        def left() -> list[Process]:
            return [*scan(self._config.service, "governor"), *(group(governor.pid) if governor else ())]

        end(left, grace_s=0.0, deadline_s=10.0)

    def _answering(self) -> tuple[int | None, Run | None]:
        """Return the port of the server that answers, if one does, and its run; an idle server has none."""
        config = self._config
        # Nodes that share a machine also see runs that were shipped before they joined.
        runs = all_runs(config.runs_dir)
        mine = tuple(run for run in runs if not run.about.nodes or config.name in run.about.nodes)
        # Variables are deleted when a run seems over; without them its tasks would have other results here.
        whole = [run for run in targets(mine) if (run.path / "env.json").exists()]
        for port, run in [*((run.about.port, run) for run in whole), (config.idle_port, None)]:
            with contextlib.suppress(OSError):  # it answers if it accepts a connection; nothing is sent
                socket.create_connection((config.server_address, port), 0.5).close()
                return port, run
        return None, None


def keep(node_dir: Path) -> int:
    """Keep this node's governor until the node is stopped; return 0 at once if another keeper runs."""
    service = Service(node_config(node_dir), "keeper")
    if service.hold():
        service.repeat(Keeper(service.config).step, node_dir / "node.json")
    return 0
