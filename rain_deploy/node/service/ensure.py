"""``ensure``: the services of one node, started when they are absent."""

from __future__ import annotations

import fcntl
import os
import sys
import time
from functools import partial
from pathlib import Path

from ..config import NodeConfig, node_config
from .process import Process, end, identify, recorded, scan, spawn

_START_DEADLINE_S = 10.0


def keeper_path(config: NodeConfig) -> Path:
    """Of the keeper's lock, identity and log, without their suffixes."""
    return config.governor_dir / "keeper"


def supervisor_path(config: NodeConfig) -> Path:
    """Likewise of the run supervisor's."""
    return config.server_dir / "supervisor"


def ensure(node_dir: Path, *, supervisor: bool) -> list[str]:
    """Start the services that do not run or run another node code; their names.

    One may be replaced at any time, also during a run: the next one adopts what it finds.  Raises
    NotInstalled, OSError, TimeoutError.
    """
    config = node_config(node_dir)
    wanted = [("keeper", keeper_path(config), config.verb("keeper", config.node_dir))]
    if supervisor:
        argv = config.verb("supervisor", config.cluster_dir, config.node_dir)
        wanted.append(("supervisor", supervisor_path(config), argv))
    started = []
    for role, path, argv in wanted:
        running = partial(_processes, config, role)
        if (found := running()) and all(_words(process) == argv for process in found):
            continue
        end(running, grace_s=5, deadline_s=10)
        _start(config, role, path, argv)
        started.append(role)
    return started


def become_current(config: NodeConfig, role: str, path: Path, *places: Path) -> None:
    """Go on as the node code and environment that node.json names now, where this process runs others.

    It stays the same process: what it started stays its own, and is adopted like a killed one's.
    """
    argv = config.verb(role, *places)
    if sys.orig_argv == argv or not (config.code / "__main__.py").exists():
        return
    print(f"going on as {' '.join(argv)}", file=sys.stderr, flush=True)
    os.execve(argv[0], argv, config.environment(role, path.parent))  # noqa: S606 - no shell is wanted


def restart_absent(config: NodeConfig, other: Path) -> None:
    """Run ``ensure`` when the process recorded at ``other`` is gone.

    In a process of its own, so that what it starts is nobody's child here.
    """
    if recorded(other.with_suffix(".pid")):
        return
    argv = config.verb("ensure", config.node_dir, "--supervisor", config.cluster_dir)
    helper = spawn(argv, log=other.with_suffix(".log"), env=config.environment("ensure", config.node_dir))
    deadline = time.monotonic() + _START_DEADLINE_S
    while helper.alive() and time.monotonic() < deadline:
        time.sleep(0.02)


def hold(path: Path) -> bool:
    """Become the one holder of ``path`` for the life of this process; False when another holds it.

    The holder's identity is written beside it as ``<name>.pid``.
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
    process = spawn(argv, log=path.with_suffix(".log"), env=config.environment(role, path.parent))
    deadline = time.monotonic() + _START_DEADLINE_S
    while recorded(path.with_suffix(".pid")) is None:
        if not process.alive() or time.monotonic() > deadline:
            log = path.with_suffix(".log")
            raise TimeoutError(f"the {role} of {config.name} does not start; see {log}")
        time.sleep(0.01)


def _processes(config: NodeConfig, role: str) -> list[Process]:
    return [found.process for found in scan(config.service, role)]


def _words(process: Process) -> list[str]:
    """Argument vector of a process; empty when it is gone."""
    try:
        words = Path(f"/proc/{process.pid}/cmdline").read_bytes()
    except OSError:
        return []
    return [os.fsdecode(word) for word in words.split(b"\0")[:-1]]
