"""``ensure``: start the services of one node that do not run; one process per role."""

from __future__ import annotations

import fcntl
import os
import sys
import time
from functools import partial
from pathlib import Path

from ..config import node_config
from ..wire import NodeConfig
from .process import Process, end, environment, identify, node_argv, recorded, scan, spawn

_START_DEADLINE_S = 10.0
_RECORD_DEADLINE_S = 2.0
"""How long a service may take from its lock to its recorded identity: the disk may be busy."""


def keeper_path(config: NodeConfig) -> Path:
    """Return the path of the keeper's lock, identity and log, without their suffixes."""
    return config.governor_dir / "keeper"


def supervisor_path(config: NodeConfig) -> Path:
    """Return the path of the run supervisor's lock, identity and log, likewise."""
    return config.server_dir / "supervisor"


def ensure(node_dir: Path, *, supervisor: Path | None) -> int:
    """Start the services that do not run, or that run another node code; print their names.

    A service may be replaced at any time, also during a run: the next one adopts what it finds.  Raises
    NotInstalled, OSError, TimeoutError.
    """
    config = node_config(node_dir)
    wanted = [("keeper", keeper_path(config), node_argv(config, "keeper", config.node_dir))]
    if supervisor:
        argv = node_argv(config, "supervisor", config.cluster_dir, config.node_dir)
        wanted.append(("supervisor", supervisor_path(config), argv))
    for role, path, argv in wanted:
        running = partial(_processes, config, role)
        if (found := running()) and all(_words(process) == argv for process in found):
            continue
        end(running, grace_s=5, deadline_s=10)
        _start(config, role, path, argv)
        print(role)
    return 0


def become_current(config: NodeConfig, role: str, path: Path, *places: Path) -> None:
    """Execute the node code and environment that node.json names now, if this process runs others.

    The process stays the same, so it stays the parent of what it started, and adopts it as after a kill.
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
    deadline = time.monotonic() + _START_DEADLINE_S
    while helper.alive() and time.monotonic() < deadline:
        time.sleep(0.02)


def hold(path: Path) -> bool:
    """Lock ``path`` for the life of this process; False when another process holds it.

    It is a kernel lock, which no crash leaves behind.  The holder's identity is written as ``<name>.pid``.
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
            log = path.with_suffix(".log")
            raise TimeoutError(f"the {role} of {config.name} does not start; see {log}")
        time.sleep(0.01)


def _processes(config: NodeConfig, role: str) -> list[Process]:
    return [found.process for found in scan(config.service, role)]


def _words(process: Process) -> list[str]:
    """Return the argument vector of a process; empty when it is gone."""
    try:
        words = Path(f"/proc/{process.pid}/cmdline").read_bytes()
    except OSError:
        return []
    return [os.fsdecode(word) for word in words.split(b"\0")[:-1]]
