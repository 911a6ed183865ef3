"""``journal``: what the journal of a cluster holds; with ``--prune`` all of it is deleted."""

import sys
from pathlib import Path

from ..run import unfinished
from ..wire import BUSY, JournalUsage
from .store import Journal


def journal(cluster_dir: Path, *, prune: bool) -> JournalUsage | int:
    """Return what the journal holds, or held until it was deleted.  Raises OSError.

    It is not deleted while a run may use it.
    """
    if prune and (active := unfinished(cluster_dir / "runs")):
        print(f"run {active[0].id} is not finished and may use the journal", file=sys.stderr)
        return BUSY
    stored = Journal(cluster_dir / "journal")
    stored.load()
    usage = stored.usage()
    if prune:
        stored.prune(limit_bytes=0)
    return usage
