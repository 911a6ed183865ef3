"""Signals: the first one lets the command end in order, a Ctrl-C after it stops at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

from rain_deploy.errors import RainDeployError

if TYPE_CHECKING:
    from types import FrameType


class Stopped(KeyboardInterrupt):
    """A signal came; verbs treat SIGTERM and SIGHUP like Ctrl-C."""

    def __init__(self, signum: int) -> None:
        super().__init__()
        self.signum = signum


def interrupted(stop: BaseException, message: str, **more: str | None) -> RainDeployError:
    """Return an interrupt as an error, whose exit code is 128 + the signal's number."""
    error = RainDeployError(message, **more)
    error.exit_code = 128 + (stop.signum if isinstance(stop, Stopped) else signal.SIGINT)
    return error


class Interrupts:
    """Handles SIGINT, SIGTERM and SIGHUP of this process.

    SIGTERM and SIGHUP do not disturb the ending: ``timeout`` and the end of a session send several of them.
    """

    def __init__(self) -> None:
        self.existing: Callable[[], str] = str
        """Returns what exists as recorded at this moment, for who leaves before the end."""
        self._signals = 0

    def install(self) -> None:
        """Handle the signals, but not those that were ignored on purpose, as under nohup."""
        for signum in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(signum) is signal.SIG_DFL:
                signal.signal(signum, self)
        # Also where a shell started us in the background with Ctrl-C ignored: a SIGINT to us is meant for us.
        signal.signal(signal.SIGINT, self)

    def __call__(self, signum: int, _frame: FrameType | None) -> None:
        """Raise Stopped for the first signal; leave for a Ctrl-C after it."""
        self._signals += 1
        if self._signals == 1:
            raise Stopped(signum)
        if signum == signal.SIGINT:
            cursor = b"\x1b[?25h" if os.isatty(2) else b""  # a spinner may have hidden it
            try:
                words = "; ".join(filter(None, ("interrupted again: stopping now", self.existing())))
                os.write(2, cursor + f"\n{words}\n".encode())
            finally:
                os._exit(128 + signum)
