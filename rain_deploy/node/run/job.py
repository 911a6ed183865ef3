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
from .directory import JobStart, ScriptEnd, the_run


def run_job(run_dir: Path) -> int:
    """Run the script of a run once.  Environment and output are the caller's."""
    run = the_run(run_dir)
    # A handler, not SIG_IGN, which the script would inherit.  The job outlives the script to record its end.
    signal.signal(signal.SIGTERM, lambda _number, _frame: None)
    started_s = time.time()
    myself = identify(os.getpid())
    write_json(run_dir / "job.json", JobStart(started_s, myself.pid if myself else None))
    files = run_dir / "files"
    exit_code = _script(files / run.about.cwd, files / run.about.script, run.about.args)
    write_json(run_dir / "exit.json", ScriptEnd(exit_code, started_s, time.time()))
    return 0


def _script(cwd: Path, script: Path, args: tuple[str, ...]) -> int:
    """Run ``python script args``, named as the user named it where it is below ``cwd``; its exit code."""
    name = os.path.relpath(script, cwd)
    argv = [sys.executable, f"./{name}" if name.startswith("-") else name, *args]
    env = {**os.environ, "PWD": str(cwd)}  # as a shell's cd leaves it; Rain's library warns of another
    try:
        return subprocess.run(argv, stdin=subprocess.DEVNULL, cwd=cwd, env=env, check=False).returncode
    except OSError as error:
        print(f"the script cannot be started: {error}", file=sys.stderr)
        return 127
