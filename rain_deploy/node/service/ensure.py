"""Starts a node's services, one process per role, and reports what runs there."""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
import time
from functools import partial
from pathlib import Path

from ..files import node_config, write_json
from ..run.directory import Script, all_runs, unfinished
from ..wire import Life, ListedRun, NodeConfig, NodeStatus, Outcome, extended
from .process import (
    Process,
    end,
    environment,
    identify,
    leader,
    node_argv,
    processes,
    recorded,
    spawn,
    wait_until,
)

_START_DEADLINE_S = 10.0
_RECORD_DEADLINE_S = 2.0
"""How long a service may take from its lock to its recorded identity: the disk may be busy."""
_LOOK_EVERY_S = 1.0


class Service:
    """The keeper or the supervisor of a node."""

    def __init__(self, config: NodeConfig, role: str) -> None:
        self.config = config
        self.role = role
        self._looked_s = 0.0

    @property
    def argv(self) -> list[str]:
        """The argument vector of the service, by its configuration."""
        places = (self.config.cluster_dir, self.config.node_dir)
        return node_argv(self.config, self.role, *(places if self.role == "supervisor" else places[1:]))

    @property
    def env(self) -> dict[str, str]:
        """The environment of the service."""
        return environment(self.config, self.role, self.file("lock").parent)

    def file(self, kind: str) -> Path:
        """Return the path of its ``lock``, its ``log``, or its ``pid``, which holds its identity."""
        directory = self.config.server_dir if self.role == "supervisor" else self.config.governor_dir
        return directory / f"{self.role}.{kind}"

    def process(self) -> Process | None:
        """Return the living process that holds the lock, if there is one."""
        return recorded(self.file("pid"))

    def hold(self) -> bool:
        """Lock the service for the life of this process; return False if another process holds it.

        The kernel frees the lock when the process ends.
        """
        self.file("lock").parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.file("lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return False
        write_json(self.file("pid"), identify(os.getpid()))
        return True

    def look_after(self) -> None:
        """Once a second, follow node.json, and start the other service of a server node if it is gone.

        If node.json names other node code, this process becomes that code.  It keeps its pid, so it stays
        the parent of what it started, and adopts it as after a kill.
        """
        if time.monotonic() - self._looked_s < _LOOK_EVERY_S:
            return
        self._looked_s = time.monotonic()
        self.config = config = node_config(self.config.node_dir)
        if sys.orig_argv != self.argv and (config.code / "__main__.py").exists():
            print(f"going on as {' '.join(self.argv)}", file=sys.stderr, flush=True)
            os.execve(self.argv[0], self.argv, self.env)  # noqa: S606 - no shell is wanted
        other = Service(config, "keeper" if self.role == "supervisor" else "supervisor")
        if config.server and not other.process():
            # In a process of its own, so that the service that it starts is no child of this one.
            argv = node_argv(config, "ensure", config.node_dir, "--supervisor", config.cluster_dir)
            helper = spawn(argv, log=other.file("log"), env=environment(config, "ensure", config.node_dir))
            wait_until(lambda: not helper.alive(), _START_DEADLINE_S)


def ensure(node_dir: Path, *, supervisor: Path | None) -> int:
    """Start the services that do not run, or that run other node code; print their names.

    A service may be replaced at any time, even during a run: the next one adopts what it finds.  Raises
    NotInstalled, OSError, TimeoutError.
    """
    config = node_config(node_dir)
    for role in ("keeper", "supervisor") if supervisor else ("keeper",):
        service, running = Service(config, role), partial(processes, config.service, role)
        if (found := running()) and all(_argv(process) == service.argv for process in found):
            continue
        end(running, grace_s=5, deadline_s=10)
        _start(service)
        print(role)
    return 0


def _argv(process: Process) -> list[str]:
    """Return the argument vector of a process; empty when it is gone."""
    try:
        words = Path(f"/proc/{process.pid}/cmdline").read_bytes()
    except OSError:
        return []
    return [os.fsdecode(word) for word in words.split(b"\0")[:-1]]


def _start(service: Service) -> None:
    """Start a service and wait until it is the recorded holder of its lock."""
    log = service.file("log")
    process = spawn(service.argv, log=log, env=service.env)
    deadline = time.monotonic() + _START_DEADLINE_S
    ended = False
    while service.process() is None:
        if not ended and not process.alive():  # another one may have the lock, and write its identity now
            ended, deadline = True, min(deadline, time.monotonic() + _RECORD_DEADLINE_S)
        if time.monotonic() > deadline:
            raise TimeoutError(f"the {service.role} of {service.config.name} does not start; see {log}")
        time.sleep(0.01)


def status(cluster_dir: Path, node_dir: Path) -> NodeStatus:
    """Return services, governor, runs, load and disk of a node.  Raises NotInstalled."""
    config = node_config(node_dir)
    roles = ("keeper", "supervisor") if config.server else ("keeper",)
    running = {role: Service(config, role).process() for role in roles}
    found = leader(config.service, "governor")
    ready = found is not None and (Path(found.place) / "ready").exists()
    return NodeStatus(
        services={role: process.pid if process else None for role, process in running.items()},
        governor=Life(pid=found.process.pid, ready=ready) if found else None,
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
        ended_s = script.ended_s or time.time()
        if script.exit_code == 0:
            run.finish(Outcome.DONE, exit_code=0, ended_s=ended_s)
        else:
            message = "the machine was powered off before it ended"
            run.finish(Outcome.LIMIT, message, exit_code=script.exit_code, ended_s=ended_s)
    return [run.id for run in broken]
