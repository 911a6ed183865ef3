"""``ensure``, ``status``, ``runs``: start a node's services, one process per role, and report what runs."""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
import time
from functools import partial
from pathlib import Path

from ..files import node_config
from ..run.directory import all_runs
from ..wire import Life, ListedRun, NodeConfig, NodeStatus, extended
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


def keeper_path(config: NodeConfig) -> Path:
    """Return the path of the keeper's lock, identity and log, without their suffixes."""
    return config.governor_dir / "keeper"


def supervisor_path(config: NodeConfig) -> Path:
    """Return the path of the supervisor's lock, identity and log, without their suffixes."""
    return config.server_dir / "supervisor"


def ensure(node_dir: Path, *, supervisor: Path | None) -> int:
    """Start the services that do not run, or that run other node code; print their names.

    A service may be replaced at any time, even during a run: the next one adopts what it finds.  Raises
    NotInstalled, OSError, TimeoutError.
    """
    config = node_config(node_dir)
    wanted = [("keeper", keeper_path(config), node_argv(config, "keeper", config.node_dir))]
    if supervisor:
        argv = node_argv(config, "supervisor", config.cluster_dir, config.node_dir)
        wanted.append(("supervisor", supervisor_path(config), argv))
    for role, path, argv in wanted:
        running = partial(processes, config.service, role)
        if (found := running()) and all(_words(process) == argv for process in found):
            continue
        end(running, grace_s=5, deadline_s=10)
        _start(config, role, path, argv)
        print(role)
    return 0


def become_current(config: NodeConfig, role: str, path: Path, *places: Path) -> None:
    """Replace this process by the node code and environment that node.json names now, if they are others.

    The process keeps its pid, so it stays the parent of what it started, and adopts it as after a kill.
    """
    argv = node_argv(config, role, *places)
    if sys.orig_argv == argv or not (config.code / "__main__.py").exists():
        return
    print(f"going on as {' '.join(argv)}", file=sys.stderr, flush=True)
    os.execve(argv[0], argv, environment(config, role, path.parent))  # noqa: S606 - no shell is wanted


def restart_absent(config: NodeConfig, other: Path) -> None:
    """Run ``ensure`` when the process recorded at ``other`` is gone.

    ``ensure`` runs as a process of its own, so that the service that it starts is no child of this one.
    """
    if recorded(other.with_suffix(".pid")):
        return
    argv = node_argv(config, "ensure", config.node_dir, "--supervisor", config.cluster_dir)
    helper = spawn(argv, log=other.with_suffix(".log"), env=environment(config, "ensure", config.node_dir))
    wait_until(lambda: not helper.alive(), _START_DEADLINE_S)


def hold(path: Path) -> bool:
    """Lock ``path`` for the life of this process; return False if another process holds it.

    The kernel frees the lock when the process ends.  The holder's identity is written as ``<name>.pid``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return False
    if myself := identify(os.getpid()):
        myself.record(path.with_suffix(".pid"))
    return True


def _start(config: NodeConfig, role: str, path: Path, argv: list[str]) -> None:
    """Start a service and wait until it is the recorded holder of its lock."""
    process = spawn(argv, log=path.with_suffix(".log"), env=environment(config, role, path.parent))
    deadline = time.monotonic() + _START_DEADLINE_S
    ended = False
    while recorded(path.with_suffix(".pid")) is None:
        if not ended and not process.alive():  # another one may have the lock, and write its identity now
            ended, deadline = True, min(deadline, time.monotonic() + _RECORD_DEADLINE_S)
        if time.monotonic() > deadline:
            raise TimeoutError(f"the {role} of {config.name} does not start; see {path.with_suffix('.log')}")
        time.sleep(0.01)


def _words(process: Process) -> list[str]:
    """Return the argument vector of a process; empty when it is gone."""
    try:
        words = Path(f"/proc/{process.pid}/cmdline").read_bytes()
    except OSError:
        return []
    return [os.fsdecode(word) for word in words.split(b"\0")[:-1]]


def status(cluster_dir: Path, node_dir: Path) -> NodeStatus:
    """Return services, governor, runs, load and disk of a node.  Raises NotInstalled."""
    config = node_config(node_dir)
    paths = {"keeper": keeper_path(config)}
    if config.server:
        paths["supervisor"] = supervisor_path(config)
    running = {role: recorded(path.with_suffix(".pid")) for role, path in paths.items()}
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
