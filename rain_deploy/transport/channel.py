"""Moves bytes over SSH channels: the streams of one command, and forwarded connections."""

import contextlib
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import paramiko

from rain_deploy.core.step import Command
from rain_deploy.errors import InputError, RainDeployError
from rain_deploy.transport.frame import Frame

OPEN_S = 30.0  # how long a connected server may take to open a channel or to start a command
STUCK_S = 5.0
"""Time after a command's deadline until its connection is closed, if the library still blocks on it."""
SLICE_BYTES = 32 * 1024  # how much is sent at once: paramiko copies all that is left for every packet
READ_BYTES = 4 * 1024 * 1024  # more than a window, so that one read empties a buffer
LOST = (paramiko.SSHException, EOFError, OSError)  # errors of paramiko when a connection or channel is gone


def seconds_left(deadline: float | None) -> float | None:
    """Return the seconds until ``deadline``, a time of ``time.monotonic``.  Raises TimeoutError after it."""
    left = None if deadline is None else deadline - time.monotonic()
    if left is not None and left <= 0:
        raise TimeoutError
    return left


def hang_up(channel: paramiko.Channel) -> None:
    """Close ``channel``, even if its connection is lost."""
    with contextlib.suppress(*LOST):
        channel.close()


@contextlib.contextmanager
def closing_after(seconds: float, close: Callable[[], object]) -> Iterator[threading.Timer]:
    """Call ``close`` from another thread if the block takes longer, which ends a library call that hangs."""
    watchdog = threading.Timer(seconds, close)
    watchdog.daemon = True
    watchdog.start()
    try:
        yield watchdog
    finally:
        watchdog.cancel()


def execute(channel: paramiko.Channel, command: Command, frame: Frame, deadline: float | None) -> int | None:
    """Run ``frame.line`` on a new ``channel``, and close it; return the login's exit status, None for none.

    It ends when the command ends, even if a process that it started holds its output.

    This is not ``fabric.Connection.run``, which starts three threads per command, polls, decodes the output
    to text, and has no deadline for a server that stops answering.

    Raises TimeoutError after ``deadline``; exceptions of the chunks pass through.
    """
    stdin = command.stdin or b""
    limit_s, close_connection = command.deadline_s or OPEN_S, channel.get_transport().close
    try:
        with closing_after(limit_s + STUCK_S, close_connection) as watchdog:
            try:
                channel.exec_command(frame.line)
            except LOST:
                return None
            if deadline is None:
                watchdog.cancel()
            threading.Thread(target=_send, args=(channel, stdin), daemon=True).start()
            if not _receive(channel, deadline, frame):
                return None
            if frame.ended:
                return frame.out.status
            if not channel.status_event.wait(seconds_left(deadline)):
                raise TimeoutError
            return status if (status := channel.recv_exit_status()) >= 0 else None
    finally:
        hang_up(channel)


class _Wakeup(threading.Event):
    """Set by paramiko whenever bytes or an end arrive; only the reader clears it.

    Both buffers share it.  paramiko clears it when one is empty, which would hide the other's bytes.
    """

    rearm = threading.Event.clear

    def clear(self) -> None:
        """Do nothing, for paramiko."""


def _send(channel: paramiko.Channel, data: bytes) -> None:
    # On an error the command ended without reading all, or the connection is lost: the reader sees which.
    with contextlib.suppress(*LOST):
        for start in range(0, len(data), SLICE_BYTES):
            channel.sendall(data[start : start + SLICE_BYTES])
        channel.shutdown_write()


def _receive(channel: paramiko.Channel, deadline: float | None, frame: Frame) -> bool:
    """Hand on what is printed until the command or the login ends; return False for a lost connection."""
    wakeup = _Wakeup()
    channel.in_buffer.set_event(wakeup)
    channel.in_stderr_buffer.set_event(wakeup)
    streams = (
        (channel.recv_ready, channel.recv, frame.out),
        (channel.recv_stderr_ready, channel.recv_stderr, frame.err),
    )
    while not frame.ended:
        wakeup.rearm()
        ended = channel.eof_received or channel.closed  # read first: bytes that came before the end follow
        idle = True
        for ready, receive, chunk in streams:
            if ready():
                idle = False
                try:
                    data = receive(READ_BYTES)
                except LOST:  # a read also sends: it tells the server that there is room for more
                    return False
                chunk(data)
        if idle and ended:
            return True
        left = seconds_left(deadline)
        if idle:
            wakeup.wait(left)
    return True


class PortForward(socketserver.ThreadingTCPServer):
    """A port on 127.0.0.1 here that leads through SSH; ``dial`` opens the far side of a connection.

    ``fabric.Connection.forward_local`` is not used: it cannot choose a free port or report a taken one,
    stops for good when one connection fails, cuts both directions when one ends, and polls.
    """

    allow_reuse_address = True
    daemon_threads = False  # so that server_close waits for the threads
    request_queue_size = 64

    def __init__(self, dial: Callable[[], paramiko.Channel], local_port: int) -> None:
        self._dial = dial
        self._open: set[tuple[socket.socket, paramiko.Channel]] = set()
        self._closing = False
        self._lock = threading.Lock()
        try:
            super().__init__(("127.0.0.1", local_port), socketserver.BaseRequestHandler)
        except OSError as error:
            raise InputError(f"port {local_port} on 127.0.0.1 cannot be used: {error.strerror}") from error
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def local_port(self) -> int:
        return int(self.server_address[1])

    def close(self) -> None:
        """Stop listening and end every connection; return when their threads have ended."""
        self.shutdown()
        self._thread.join()
        with self._lock:
            self._closing = True
            pairs = tuple(self._open)
        for pair in pairs:
            _end(*pair)
        self.server_close()

    def finish_request(self, request: Any, client_address: object) -> None:
        """Serve one connection, on a thread of its own; the server closes ``request`` afterwards."""
        del client_address
        try:
            channel = self._dial()
        except RainDeployError:
            return  # nothing listens at the far port: the client sees its connection end
        with self._lock:
            self._open.add((request, channel))
            closing = self._closing
        if closing:  # ``close`` did not see this pair
            _end(request, channel)
        try:
            upward = threading.Thread(target=_copy, args=(request, channel), kwargs={"up": True})
            upward.start()
            _copy(request, channel, up=False)
            upward.join()
        finally:
            with self._lock:
                self._open.discard((request, channel))
            hang_up(channel)


def _end(near: socket.socket, far: paramiko.Channel) -> None:
    with contextlib.suppress(OSError):
        near.shutdown(socket.SHUT_RDWR)
    hang_up(far)


def _copy(near: socket.socket, far: paramiko.Channel, *, up: bool) -> None:
    """Copy one direction until its end; end both if one of the two sides is lost."""
    receive, send = (near.recv, far.sendall) if up else (far.recv, near.sendall)
    try:
        while data := receive(SLICE_BYTES):
            send(data)
        if up:
            far.shutdown_write()
        else:  # a half-open connection after a full close would keep the copy upwards waiting for ever
            near.shutdown(socket.SHUT_RDWR if far.closed else socket.SHUT_WR)
    except LOST:
        _end(near, far)
