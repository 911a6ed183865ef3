"""The bytes of one exec channel, all three streams at once."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

import paramiko

from rain_deploy.transport.base import Chunk

SLICE_BYTES = 32 * 1024
"""paramiko copies what is left for every packet, so stdin is handed over in pieces."""
READ_BYTES = 4 * 1024 * 1024
"""More than a window, so that one read empties a buffer."""


LOST = (paramiko.SSHException, EOFError, OSError)
"""What paramiko raises once a connection or channel is gone."""


class NoExitStatusError(Exception):
    """The channel ended, and nothing says how the command did."""


class _Wakeup(threading.Event):
    """Set by paramiko whenever bytes or an end arrive; only the reader takes it back.

    paramiko clears it when a buffer is emptied, which would lose what the other buffer has to say.
    """

    def clear(self) -> None:
        """Left to ``rearm``."""

    def rearm(self) -> None:
        super().clear()


def left(deadline: float | None) -> float | None:
    """Seconds until ``deadline``; raises TimeoutError once it has passed."""
    if deadline is None:
        return None
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def hang_up(channel: paramiko.Channel) -> None:
    """Close ``channel``, also when its connection has been lost."""
    with contextlib.suppress(*LOST):
        channel.close()


def exchange(
    channel: paramiko.Channel,
    stdin: bytes | None,
    deadline: float | None,
    on_stdout: Chunk,
    on_stderr: Chunk,
) -> int:
    """Send ``stdin``, hand on what comes, return the exit status.

    ``deadline`` is a time.monotonic() value.  Raises TimeoutError and NoExitStatusError; what the sinks raise
    passes.  The channel is closed in any case.
    """
    sender = threading.Thread(target=_send, args=(channel, stdin or b""), daemon=True)
    try:
        if stdin:
            sender.start()
        else:
            _send(channel, b"")
        _receive(channel, deadline, on_stdout, on_stderr)
        return _status(channel, deadline)
    finally:
        hang_up(channel)


def _send(channel: paramiko.Channel, data: bytes) -> None:
    try:
        for start in range(0, len(data), SLICE_BYTES):
            channel.sendall(data[start : start + SLICE_BYTES])
        channel.shutdown_write()
    except LOST:
        # The command ended before it had read everything, or the connection was lost: the reader sees which.
        return


def _receive(channel: paramiko.Channel, deadline: float | None, on_stdout: Chunk, on_stderr: Chunk) -> None:
    wakeup = _Wakeup()
    channel.in_buffer.set_event(wakeup)
    channel.in_stderr_buffer.set_event(wakeup)
    while True:
        wakeup.rearm()
        ended = channel.eof_received or channel.closed  # asked first: what came before the end is read below
        idle = True
        for ready, receive, sink in (
            (channel.recv_ready, channel.recv, on_stdout),
            (channel.recv_stderr_ready, channel.recv_stderr, on_stderr),
        ):
            if ready():
                idle = False
                sink(_read(receive))
        if idle and ended:
            return
        if idle:
            wakeup.wait(left(deadline))
        elif deadline is not None:
            left(deadline)


def _read(receive: Callable[[int], bytes]) -> bytes:
    try:
        return receive(READ_BYTES)
    except LOST as error:  # reading also sends: that there is room for more
        raise NoExitStatusError from error


def _status(channel: paramiko.Channel, deadline: float | None) -> int:
    if not channel.status_event.wait(left(deadline)):
        raise TimeoutError
    status = channel.recv_exit_status()
    if status < 0:
        raise NoExitStatusError
    return status
