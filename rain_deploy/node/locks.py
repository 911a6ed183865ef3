"""One process per role: a kernel lock, which no crash leaves behind."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from .process import identify


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
