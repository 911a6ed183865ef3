"""The keeper: connects until a server answers, starts a governor for it, and ends what a governor leaves."""

from __future__ import annotations

import socket
import sys
import time
import traceback
from pathlib import Path

from ..files import Tail, node_config
from ..run.directory import Run, all_runs, load_run
from ..wire import NodeConfig
from .engine import GOVERNOR_LOG, Epoch, fresh_epoch, server_lost, start_governor
from .ensure import become_current, hold, keeper_path, restart_absent, supervisor_path
from .process import Process, end, group, leader, processes

_BUSY_POLL_S = 0.03
_FRESH_S = 30.0
"""How long after a governor's end the keeper polls often, because another server is expected soon."""
_IDLE_POLL_S = 0.5
_LONGEST_PAUSE_S = 2.0
_OTHER_EVERY_S = 1.0
_FAULT_PAUSE_S = 1.0


def targets(runs: tuple[Run, ...]) -> tuple[Run, ...]:
    """Return the runs whose server may be up, newest first.

    The newest run lists the older ones that were not finished when it was shipped.  A port belongs to the
    newest run that uses it.
    """
    if not runs:
        return ()
    possible = {runs[-1].id, *runs[-1].about.live}
    by_port = {run.about.port: run for run in runs}
    newest_first = sorted(by_port.values(), key=lambda run: run.about.sequence, reverse=True)
    return tuple(run for run in newest_first if run.id in possible and not run.finished)


class Keeper:
    """Keeps one node's governor.  What must survive the keeper is in the process table and on disk."""

    def __init__(self, config: NodeConfig) -> None:
        self._config = config
        found = leader(config.service, "governor")
        self._governor: Process | None = None
        if found:
            self._adopt(found.process, Path(found.place))
        else:
            self._clear(None)
        self._since = time.monotonic()
        self._failures = 0

    def step(self) -> float:
        """Check once and act; return the seconds until the next check."""
        if self._governor is not None:
            if self._governor.alive() and not server_lost(self._log):
                return _BUSY_POLL_S
            self._ended(self._governor)
        self._config = node_config(self._config.node_dir)
        port, run = self._answering()
        if port is None:
            return _BUSY_POLL_S if time.monotonic() - self._since < _FRESH_S else _IDLE_POLL_S
        epoch = fresh_epoch(self._config.governor_dir / "epochs")
        self._adopt(start_governor(self._config, epoch, port, run), epoch)
        self._since = time.monotonic()
        self._forget_others(run)
        return _BUSY_POLL_S

    def _adopt(self, governor: Process, epoch: Path) -> None:
        self._governor, self._epoch = governor, epoch
        self._log = Tail(epoch / GOVERNOR_LOG)

    def _answering(self) -> tuple[int | None, Run | None]:
        """Return the port of the server that answers, if one does, and its run; an idle server has none."""
        address, name, idle_port = self._config.server_address, self._config.name, self._config.idle_port
        # Nodes that share a machine also see runs that were shipped before they joined.
        runs = all_runs(self._config.runs_dir)
        mine = tuple(run for run in runs if not run.about.nodes or name in run.about.nodes)
        for run in targets(mine):
            if answers(address, run.about.port):
                return run.about.port, run
        return (idle_port if answers(address, idle_port) else None), None

    def _ended(self, governor: Process) -> None:
        self._clear(governor)
        self._governor = None
        self._failures = 0 if (self._epoch / "ready").exists() else self._failures + 1
        if self._failures > 1:  # one failure may be the end of its server; more are a fault: slow down
            time.sleep(min(0.2 * self._failures, _LONGEST_PAUSE_S))
        self._since = time.monotonic()

    def _clear(self, governor: Process | None) -> None:
        """End what a governor left: its process group, and every other process with our mark."""

        def left() -> list[Process]:
            marked = processes(self._config.service, "governor")
            return [*marked, *(group(governor.pid) if governor else ())]

        end(left, grace_s=0.0, deadline_s=10.0)

    def _forget_others(self, run: Run | None) -> None:
        """Delete the variables of the runs served before: another server answers, so they are over."""
        for record in (self._config.governor_dir / "epochs").glob("*/epoch.json"):
            served = Epoch.read(record.parent)
            is_over = served and served.run and not (run and run.id == served.run)
            if served and is_over and (over := load_run(self._config.runs_dir / served.run)):
                over.forget_env()


def answers(address: str, port: int, *, timeout_s: float = 0.5) -> bool:
    """Return True if a TCP connection is accepted.  Nothing is sent."""
    try:
        socket.create_connection((address, port), timeout_s).close()
    except OSError:
        return False
    return True


def keep(node_dir: Path) -> int:
    """Keep this node's governor until the node is stopped; return 0 at once if another keeper runs."""
    config = node_config(node_dir)
    if not hold(keeper_path(config)):
        return 0
    keeper = Keeper(config)
    checked_s = 0.0
    while (node_dir / "node.json").exists():
        try:
            pause_s = keeper.step()
            if time.monotonic() - checked_s > _OTHER_EVERY_S:
                checked_s = time.monotonic()
                config = node_config(node_dir)
                become_current(config, "keeper", keeper_path(config), config.node_dir)
                if config.server:
                    restart_absent(config, supervisor_path(config))
        except OSError:  # such as a full disk: nobody else keeps this node's governor
            traceback.print_exc(file=sys.stderr)
            pause_s = _FAULT_PAUSE_S
        time.sleep(pause_s)
    return 0
