"""A port on loopback here that leads through an SSH connection."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from rain_deploy.errors import InputError, RainDeployError
from rain_deploy.transport.ssh_exchange import LOST, hang_up

if TYPE_CHECKING:
    import paramiko

CHUNK_BYTES = 32 * 1024


class PortForward:
    """Listens on 127.0.0.1; ``dial`` opens the other side of each connection."""

    def __init__(self, dial: Callable[[], paramiko.Channel], local_port: int) -> None:
        try:
            self._server = _Server(("127.0.0.1", local_port), dial)
        except OSError as error:
            raise InputError(f"port {local_port} on 127.0.0.1 cannot be used: {error.strerror}") from error
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def local_port(self) -> int:
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Stop listening and end every connection; returns when its threads have ended."""
        self._server.shutdown()
        self._thread.join()
        self._server.end_connections()
        self._server.server_close()


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = False  # so that server_close waits for them
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], dial: Callable[[], paramiko.Channel]) -> None:
        self.dial = dial
        self._open: set[tuple[socket.socket, paramiko.Channel]] = set()
        self._closing = False
        self._lock = threading.Lock()
        super().__init__(address, _Relay)

    def end_connections(self) -> None:
        """End all, also those that are still being opened."""
        with self._lock:
            self._closing = True
            pairs = tuple(self._open)
        for here, there in pairs:
            _end(here, there)

    @contextlib.contextmanager
    def keeping(self, here: socket.socket, there: paramiko.Channel) -> Iterator[None]:
        with self._lock:
            self._open.add((here, there))
            closing = self._closing
        if closing:
            _end(here, there)
        try:
            yield
        finally:
            with self._lock:
                self._open.discard((here, there))
            hang_up(there)


class _Relay(socketserver.BaseRequestHandler):
    server: _Server

    def handle(self) -> None:
        try:
            channel = self.server.dial()
        except RainDeployError:
            return  # the port there is closed: the client sees this connection end
        with self.server.keeping(self.request, channel):
            upward = threading.Thread(target=_copy_up, args=(self.request, channel))
            upward.start()
            _copy_down(channel, self.request)
            upward.join()


def _end(here: socket.socket, there: paramiko.Channel) -> None:
    with contextlib.suppress(OSError):
        here.shutdown(socket.SHUT_RDWR)
    hang_up(there)


def _copy_up(here: socket.socket, there: paramiko.Channel) -> None:
    with contextlib.suppress(*LOST):
        while data := here.recv(CHUNK_BYTES):
            there.sendall(data)
        there.shutdown_write()
        return
    hang_up(there)


def _copy_down(there: paramiko.Channel, here: socket.socket) -> None:
    with contextlib.suppress(*LOST):
        while data := there.recv(CHUNK_BYTES):
            here.sendall(data)
        # The other side closed: a half-closed connection would keep the upward half waiting for ever.
        here.shutdown(socket.SHUT_RDWR if there.closed else socket.SHUT_WR)
        return
    with contextlib.suppress(OSError):
        here.shutdown(socket.SHUT_RDWR)
