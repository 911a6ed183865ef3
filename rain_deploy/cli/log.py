"""The debug log of one command, in the home directory."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

from rain_deploy import wiring
from rain_deploy.errors import Unwritable

KEPT_LOGS = 50


@contextlib.contextmanager
def debug_log(home: Path, verb: str) -> Iterator[Path | None]:
    """Make the home directory (0700) and write this command's log in it (0600).

    Where nothing can be written but there is a state to read, there is no log.  Raises Unwritable.
    """
    name = f"{time.strftime('%Y%m%dT%H%M%S')}-{verb}-{os.getpid()}.log"
    try:
        path = wiring.make_home(home, log=name)
    except Unwritable:
        if not (home / "state.sqlite").exists():
            raise
        yield None
        return
    handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(threadName)s %(name)s: %(message)s"))
    logging.raiseExceptions = False  # nor is a full disk shown here: the command's own error says it
    root = logging.getLogger()
    root.addHandler(handler)
    logging.getLogger("rain_deploy").setLevel(logging.DEBUG)
    try:
        with contextlib.suppress(OSError):
            for old in sorted(path.parent.glob("*.log"))[:-KEPT_LOGS]:
                old.unlink()
        yield path
    finally:
        root.removeHandler(handler)
        with contextlib.suppress(OSError):  # a full disk must not hide what the command has to say
            handler.close()
