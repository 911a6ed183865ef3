"""One kept connection to a host: opened when first needed, shared by threads, opened anew when dead."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import paramiko

from rain_deploy.core.machine import Host
from rain_deploy.errors import Unreachable
from rain_deploy.transport.ssh_connect import connect, who
from rain_deploy.transport.ssh_exchange import LOST, hang_up, left

if TYPE_CHECKING:
    import fabric

OPEN_S = 30.0
"""For a server that is connected to say yes to one more channel."""
MAX_SESSIONS = 10
"""What an OpenSSH server allows on one connection by default."""
REFUSED_PAUSES_S = (0.02, 0.05, 0.1, 0.2, 0.5)


class RefusedError(Exception):
    """The server lives and does not open another channel."""


Opener = Callable[[paramiko.Transport, float], paramiko.Channel]


class Link:
    """``through`` is the connection to the last jump host before this one; ``connect_s`` bounds a login."""

    def __init__(self, host: Host, through: Link | None, connect_s: float) -> None:
        self.host = host
        self._through = through
        self._connect_s = connect_s
        self._connection: fabric.Connection | None = None
        self._lock = threading.Lock()
        self._sessions = threading.BoundedSemaphore(MAX_SESSIONS)

    @contextmanager
    def session(self, deadline: float | None) -> Iterator[paramiko.Channel]:
        """A channel for one command; waits while the server's limit of sessions is reached.

        ``deadline`` is a time.monotonic() value.  Raises TimeoutError, HostKeyError, Unreachable.
        """
        if not self._sessions.acquire(timeout=left(deadline)):
            raise TimeoutError
        try:
            channel = self._open_session(deadline)
            try:
                yield channel
            finally:
                hang_up(channel)
        finally:
            self._sessions.release()

    def tunnel(self, address: str, port: int) -> paramiko.Channel:
        """A TCP connection from the host to ``address:port``; raises HostKeyError, Unreachable."""

        def dial(transport: paramiko.Transport, timeout_s: float) -> paramiko.Channel:
            target, origin = (address, port), ("127.0.0.1", 0)
            return transport.open_channel("direct-tcpip", target, origin, timeout=timeout_s)

        try:
            return self._open(dial, None)
        except RefusedError as error:
            raise self._unreachable(f"cannot connect to {address} port {port}: {error}") from error

    def reach(self) -> None:
        """Connect if there is no connection; raises HostKeyError, Unreachable."""
        self._live()

    def close(self) -> None:
        """Close the connection; safe to call twice."""
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.client.close()

    def _open_session(self, deadline: float | None) -> paramiko.Channel:
        for pause_s in REFUSED_PAUSES_S:
            try:
                return self._open(_session, deadline)
            except RefusedError:
                time.sleep(pause_s)  # one that has just ended may still be counted there
        try:
            return self._open(_session, deadline)
        except RefusedError as error:
            raise self._unreachable(f"refuses another session: {error}") from error

    def _open(self, opener: Opener, deadline: float | None) -> paramiko.Channel:
        """Open a channel; nothing was sent yet, so a kept connection that has died is replaced, once."""
        retried = False
        while True:
            kept, used = self._live()
            timeout_s = min(OPEN_S, left(deadline) or OPEN_S)
            try:
                return opener(used.transport, timeout_s)
            except LOST as error:
                # paramiko keeps one exception for all threads, so the type of a refusal can get lost.
                if used.is_connected and "Timeout" not in str(error):
                    raise RefusedError(error) from error
                self._forget(used)
                left(deadline)
                if retried or used is not kept:
                    raise self._unreachable(f"lost the SSH connection: {error}") from error
                retried = True

    def _live(self) -> tuple[fabric.Connection | None, fabric.Connection]:
        """The connection as it was kept, and the one to use; threads that come together share one attempt."""
        with self._lock:
            kept = self._connection
            if kept is not None and kept.is_connected:
                return kept, kept
            through = self._through.tunnel if self._through else None
            self._connection = connect(self.host, through, self._connect_s)
            return kept, self._connection

    def _forget(self, connection: fabric.Connection) -> None:
        with self._lock:
            if self._connection is connection:
                self._connection = None
        connection.client.close()

    def _unreachable(self, how: str) -> Unreachable:
        return Unreachable(f"{who(self.host)} {how}", node=self.host.name)


def _session(transport: paramiko.Transport, timeout_s: float) -> paramiko.Channel:
    return transport.open_session(timeout=timeout_s)
