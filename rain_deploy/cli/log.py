"""The debug log of one command, in the home directory."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from rain_deploy.wiring import make_home, unwritable

KEPT_LOGS = 50
_FORMAT = "%(asctime)s %(levelname)s %(threadName)s %(name)s: %(message)s"


class _Handler(logging.StreamHandler[TextIO]):
    """Stays silent when the log cannot be written, because of a full disk for example."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Do nothing: the command's own error says it."""


@contextlib.contextmanager
def debug_log(directory: Path, verb: str) -> Iterator[Path]:
    """Make the home ``directory`` (0700) and write this command's log in it (0600).

    StateError if that is not possible: no state could be written either.
    """
    path = directory / "logs" / f"{time.strftime('%Y%m%dT%H%M%S')}-{verb}-{os.getpid()}.log"
    make_home(directory, "logs")
    try:
        handler = _Handler(
            os.fdopen(
                os.open(path, os.O_CREAT | os.O_WRONLY, 0o600),
                "w",
                encoding="utf-8",
                errors="backslashreplace",
            )
        )
    except OSError as error:
        raise unwritable(directory, error) from error
    handler.setFormatter(logging.Formatter(_FORMAT))
    root = logging.getLogger()
    root.addHandler(handler)
    logging.getLogger("rain_deploy").setLevel(logging.DEBUG)
    try:
        with contextlib.suppress(OSError):
            _prune(path.parent)
        yield path
    finally:
        root.removeHandler(handler)
        with contextlib.suppress(OSError):  # a full disk must not hide what the command has to say
            handler.stream.close()


def _prune(logs: Path) -> None:
    for old in sorted(logs.glob("*.log"))[:-KEPT_LOGS]:
        old.unlink()
