"""Locks a cluster while a command changes it.  It is a kernel lock, so it ends with the process."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from rain_deploy.errors import Locked, StateError
from rain_deploy.state.file import translated


@contextlib.contextmanager
def locked(directory: Path, cluster: str, verb: str, is_gone: Callable[[], bool]) -> Iterator[None]:
    """Hold the cluster.  Raises Locked with the holder.  Deletes the lock file if the cluster ``is_gone``."""
    path = directory / f"{cluster}.lock"
    with translated(path):
        directory.mkdir(mode=0o700, exist_ok=True)
        handle = _held(cluster, path)
    try:
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "verb": verb, "since_s": time.time()}
        with translated(path):
            os.ftruncate(handle, 0)
            os.pwrite(handle, json.dumps(holder).encode(), 0)
        yield
    finally:
        with contextlib.suppress(StateError, OSError):
            if is_gone():
                path.unlink()
        os.close(handle)


def _held(cluster: str, path: Path) -> int:
    """Return a handle of the locked file, and not of one that its last holder has just deleted."""
    while True:
        handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(handle), path.stat()):
                return handle
        except BlockingIOError as error:
            os.close(handle)
            raise Locked(
                f"cluster {cluster} is being changed by {_holder(path)}",
                next_step="try again when it has ended",
            ) from error
        except FileNotFoundError:
            pass
        os.close(handle)


def _holder(path: Path) -> str:
    try:
        holder = json.loads(path.read_text())
        age_s = time.time() - holder["since_s"]
        return f"`{holder['verb']}` (process {holder['pid']} on {holder['host']}, for {age_s:.0f} s)"
    except (OSError, ValueError, KeyError):
        return "another command"
