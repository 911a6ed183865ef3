"""Removes what commands leave that were killed: files of a stage, and variables of a run that never ran."""

import contextlib
import shutil
import time

from ..run import all_runs
from ..wire import NodeConfig
from .process import identify

NEVER_QUEUED_S = 3600.0
"""A run that is not queued at this age is never queued: sending it takes at most half as long."""


def tidy(config: NodeConfig, *, idle: bool) -> None:
    """Remove files of stages whose shell has ended; if ``idle``, also old variables.

    ``idle``: no run is served here.
    """
    for path in (config.cluster_dir.parent.parent / "tmp").glob("stage.*"):
        pid, _, start = path.name.removeprefix("stage.").partition(".")
        owner = identify(int(pid)) if pid.isdigit() else None
        if owner is None or str(owner.start_ticks) != start:
            shutil.rmtree(path, ignore_errors=True)
    for run in all_runs(config.runs_dir) if idle else ():
        with contextlib.suppress(OSError):
            came_s = (run.path / "run.json").stat().st_mtime
            if time.time() - came_s > NEVER_QUEUED_S and not run.status().waits_or_runs:
                run.forget_env()
