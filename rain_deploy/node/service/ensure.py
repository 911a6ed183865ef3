"""Starts a node's services, one process per role, and reports what runs there."""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ..files import load, node_config, write_json
from ..run import Script, all_runs, unfinished
from ..wire import Life, ListedRun, NodeConfig, NodeStatus, Outcome, extended
from .engine import EngineFailed
from .process import Process, end, environment, identify, leader, node_argv, scan, spawn, wait_until

_START_DEADLINE_S = 10.0
_RECORD_DEADLINE_S = 2.0
"""How long a service may take from its lock to its recorded identity: the disk may be busy."""
_LOOK_EVERY_S = 1.0
_FAULT_PAUSE_S = 1.0


class Service:
    """The keeper or the supervisor of a node."""

    def __init__(self, config: NodeConfig, role: str) -> None:
        self.config, self.role = config, role
        directory, places = config.governor_dir, [config.node_dir]
        if role == "supervisor":
            directory, places = config.server_dir, [config.cluster_dir, config.node_dir]
        self.argv = node_argv(config, role, *places)
        self.env = environment(config, role, directory)
        self.log = directory / f"{role}.log"
        self._lock, self._identity = directory / f"{role}.lock", directory / f"{role}.pid"
        self._looked_s = 0.0

    def process(self) -> Process | None:
        """Return the living process that holds the lock, if there is one."""
        process = load(self._identity, Process)
        return process if process and process.alive() else None

    def start(self) -> None:
        """Start the service and wait until it holds the lock.  Raises OSError, TimeoutError."""
        process = spawn(self.argv, log=self.log, env=self.env)
        wait_until(lambda: bool(self.process()) or not process.alive(), _START_DEADLINE_S)
        # If it has ended, another one may have the lock, and write its identity now.
        if not wait_until(lambda: bool(self.process()), _RECORD_DEADLINE_S):
            raise TimeoutError(f"the {self.role} of {self.config.name} does not start; see {self.log}")

    def hold(self) -> bool:
        """Lock the service for the life of this process; return False if another process holds it.

        The kernel frees the lock when the process ends.
        """
        self._lock.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return False
        write_json(self._identity, identify(os.getpid()))
        return True

    def repeat(self, step: Callable[[], float], there: Path) -> None:
        """Call ``step`` until a path is deleted, and wait each time as long as it says.

        Nobody else does the work of this service, so faults such as a full disk do not end it.
        """
        while there.exists():
            try:
                self.look_after()
                pause_s = step()
            except (EngineFailed, OSError):
                traceback.print_exc(file=sys.stderr)
                pause_s = _FAULT_PAUSE_S
            time.sleep(pause_s)

    def look_after(self) -> None:
        """Once a second, follow node.json, and start the other service of a server node if it is gone.

        If node.json names other node code, this process becomes that code.  It keeps its pid, so it stays
        the parent of what it started, and adopts it as after a kill.
        """
        if time.monotonic() - self._looked_s < _LOOK_EVERY_S:
            return
        self._looked_s = time.monotonic()
        config = node_config(self.config.node_dir)
        new = Service(config, self.role)
        if sys.orig_argv != new.argv and (config.code / "__main__.py").exists():
            print(f"going on as {' '.join(new.argv)}", file=sys.stderr, flush=True)
            os.execve(new.argv[0], new.argv, new.env)  # noqa: S606 - no shell is wanted
        other = Service(config, "keeper" if self.role == "supervisor" else "supervisor")
        if config.server and not other.process():
            # In a process of its own, so that the service that it starts is no child of this one.
            argv = node_argv(config, "ensure", config.node_dir, "--supervisor", config.cluster_dir)
            helper = spawn(argv, log=other.log, env=environment(config, "ensure", config.node_dir))
            wait_until(lambda: not helper.alive(), _START_DEADLINE_S)


def ensure(node_dir: Path, *, supervisor: Path | None) -> int:
    """Start the services that do not run, or that run other node code; print their names.

    A service may be replaced at any time, even during a run: the next one adopts what it finds.  Raises
    NotInstalled, OSError, TimeoutError.
    """
    config = node_config(node_dir)
    for role in ("keeper", "supervisor") if supervisor else ("keeper",):
        service, running = Service(config, role), partial(scan, config.service, role)
        if (found := running()) and all(_argv(process) == service.argv for process in found):
            continue
        end(running, grace_s=5, deadline_s=10)
        service.start()
        print(role)
    return 0


def _argv(process: Process) -> list[str]:
    """Return the argument vector of a process; empty when it is gone."""
    try:
        words = Path(f"/proc/{process.pid}/cmdline").read_bytes()
    except OSError:
        return []
    return [os.fsdecode(word) for word in words.split(b"\0")[:-1]]


def status(cluster_dir: Path, node_dir: Path) -> NodeStatus:
    """Return services, governor, runs, load and disk of a node.  Raises NotInstalled."""
    config = node_config(node_dir)
    roles = ("keeper", "supervisor") if config.server else ("keeper",)
    running = {role: Service(config, role).process() for role in roles}
    found = leader(config.service, "governor")
    ready = found is not None and Path(found.place, "ready").exists()
    return NodeStatus(
        services={role: process.pid if process else None for role, process in running.items()},
        governor=Life(pid=found.pid, ready=ready) if found else None,
        runs=runs(cluster_dir) if config.server else (),
        load=os.getloadavg()[0],
        disk_free_bytes=shutil.disk_usage(cluster_dir).free,
    )


def runs(cluster_dir: Path) -> tuple[ListedRun, ...]:
    """Return every run that was shipped here, oldest first."""
    return tuple(extended(run.status(), ListedRun, run=run.id) for run in all_runs(cluster_dir / "runs"))


def interrupted(node_dir: Path) -> list[str]:
    """End the runs that a power-off interrupted, on a node without a supervisor; return their ids.

    A script that ended badly while no supervisor ran was ended by the power-off.
    """
    config = node_config(node_dir)
    broken = () if Service(config, "supervisor").process() else unfinished(config.runs_dir)
    for run in broken:
        script = run.script_end or Script()
        outcome, message = Outcome.LIMIT, "the machine was powered off before it ended"
        if script.exit_code == 0:
            outcome, message = Outcome.DONE, ""
        run.finish(outcome, message, exit_code=script.exit_code, ended_s=script.ended_s or time.time())
    return [run.id for run in broken]
