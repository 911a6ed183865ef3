"""The job: runs the user's script and writes how it ended, whatever becomes of the supervisor."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from ..files import write_json
from ..service.process import identify
from .directory import load


def run_job(run_dir: Path) -> int:
    """Run the script of a run once.  Environment and output are the caller's."""
    run = load(run_dir)
    if run is None:
        print(f"no run in {run_dir}", file=sys.stderr)
        return 1
    # A handler, not SIG_IGN: the script must not inherit it.  The job outlives the script to tell its end.
    signal.signal(signal.SIGTERM, lambda _number, _frame: None)
    started_s = time.time()
    myself = identify(os.getpid())
    write_json(run_dir / "job.json", {"started_s": started_s, "pid": myself and myself.pid})
    exit_code = _script(run_dir / "files" / run.cwd, run_dir / "files" / run.script, run.args)
    ending = {"exit_code": exit_code, "started_s": started_s, "ended_s": time.time()}
    write_json(run_dir / "exit.json", ending)
    return 0


def _script(cwd: Path, script: Path, args: tuple[str, ...]) -> int:
    """Exit code of ``python script args``, named as the user named it where it lies below ``cwd``."""
    name = os.path.relpath(script, cwd)
    argv = [sys.executable, f"./{name}" if name.startswith("-") else name, *args]
    env = {**os.environ, "PWD": str(cwd)}  # as a shell's cd leaves it; Rain's library warns of another
    try:
        return subprocess.run(argv, stdin=subprocess.DEVNULL, cwd=cwd, env=env, check=False).returncode
    except OSError as error:
        print(f"the script cannot be started: {error}", file=sys.stderr)
        return 127
