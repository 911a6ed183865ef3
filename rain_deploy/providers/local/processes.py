"""The processes of a local node: those with its name in their environment."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from rain_deploy.errors import DownIncomplete

VARIABLE = "RAIN_DEPLOY_LOCAL_NODE"
"""``<cluster id>/<N>``; every process of a node inherits it from the node's SSH server."""
TERM_S = 3.0
DEADLINE_S = 20.0
POLL_S = 0.02


def environments() -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (pid, environment at its start) of every readable process except this one."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            text = (entry / "environ").read_bytes().decode("utf-8", "surrogateescape")
        except OSError:
            continue  # it has ended, or belongs to another user
        pairs = (item.partition("=") for item in text.split("\0"))
        yield int(entry.name), {name: value for name, _, value in pairs}


def pids_of(node: str) -> tuple[int, ...]:
    """Return the living processes of ``node`` (``<cluster id>/<N>``)."""
    return tuple(pid for pid, environment in environments() if environment.get(VARIABLE) == node)


def end_processes(node: str) -> None:
    """End all processes of ``node``: SIGTERM, and SIGKILL after 3 s.  Raises DownIncomplete after 20 s."""
    started = time.monotonic()
    found: dict[int, str] = {}
    while True:
        fresh = {pid: birth for pid in pids_of(node) if (birth := _birth(pid))}
        # A dying process loses its environment before it closes its files and ports.
        dying = {pid for pid, birth in found.items() if _birth(pid) == birth}
        pids = sorted(dying.union(fresh))
        if not pids:
            return
        waited = time.monotonic() - started
        if waited > DEADLINE_S:
            message = f"these processes of local node {node} do not end: {', '.join(map(str, pids))}"
            raise DownIncomplete(message, next_step=f"kill -9 {' '.join(map(str, pids))}")
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                if waited > TERM_S:
                    os.kill(pid, signal.SIGKILL)
                elif pid not in found:
                    os.kill(pid, signal.SIGTERM)
        found.update(fresh)
        time.sleep(POLL_S)


def _birth(pid: int) -> str:
    """Return the start time of process ``pid``, in ticks since boot; empty once it has ended."""
    try:
        status = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return ""
    state, *fields = status.rpartition(b")")[2].split()
    return "" if state in {b"Z", b"X"} else fields[18].decode()
